"""RT-01: reading a model name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.fault import FaultError
from llm_proxy.routing.targets import Destination, check_name, parse

KNOWN = frozenset(("openai", "openrouter", "anthropic", "gemini", "lmstudio", "zai-coding-plan"))


@pytest.mark.parametrize(
    ("name", "backend", "model"),
    [
        ("openrouter:anthropic/claude-3-haiku:beta", "openrouter", "anthropic/claude-3-haiku:beta"),
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openrouter:openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("llama3:8b", "", "llama3:8b"),
        ("deepseek/deepseek-r1:free", "", "deepseek/deepseek-r1:free"),
        ("OPENAI:gpt-4o", "openai", "gpt-4o"),
        ("OpenAI/GPT-4o", "openai", "GPT-4o"),
        ("nosuch:model", "", "nosuch:model"),
        ("openai:", "openai", ""),
        ("openai/", "openai", ""),
        ("openai", "", "openai"),
        ("", "", ""),
        (":x", "", ":x"),
        ("zai-coding-plan:glm-4.6", "zai-coding-plan", "glm-4.6"),
        ("lmstudio/qwen:7b", "lmstudio", "qwen:7b"),
        ("openai:gpt-4o?temperature=1", "openai", "gpt-4o?temperature=1"),
    ],
)
def test_the_left_part_is_a_back_end_only_if_it_is_known(name: str, backend: str, model: str) -> None:
    assert parse(name, KNOWN) == Destination(backend, model)


def test_with_a_session_back_end_the_slash_belongs_to_the_model() -> None:
    assert parse("openai/gpt-4o", KNOWN, keep_slash=True) == Destination("", "openai/gpt-4o")
    assert parse("openrouter:openai/gpt-4o", KNOWN, keep_slash=True) == Destination("openrouter", "openai/gpt-4o")


@pytest.mark.parametrize("name", ["x" * 513, "a\r\nb", "a\0b", "a\x7f", "\ud800"])
def test_what_can_be_no_model_name_is_refused(name: str) -> None:
    with pytest.raises(FaultError) as caught:
        check_name(name)
    assert (caught.value.fault.status_code, caught.value.fault.param) == (400, "model")


def test_ordinary_and_foreign_names_are_accepted() -> None:
    for name in ("", "x" * 512, "modèle-é", "模型", "a b"):
        check_name(name)


@given(st.text())
def test_the_model_is_never_changed(name: str) -> None:
    found = parse(name, KNOWN)
    assert name.endswith(found.model)
    assert bool(found.backend) == (found.model != name)
