"""The estimate: characters by class, quick, and never nothing for something."""

from __future__ import annotations

import pytest

from llm_proxy.tokens.estimate import estimate

# The counts are those of o200k.
SAMPLES = {
    "prose": (
        "A reader of this sentence finds nothing in it that is out of the ordinary, and so does a tokenizer. " * 5,
        111,
    ),
    "code": ("def total(items: list[int]) -> int:\n    return sum(item for item in items if item > 0)\n\n\n" * 5, 120),
    "json": ('{"name": "weather", "arguments": {"city": "Berlin", "days": [1, 2, 3]}}\n' * 5, 140),
    "Chinese": ("这是一个中文句子的例子，用来估计词元的数量。" * 5, 80),
    "Russian": ("Это пример русского текста, который мы используем для оценки. " * 5, 61),
}


@pytest.mark.parametrize(("text", "tokens"), SAMPLES.values(), ids=SAMPLES)
def test_a_text_is_estimated_within_a_fifth(text: str, tokens: int) -> None:
    assert estimate([text]) == pytest.approx(tokens, rel=0.2)


def test_nothing_is_nothing_and_something_is_something() -> None:
    assert estimate([]) == estimate([""]) == 0
    for text in ("a", " ", "\n", "é", "字", "🎉", "\ud83d", "x" * 100_000, " " * 100_000):
        assert estimate([text]) > 0


def test_a_long_text_is_estimated_by_slices_of_it() -> None:
    text = "".join(sample for sample, _ in SAMPLES.values()) * 3
    assert estimate([text * 200]) == pytest.approx(estimate([text]) * 200, rel=0.05)


def test_more_text_is_more_tokens() -> None:
    text = SAMPLES["prose"][0]
    sizes = [estimate([text * times]) for times in (1, 10, 100, 1000, 2000)]
    assert sizes == sorted(sizes)
