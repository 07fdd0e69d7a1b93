"""The Python examples of `docs/clients.md` run as they stand, but for the address of the proxy."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.agents.clients import KEY
from tests.agents.programs import environment, run
from tests.agents.proxy import proxy_before

pytestmark = pytest.mark.long

_DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
_EXAMPLE: Final = re.compile(r"^### (?P<title>\S+)[^#]*?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES: Final = {match["title"]: match["code"] for match in _EXAMPLE.finditer(_DOCUMENT.read_text())}


def test_each_python_sdk_has_an_example() -> None:
    assert set(EXAMPLES) == {"openai", "anthropic", "google-genai", "LangChain"}


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_prints_an_answer(title: str, tmp_path: Path) -> None:
    code = EXAMPLES[title]
    if title == "LangChain" and find_spec("langchain_openai") is None:
        pytest.skip("langchain-openai is not installed")
    # The back end at an unused address: `demo` must answer without it.
    with proxy_before("openai-chat", "http://127.0.0.1:9", tmp_path) as proxy:
        moved = code.replace("http://127.0.0.1:8000", proxy.url)
        assert moved != code
        env = environment(tmp_path, {"LLM_INTERACTIVE_PROXY_API_KEY": KEY})
        ran = run([sys.executable, "-c", moved], tmp_path, env, 60)
        assert ran.status == 0, f"{ran.errors}\n{proxy.process.said()}"
        lines = ran.output.splitlines()
        assert len(lines) == code.count("print(") and all("hi" in line for line in lines), ran.output
