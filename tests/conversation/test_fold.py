"""Events and whole answers are two forms of the same thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.answer import Answer, Choice, Stop
from llm_proxy.conversation.events import Delta, End, Failed, Finish, PartEnd, PartStart, Start, is_content
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import Folder, check_grammar, fold, unfold
from llm_proxy.conversation.parts import (
    Citation,
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
)
from llm_proxy.conversation.usage import Usage

seals = st.none() | st.builds(Seal, origin=st.just("gemini"), kind=st.just("thought"), value=st.text(min_size=1))
pieces = st.lists(st.text(min_size=1), min_size=2, max_size=3).map(tuple)
parts = st.one_of(
    st.builds(
        Text,
        text=st.text(),
        citations=st.lists(st.builds(Citation, url=st.text()), max_size=2).map(tuple),
        seal=seals,
    ),
    st.builds(Refusal, text=st.text()),
    st.builds(Thinking, text=st.text(), seal=seals),
    pieces.map(lambda some: Thinking(text="\n\n".join(some), pieces=some, summary=True)),
    st.builds(ToolCall, id=st.text(min_size=1), name=st.text(min_size=1), arguments=st.text(), seal=seals),
    st.builds(Media, kind=st.just("image"), data=st.just("QQ==")),
    st.builds(Opaque, origin=st.just("gemini"), type=st.just("x"), raw=st.just({"a": 1})),
)
usages = st.none() | st.builds(Usage, input=st.integers(0, 9), output=st.integers(0, 9))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    number = draw(st.integers(1, 3))
    choices = tuple(
        Choice(
            tuple(draw(st.lists(parts, max_size=4))),
            Stop(draw(st.sampled_from(("end", "length", "tool_use")))),
            index,
        )
        for index in range(number)
    )
    return Answer(id=draw(st.text()), model="m", created=draw(st.integers(0, 9)), choices=choices, usage=draw(usages))


@given(answers())
def test_folding_the_unfolded_answer_gives_it_back(answer: Answer) -> None:
    events = list(unfold(answer))
    assert check_grammar(events) == []
    assert fold(events) == answer


def test_a_failed_stream_has_no_answer_but_keeps_what_came() -> None:
    folder = Folder()
    for event in (
        Start(id="a"),
        PartStart(0, Text("")),
        Delta(0, "half"),
        Failed(Fault(kind="closed", message="gone")),
    ):
        folder.feed(event)
    assert folder.parts_so_far() == [(0, Text("half"))]
    with pytest.raises(FaultError, match="gone"):
        folder.answer()


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([Delta(0, "x"), End()], "precedes Start"),
        ([Start(), Start(), End()], "second Start"),
        ([Start(), PartStart(1, Text("")), PartEnd(1, Text("")), Finish(Stop("end")), End()], "expected 0"),
        (
            [Start(), PartStart(0, Text("")), Delta(0, ""), PartEnd(0, Text("")), Finish(Stop("end")), End()],
            "empty delta",
        ),
        (
            [
                Start(),
                PartStart(0, Text("")),
                Delta(0, "a"),
                PartEnd(0, Text("b")),
                Finish(Stop("end")),
                End(),
            ],
            "differs",
        ),
        ([Start(), PartStart(0, Text("")), Finish(Stop("end")), End()], "still open"),
        ([Start(), PartStart(0, Text("")), PartEnd(0, Text("")), End()], "no Finish"),
        ([Start(), End(), End()], "follows the end"),
        ([Start()], "no End"),
    ],
)
def test_the_grammar_names_what_is_wrong(events: list[object], complaint: str) -> None:
    assert any(complaint in problem for problem in check_grammar(events))  # type: ignore[arg-type]


def test_lifecycle_events_are_no_content_but_an_opened_call_is() -> None:
    assert not is_content(Start())
    assert not is_content(PartStart(0, Text("")))
    assert is_content(Delta(0, "x"))
    assert is_content(PartStart(0, ToolCall("c", "f")))


def test_cumulative_usage_keeps_the_last_figure_of_each_bucket() -> None:
    early = Usage(input=100, output=1, cache_read=80, raw={"a": 1}, origin="gemini")
    assert early.merged(Usage(output=20)) == Usage(input=100, output=20, cache_read=80, raw={"a": 1}, origin="gemini")
    assert early.input_uncached == 20


def test_any_part_kind_is_covered_by_the_strategy() -> None:
    assert {Text, Refusal, Thinking, ToolCall, Media, Opaque} <= set(Part.__args__)
