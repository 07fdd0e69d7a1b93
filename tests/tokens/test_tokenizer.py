"""The tokenizer: the same counts in slices as in one go, remembered, and replaced by the estimate where it is not there."""

from __future__ import annotations

import pytest

from llm_proxy.conversation.parts import Text
from llm_proxy.conversation.request import Message, Request
from llm_proxy.tokens import tokenizer
from llm_proxy.tokens.meter import Measure, Meter
from llm_proxy.tokens.tokenizer import SLICE, Tokenizer


class Words:
    """A vocabulary in which a word is a token."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        text.encode()
        self.asked.append(text)
        return len(text.split())


def total(counter: Tokenizer, *texts: str) -> tuple[int, int]:
    """The count, and how often others had a turn."""
    steps, turns = counter.steps(texts), 0
    while True:
        try:
            next(steps)
            turns += 1
        except StopIteration as stop:
            return int(stop.value), turns


def test_a_long_text_is_counted_in_slices_with_turns_in_between() -> None:
    words = Words()
    counted, turns = total(Tokenizer(words), "word " * 80_000)
    assert counted == 80_000
    assert max(map(len, words.asked)) <= SLICE
    assert turns >= 400_000 // SLICE - 1


def test_many_short_texts_leave_turns_too() -> None:
    _, turns = total(Tokenizer(Words()), *["a few words"] * 20_000)
    assert turns > 20


def test_a_text_is_counted_once() -> None:
    words = Words()
    counter = Tokenizer(words)
    text = "a message of the conversation that will come again with the next request"
    first = total(counter, text)
    words.asked.clear()
    assert total(counter, text) == first
    assert words.asked == []


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_MOST_KEPT", 40)
    counter = Tokenizer(Words())
    for number in range(500):
        total(counter, f"message {number} " + "x" * 60)
        assert len(counter._kept) <= 40


def test_half_a_surrogate_pair_is_no_failure() -> None:
    assert total(Tokenizer(Words()), "ab \ud83d cd") == (3, 0)


def measure(meter: Meter, model: str = "gpt-4o") -> Measure:
    request = Request(dialect="", messages=(Message("user", (Text("Hello, how are you today? " * 20),)),))
    steps = meter.steps(request, "b", model)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: Measure = stop.value
            return found


@pytest.mark.skipif(not tokenizer.installed(), reason="the extra `tokenizers` is not installed")
def test_the_first_who_needs_a_vocabulary_loads_it_and_the_others_estimate_meanwhile() -> None:
    meter = Meter()
    assert meter.claim("gpt-4o") == "o200k_base"
    assert meter.claim("claude-sonnet-4-5") is None
    assert not measure(meter).exact
    meter.load("o200k_base")
    found = measure(meter)
    assert found.exact
    assert found.tokens == 20 * 7 + 1 + 7  # seven in each sentence, a space at the end, the frame of one message


def test_without_the_extra_nothing_is_loaded_and_the_estimate_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "installed", lambda: False)
    meter = Meter()
    assert meter.claim("gpt-4o") is None
    assert not measure(meter).exact


def test_a_library_that_cannot_be_loaded_leaves_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(vocabulary: str) -> object:
        raise ImportError("no such library for this machine")

    monkeypatch.setattr(tokenizer, "load", broken)
    meter = Meter()
    meter.load("o200k_base")
    assert meter.claim("gpt-4") is None
    assert not measure(meter).exact
