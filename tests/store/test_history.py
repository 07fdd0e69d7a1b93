"""SES-05: what a session remembers of its exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.features.exchange import AttemptRecord
from llm_proxy.features.history import MOST_TEXT, History
from llm_proxy.sessions.session import Session
from llm_proxy.store.session_log import SessionLog, log_name
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret
from tests.store.support import START

KEY = Secret("provider-key-canary-4711")


def clean(text: str) -> str:
    return Redactor((KEY,)).clean(text)


class OneExchange:
    """An exchange as rooms see it, at its end."""

    def __init__(self, session: Session, **changes: Any) -> None:
        self.session = session
        self.request = Request(dialect="openai-chat")
        self.id = "req_1"
        self.surface = "openai-chat"
        self.key_name = ""
        self.client_agent = ""
        self.user = ""
        self.requested_model = "m"
        self.backend = "openai"
        self.model = "gpt-5"
        self.stream = False
        self.status = 200
        self.cancelled = False
        self.fault: Fault | None = None
        self.usage: Usage | None = Usage(input=10, output=5, cost=0.25)
        self.attempts: list[AttemptRecord] = []
        self.started = START
        self.duration = 1.5
        self.time_to_first: float | None = 0.5
        self.side = False
        self.local = False
        self.project = ""
        self.prompt = "question"
        self.answer = "answer"
        self.sampling: dict[str, Any] = {}
        self.collects = False
        for name, value in changes.items():
            setattr(self, name, value)

    def keep_answer(self) -> None:
        self.collects = True

    def prompt_text(self) -> str:
        return self.prompt

    def answer_text(self) -> str:
        return self.answer

    def parameters(self) -> dict[str, Any]:
        return self.sampling


class Lines:
    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []

    def add(self, scope: str, id: str, record: Mapping[str, Any]) -> None:
        self.records.append(record)


@pytest.fixture
def session() -> Session:
    return Session(id="s", scope="a", created=START, last_used=START)


def test_max_history_items_2_and_three_requests_then_two_entries(session: Session) -> None:
    room = History(most=2, clean=clean)
    for number in range(3):
        room.on_finish(OneExchange(session, prompt=f"question {number}"))
    assert [entry.prompt for entry in session.exchanges] == ["question 1", "question 2"]
    assert session.totals.requests == 3
    assert session.changed


def test_an_entry_says_who_answered_what_with_what(session: Session) -> None:
    session.values["top-p"] = 0.5
    session.values["temperature"] = 0.1
    exchange = OneExchange(session, sampling={"temperature": 1.5, "seed": 3}, project="p")
    History(most=9, clean=clean).on_finish(exchange)
    (entry,) = session.exchanges
    assert (entry.time, entry.prompt, entry.response) == (START, "question", "answer")
    assert (entry.handler, entry.backend, entry.model, entry.project) == ("backend", "openai", "gpt-5", "p")
    assert entry.parameters == {"temperature": 1.5, "top_p": 0.5, "seed": 3}
    assert (entry.prompt_tokens, entry.completion_tokens) == (10, 5)
    assert (entry.status, entry.duration_ms, entry.side) == (200, 1500.0, False)


def test_a_local_reply_is_the_proxys(session: Session) -> None:
    local = OneExchange(session, local=True, backend="", model="", usage=None, answer="Hello")
    History(most=9, clean=clean).on_finish(local)
    (entry,) = session.exchanges
    assert (entry.handler, entry.backend, entry.response) == ("proxy", "", "Hello")
    assert session.totals.requests == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"fault": Fault(kind="overloaded", message="later", status=529)}, 529),
        ({"cancelled": True}, 499),
        ({"status": 200}, 200),
    ],
)
def test_the_status_tells_how_it_ended(session: Session, changes: dict[str, Any], status: int) -> None:
    History(most=9, clean=clean).on_finish(OneExchange(session, **changes))
    assert next(iter(session.exchanges)).status == status


def test_side_requests_count_but_are_no_turns(session: Session) -> None:
    room = History(most=9, clean=clean)
    room.on_finish(OneExchange(session))
    room.on_finish(OneExchange(session, side=True, usage=Usage(input=1000, output=1)))
    assert [entry.side for entry in session.exchanges] == [False, True]
    totals = session.totals
    assert (totals.requests, totals.prompt, totals.completion, totals.cost, totals.context) == (2, 1010, 6, 0.25, 10)


def test_without_history_and_log_no_text_is_looked_at(session: Session) -> None:
    room = History(most=0, clean=clean)

    class Closed(OneExchange):
        def prompt_text(self) -> str:
            raise AssertionError("the body was decoded")

    exchange = Closed(session)
    room.on_request(exchange)
    room.on_finish(exchange)
    assert not exchange.collects
    assert list(session.exchanges) == [] and session.totals.requests == 1


def test_with_history_the_answer_is_asked_for_before_it_comes(session: Session) -> None:
    exchange = OneExchange(session)
    History(most=1, clean=clean).on_request(exchange)
    assert exchange.collects


def test_a_body_that_is_no_request_is_remembered_without_a_prompt(session: Session) -> None:
    fault = Fault(kind="bad_request", message="messages: expected an array", side="client")
    History(most=1, clean=clean).on_finish(OneExchange(session, fault=fault, usage=None, prompt="", answer=""))
    assert (next(iter(session.exchanges)).prompt, next(iter(session.exchanges)).status) == ("", 400)


def test_nothing_is_recorded_for_nobodys_request() -> None:
    nobody = Session(id="", scope="", created=0, last_used=0)
    lines = Lines()
    History(most=1, clean=clean, log=lines).on_finish(OneExchange(nobody))
    assert list(nobody.exchanges) == [] and lines.records == []


def test_a_lower_bound_forgets_the_oldest(session: Session) -> None:
    for _ in range(5):
        History(most=9, clean=clean).on_finish(OneExchange(session))
    History(most=2, clean=clean).on_finish(OneExchange(session))
    assert len(session.exchanges) == 2
    History(most=0, clean=clean).on_finish(OneExchange(session))
    assert list(session.exchanges) == []


@pytest.mark.parametrize("most", [0, 1, 9, 10, 11, 19, 20, 25, 100])
def test_of_any_number_the_newest_are_there_in_order(session: Session, most: int) -> None:
    room = History(most=most, clean=clean)
    for number in range(130):
        room.on_finish(OneExchange(session, prompt=f"question {number}", answer=f"answer {number}"))
        texts = [(entry.prompt, entry.response) for entry in session.exchanges]
        first = max(0, number + 1 - most)
        assert texts == [(f"question {at}", f"answer {at}") for at in range(first, number + 1)]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), max_size=8))
def test_a_bound_that_changes_keeps_the_newest(steps: list[tuple[int, int]]) -> None:
    session = Session(id="s", scope="a", created=START, last_used=START)
    expected: list[str] = []
    for number, (count, most) in enumerate(steps):
        room = History(most=most, clean=clean)
        for at in range(count):
            room.on_finish(OneExchange(session, prompt=f"{number}.{at}"))
            expected = [*expected, f"{number}.{at}"][-most:] if most else []
        assert [entry.prompt for entry in session.exchanges] == expected


def test_of_the_newest_ten_all_is_kept_and_of_older_ones_the_beginning(session: Session) -> None:
    room = History(most=100, clean=clean)
    for number in range(100):
        room.on_finish(OneExchange(session, prompt=f"{number} " + "x" * 3000, answer="y" * 3000))
    exchanges = list(session.exchanges)
    assert all(len(entry.prompt) > 3000 and len(entry.response) == 3000 for entry in exchanges[-10:])
    assert exchanges[0].prompt == ("0 " + "x" * 3000)[:500] and exchanges[0].response == "y" * 500


def test_an_old_exchange_says_all_that_a_new_one_says(session: Session) -> None:
    session.values["top-p"] = 0.5
    room = History(most=100, clean=clean)
    for _ in range(40):
        room.on_finish(
            OneExchange(session, sampling={"temperature": 0.25, "stop": ["a", None]}, project="p", side=True)
        )
    exchanges = list(session.exchanges)
    assert len(exchanges) == 40 and exchanges[0] == exchanges[-1]


@pytest.mark.parametrize("value", [10**30, "\ud83d", object()])
def test_a_parameter_that_cannot_be_written_becomes_words(session: Session, value: object) -> None:
    room = History(most=100, clean=clean)
    for number in range(40):
        room.on_finish(OneExchange(session, prompt=f"question {number}", sampling={"odd": value}, project="p\ud83d"))
    exchanges = list(session.exchanges)
    assert [entry.prompt for entry in exchanges] == [f"question {number}" for number in range(40)]
    assert exchanges[0].parameters == {"odd": str(value).replace("\ud83d", "?")} and exchanges[0].project == "p?"


def test_exchanges_that_cannot_be_read_are_left_out_with_a_warning(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    room = History(most=100, clean=clean)
    for number in range(40):
        room.on_finish(OneExchange(session, prompt=f"question {number}"))
    damaged = msgspec.structs.replace(session.exchanges.pieces[1], packed=session.exchanges.pieces[1].packed[:-9])
    session.exchanges.pieces[1] = damaged
    assert [entry.prompt for entry in session.exchanges] == [f"question {at}" for at in (*range(10), *range(20, 40))]
    assert "10 stored exchanges of a session are left out" in caplog.text


def test_texts_are_cut_to_4000_characters(session: Session) -> None:
    History(most=9, clean=clean).on_finish(OneExchange(session, prompt="x" * 4001, answer="y" * 1_000_000))
    assert next(iter(session.exchanges)).prompt == "x" * 4000
    assert next(iter(session.exchanges)).response == "y" * 4000


@given(before=st.integers(0, 40_000), many=st.integers(0, 700), gap=st.sampled_from(["", " ", "\n", "word "]))
def test_no_part_of_a_key_gets_through_wherever_the_cut_falls(before: int, many: int, gap: str) -> None:
    session = Session(id="s", scope="a", created=START, last_used=START)
    text = (KEY.reveal() + gap) * many + "z" * before + KEY.reveal() + " and more" * 3000
    History(most=9, clean=clean).on_finish(OneExchange(session, prompt=text))
    shown = next(iter(session.exchanges)).prompt
    assert len(shown) <= MOST_TEXT
    assert not any(KEY.reveal()[:length] in shown for length in range(4, len(KEY.reveal())))


def test_half_a_character_does_no_harm(session: Session) -> None:
    History(most=9, clean=clean).on_finish(OneExchange(session, prompt="a\ud83d b"))
    assert next(iter(session.exchanges)).prompt == "a? b"


async def test_a_log_directory_gets_one_line_per_request_and_no_provider_key(session: Session, tmp_path: Path) -> None:
    log = SessionLog(tmp_path)
    room = History(most=0, clean=clean, log=log)
    for number in range(3):
        room.on_finish(OneExchange(session, prompt=f"{number} {KEY.reveal()}", answer=f"it is {KEY.reveal()}"))
    await log.close()
    content = (tmp_path / log_name("a", "s")).read_text()
    assert len(content.splitlines()) == 3
    assert "canary" not in content
    assert list(session.exchanges) == []
