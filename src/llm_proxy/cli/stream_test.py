"""`llm-proxy stream-test`: one streaming request to a running proxy, and when each event of its answer arrives."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.cli import CommandFault, client
from llm_proxy.config import Settings
from llm_proxy.config.groups import ServerOptions
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.sse import Frame, SseReader

_LONGEST_LINE = 200
_EXAMPLES = """examples:
  llm-proxy stream-test
  llm-proxy stream-test --model demo:slow
  llm-proxy stream-test --url http://10.0.0.7:8000 --model openai:gpt-4o --prompt "Count to ten." """


def stream_test(arguments: Sequence[str]) -> int:
    purpose = "Send one streaming Chat request to a running proxy and print each event with its time of arrival."
    parser = client.parser("stream-test", purpose, _EXAMPLES.rstrip())
    client.add_address(parser)
    parser.add_argument("--model", help="model to ask [default: the first model of the default back-end]")
    parser.add_argument("--prompt", default="Say hello in five words.", help="what to say to it [default: %(default)s]")
    options, settings = client.read(parser, arguments)
    proxy = client.locate(options, settings)
    model = options.model or _some_model(proxy, settings)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": options.prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    print(f"{proxy}/v1/chat/completions  model {client.printable(model)}", flush=True)
    began = time.monotonic()
    silence = settings.get(ServerOptions).timeout + 10  # the proxy itself gives up first
    with client.asking(proxy, "POST", "/v1/chat/completions", body, silence) as response:
        _show(
            began,
            f"answer of {client.printable(response.headers.get('x-llm-proxy-backend', 'an unnamed back-end'))} begins",
        )
        return _Watch(began).run(response)


def _some_model(proxy: client.Proxy, settings: Settings) -> str:
    """A model that the proxy lists, of its default back-end if this configuration tells which that is."""
    with client.asking(proxy, "GET", "/v1/models") as response:
        try:
            names = [str(entry["id"]) for entry in json.loads(response.read())["data"]]
        except (ValueError, KeyError, TypeError):
            raise CommandFault(f"{proxy} answers, but not with a list of models; is it this proxy?") from None
    if not names:
        raise CommandFault(f"{proxy} lists no models; name one with --model")
    default = Backends(settings.backends, Transport(environ=settings.environ), default=settings.default_backend).default
    usual = f"{default.id}:{default.settings.default_model}"
    its = [name for name in names if name.startswith(f"{default.id}:")]
    return usual if usual in its else (its or names)[0]


class _Watch:
    """Prints events as they come and remembers what the totals need."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._events = 0
        self._bytes = 0
        self._characters = 0
        self._first: float | None = None
        self._usage: dict[str, Any] | None = None
        self._done = False
        self._error = ""

    def run(self, response: http.client.HTTPResponse) -> int:
        try:
            for frame in _frames(response, self._count):
                self._see(frame)
        except WireFault as fault:
            self._error = str(fault)
        if not self._error and not self._done:
            self._error = "the stream ended without its end mark"
        self._sum_up()
        if self._error:
            raise CommandFault(f"the stream failed: {client.printable(self._error)}")
        return 0

    def _count(self, size: int) -> None:
        self._bytes += size

    def _see(self, frame: Frame) -> None:
        if frame.data is None:
            _show(self._began, frame.raw.decode("utf-8", "replace").strip())
            return
        self._events += 1
        text = frame.data.decode("utf-8", "replace")
        try:
            chunk = None if text == "[DONE]" else json.loads(text)
        except ValueError:
            self._error = self._error or "an event that is not JSON"
            chunk = None
        self._done = self._done or text == "[DONE]"
        _show(self._began, (_carried(chunk) if isinstance(chunk, dict) else "") or text)
        if isinstance(chunk, dict):
            self._read(chunk)

    def _read(self, chunk: dict[str, Any]) -> None:
        if isinstance(error := chunk.get("error"), dict):
            self._error = str(error.get("message") or "the proxy reports an error")
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            said = [delta.get(name) for name in ("content", "reasoning_content")] if isinstance(delta, dict) else []
            for text in said:
                if isinstance(text, str) and text:
                    self._characters += len(text)
                    if self._first is None:
                        self._first = time.monotonic() - self._began

    def _sum_up(self) -> None:
        first = "no content" if self._first is None else f"first content after {self._first:.3f} s"
        total = time.monotonic() - self._began
        print(
            f"{self._events} events, {self._bytes} bytes, {self._characters} characters; {first}, end after {total:.3f} s"
        )
        if self._usage is not None:
            said, made = self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
            print(f"tokens: {said if said is not None else '?'} in, {made if made is not None else '?'} out")


def _carried(chunk: dict[str, Any]) -> str:
    """What of an event differs from the one before: not its id, model and time."""
    found: list[str] = []
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict):
            if delta := choice.get("delta"):
                found.append(json.dumps(delta, ensure_ascii=False))
            if reason := choice.get("finish_reason"):
                found.append(f"finish_reason {reason}")
    found += [f"{name} {json.dumps(chunk[name], ensure_ascii=False)}" for name in ("usage", "error") if chunk.get(name)]
    return "  ".join(found)


def _frames(response: http.client.HTTPResponse, count: Callable[[int], None]) -> Iterator[Frame]:
    """The events as they arrive. Raises WireFault for an event that has no end."""
    reader = SseReader()
    while piece := response.read1(65536):
        count(len(piece))
        yield from reader.feed(piece)
    yield from reader.close()


def _show(began: float, text: str) -> None:
    line = client.printable(text)
    if len(line) > _LONGEST_LINE:
        line = line[: _LONGEST_LINE - 1] + "…"
    stamp = client.emphasised(f"{time.monotonic() - began:8.3f} s", "2")
    print(f"{stamp}  {line}", flush=True)
