"""REQ-07: what cannot fit is refused before it costs anything, by limits that somebody has set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from llm_proxy.config import Saved, Settings, load_settings
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.parts import Opaque, Part, Text
from llm_proxy.conversation.request import Message, Request, ServerTool
from llm_proxy.conversation.usage import Usage
from llm_proxy.features.context_window import ContextWindow, measured
from llm_proxy.features.exchange import Candidate, ExchangeView
from llm_proxy.option_groups import GROUPS
from llm_proxy.tokens.meter import Measure, Meter
from llm_proxy.tokens.tokenizer import SLICE, Tokenizer

PROSE = "The quick brown fox jumps over the lazy dog near the river bank. "
ABOUT_500 = PROSE * 36
AT_OPENAI = Candidate("openai", "gpt-4o")


def settings(tmp_path: Path, config: dict[str, Any] | None = None, *argv: str) -> Settings:
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config or {}))
    return load_settings(list(argv), {"HOME": str(tmp_path), "OPENAI_API_KEY": "k"}, tmp_path, GROUPS, Saved({}))


def limits(key: str, **values: int) -> dict[str, Any]:
    return {"model_defaults": {key: {"limits": values}}}


class Asked:
    """An exchange as the room sees it."""

    def __init__(
        self, text: str = ABOUT_500, output: int | None = None, beside: tuple[Part, ...] = (), **more: Any
    ) -> None:
        self.id, self.surface, self.backend, self.model = "req-1", "openai-chat", "openai", "gpt-4o"
        self.size = len(text.encode()) + 80
        self.output_limit = output
        self.usage: Usage | None = None
        self.fault: Fault | None = None
        self.cancelled, self.decoded = False, 0
        self._request = Request(
            dialect="openai-chat", messages=(Message("user", (Text(text), *beside)),), max_output_tokens=output, **more
        )

    @property
    def request(self) -> Request:
        self.decoded += 1
        return self._request

    def edited(self) -> None:
        self._request = msgspec.structs.replace(self._request, stop=("x",))


async def judged(room: ContextWindow, asked: Asked, candidate: Candidate = AT_OPENAI) -> Fault | None:
    return await room.admit(cast(ExchangeView, asked), candidate)


def estimating() -> Meter:
    return Meter(tokenize=False)


# Refusals


@pytest.mark.parametrize("name", ["max_input_tokens", "context_window"])
@pytest.mark.parametrize("meter", [estimating(), Meter()], ids=["estimate", "tokenizer if installed"])
async def test_too_long_an_input_is_refused_with_the_limit_and_the_measure(
    tmp_path: Path, name: str, meter: Meter
) -> None:
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", **{name: 100})), meter)
    fault = await judged(room, Asked())
    assert fault is not None and fault.details is not None
    assert (fault.kind, fault.status_code, fault.detail["code"]) == ("context_length", 400, "input_limit_exceeded")
    assert fault.param == "messages"
    assert fault.details.keys() == {"model", "limit", "measured"}
    assert (fault.details["model"], fault.details["limit"]) == ("gpt-4o", 100)
    assert 450 < fault.details["measured"] < 550


@pytest.mark.parametrize("key", ["gpt-4o", "openai:gpt-4o", "openai/gpt-4o", "gpt-4*"])
async def test_a_plain_and_a_back_end_s_key_both_work(tmp_path: Path, key: str) -> None:
    room = ContextWindow(settings(tmp_path, limits(key, max_input_tokens=100)), estimating())
    assert await judged(room, Asked()) is not None
    assert await judged(room, Asked(), Candidate("openai", "o3")) is None


async def test_limits_that_stand_with_the_back_end_hold_for_its_model(tmp_path: Path) -> None:
    config = {"backends": {"openai": {"models": {"m": {"limits": {"max_input_tokens": 10}}}}}}
    room = ContextWindow(settings(tmp_path, config), estimating())
    assert await judged(room, Asked(), Candidate("openai", "m")) is not None
    assert await judged(room, Asked(), Candidate("demo", "m")) is None


async def test_the_limit_of_the_input_counts_before_the_window(tmp_path: Path) -> None:
    config = limits("gpt-4o", max_input_tokens=1000, context_window=100)
    fault = await judged(ContextWindow(settings(tmp_path, config), estimating()), Asked(output=10))
    assert fault is not None and fault.code == "total_limit_exceeded"


async def test_input_and_output_together_must_fit_the_window(tmp_path: Path) -> None:
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", context_window=1000)), estimating())
    assert await judged(room, Asked(output=200)) is None
    fault = await judged(room, Asked(output=900))
    assert fault is not None and fault.details is not None
    assert (fault.kind, fault.code, fault.status_code) == ("context_length", "total_limit_exceeded", 400)
    details = fault.details
    assert details.keys() == {
        "model", "context_window", "input_tokens", "max_tokens", "total_requested", "suggestion",
    }  # fmt: skip
    assert (details["context_window"], details["max_tokens"]) == (1000, 900)
    assert details["total_requested"] == details["input_tokens"] + 900
    assert str(1000 - details["input_tokens"]) in details["suggestion"]


async def test_a_forced_window_replaces_both_limits_of_every_model(tmp_path: Path) -> None:
    config = limits("gpt-4o", max_input_tokens=100, context_window=100)
    wide = ContextWindow(settings(tmp_path, config, "--force-context-window", "4096"), estimating())
    assert await judged(wide, Asked()) is None
    large = Candidate("gemini", "gemini-2.5-pro", context_window=128_000)
    fault = await judged(wide, Asked(PROSE * 400), large)
    assert fault is not None and fault.details is not None
    assert fault.details["limit"] == 4096
    fault = await judged(wide, Asked(output=4000), large)
    assert fault is not None and fault.code == "total_limit_exceeded"


# What is not refused


async def test_what_a_catalogue_knows_is_no_reason_to_refuse(tmp_path: Path) -> None:
    asked = Asked(output=10_000)
    room = ContextWindow(settings(tmp_path), estimating())
    assert await judged(room, asked, Candidate("openai", "gpt-4o", context_window=100, max_input=50)) is None
    assert asked.decoded == 0


async def test_beside_a_configured_limit_the_window_of_the_catalogue_counts_for_the_second_check(
    tmp_path: Path,
) -> None:
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=2000)), estimating())
    known = Candidate("openai", "gpt-4o", context_window=2500)
    assert await judged(room, Asked(output=1000), known) is None
    fault = await judged(room, Asked(output=2400), known)
    assert fault is not None and fault.details is not None
    assert fault.details["context_window"] == 2500


async def test_switched_off_nothing_is_refused(tmp_path: Path) -> None:
    argv = ("--disable-context-enforcement", "--force-context-window", "10")
    assert await judged(ContextWindow(settings(tmp_path, {}, *argv), estimating()), Asked()) is None


class Refusing(Meter):
    """A meter that must not be asked."""

    def steps(self, *arguments: Any, **more: Any) -> Any:
        raise AssertionError("counted although the bytes fit")


async def test_no_more_bytes_than_tokens_allowed_are_not_even_decoded(tmp_path: Path) -> None:
    asked = Asked()
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=asked.size)), Refusing())
    assert await judged(room, asked) is None
    assert asked.decoded == 0


async def test_bytes_that_fit_with_the_output_are_not_counted(tmp_path: Path) -> None:
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", context_window=5000)), Refusing())
    assert await judged(room, Asked(output=1000)) is None


async def test_a_body_that_cannot_be_read_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    class Unreadable(Asked):
        @property
        def request(self) -> Request:
            raise FaultError(Fault(kind="bad_request", message="messages: expected a list", side="client"))

    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=100)), estimating())
    assert await judged(room, Unreadable()) is None


# Cost


class Words:
    def __init__(self) -> None:
        self.longest = 0

    def count(self, text: str) -> int:
        self.longest = max(self.longest, len(text))
        return len(text.split())


async def test_others_have_their_turn_while_a_long_request_is_counted() -> None:
    import asyncio

    words, meter, turns = Words(), Meter(), 0
    meter._tokenizers["o200k_base"] = Tokenizer(words)
    meter._claimed.add("o200k_base")

    async def another() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(another())
    found = await measured(meter, Asked("word " * 80_000).request, "openai", "gpt-4o", "")
    task.cancel()
    assert found.exact and found.tokens == 80_007
    assert words.longest <= SLICE
    assert turns >= 400_000 // SLICE - 2


# What comes back


class Remembering(Meter):
    def __init__(self) -> None:
        super().__init__(tokenize=False)
        self.bills: list[tuple[Measure, int]] = []

    def billed(self, measure: Measure, tokens: int) -> None:
        self.bills.append((measure, tokens))
        super().billed(measure, tokens)


async def finished(tmp_path: Path, change: Any = None, **more: Any) -> list[tuple[Measure, int]]:
    """What a room learns of one exchange that was counted and billed 700 tokens."""
    meter = Remembering()
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=2000)), meter)
    asked = Asked(**more)
    assert await judged(room, asked) is None
    asked.usage = Usage(input=700, cache_read=600, output=5)
    if change is not None:
        change(asked)
    room.on_finish(cast(ExchangeView, asked))
    assert room._measured == {}
    return meter.bills


async def test_the_bill_of_a_counted_request_is_learned(tmp_path: Path) -> None:
    [(measure, tokens)] = await finished(tmp_path)
    assert tokens == 700
    assert (measure.backend, measure.model) == ("openai", "gpt-4o")


async def test_a_request_id_that_clients_use_twice_mixes_no_bills(tmp_path: Path) -> None:
    meter = Remembering()
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=2000)), meter)
    first, second = Asked(), Asked("word " * 700)
    for asked, billed in ((first, 500), (second, 700)):
        assert await judged(room, asked) is None
        asked.usage = Usage(input=billed)
    for asked in (first, second):
        room.on_finish(cast(ExchangeView, asked))
    assert [tokens for _, tokens in meter.bills] == [500, 700]
    assert meter.bills[0][0].raw < meter.bills[1][0].raw


async def test_bills_make_the_next_count_better(tmp_path: Path) -> None:
    meter = estimating()
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=900)), meter)
    for _ in range(12):
        asked = Asked()
        await judged(room, asked)
        asked.usage = Usage(input=950)
        room.on_finish(cast(ExchangeView, asked))
    fault = await judged(room, Asked())
    assert fault is not None and fault.details is not None
    assert fault.details["measured"] == pytest.approx(950, rel=0.05)


CHANGES: dict[str, Any] = {
    "estimated": lambda asked: setattr(asked, "usage", Usage(input=700, source="estimated")),
    "cut short": lambda asked: setattr(asked, "usage", Usage(input=700, source="partial")),
    "not stated": lambda asked: setattr(asked, "usage", None),
    "with the results of the provider's tools": lambda asked: setattr(asked, "usage", Usage(input=700, tool_prompt=50)),
    "of a request that was edited since": Asked.edited,
    "of another model": lambda asked: setattr(asked, "model", "gpt-5"),
    "of a call that failed": lambda asked: setattr(asked, "fault", Fault(kind="closed", message="cut")),
    "of a client that left": lambda asked: setattr(asked, "cancelled", True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_bill_that_says_nothing_of_the_count_is_not_learned(tmp_path: Path, change: Any) -> None:
    assert await finished(tmp_path, change) == []


@pytest.mark.parametrize(
    "more",
    [
        {"previous_id": "resp_1"},
        {"tools": (ServerTool("openai-responses", "web_search", {"type": "web_search"}),)},
        {"beside": (Opaque("anthropic-messages", "compaction", {"type": "compaction"}),)},
    ],
    ids=["earlier responses", "provider's tools", "what only the provider knows"],
)
async def test_a_prompt_that_is_not_all_here_teaches_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    assert await finished(tmp_path, **more) == []


async def test_an_exchange_that_was_not_counted_is_no_matter(tmp_path: Path) -> None:
    room = ContextWindow(settings(tmp_path), estimating())
    asked = Asked()
    asked.usage = Usage(input=700)
    room.on_finish(cast(ExchangeView, asked))
    assert room._measured == {}


def test_the_look_ahead_knows_no_size_and_says_nothing(tmp_path: Path) -> None:
    room = ContextWindow(settings(tmp_path, limits("gpt-4o", max_input_tokens=1)), estimating())
    assert room.outlook(AT_OPENAI, "key#1") == ""
