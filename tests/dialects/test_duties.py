"""What the proxy owes a client because the target could not take the request as it was (translation.md sections 4 and 5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.answer import Answer, Choice, Stop
from llm_proxy.conversation.events import Delta, Event, PartEnd, PartStart
from llm_proxy.conversation.fold import check_grammar, fold, unfold
from llm_proxy.conversation.parts import Part, Text, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Duties
from llm_proxy.dialects.duties import DutyFilter, InputUnwrapper, StopCutter
from llm_proxy.wire import json as wire_json


def answer(*parts: Part, stop: str = "end") -> Answer:
    return Answer(id="r", choices=(Choice(parts, Stop(stop)),), usage=Usage(input=3, output=4))  # type: ignore[arg-type]


def through(duties: Duties, events: list[Event]) -> list[Event]:
    passed = DutyFilter(duties).feed(events)
    assert check_grammar(passed) == []
    return passed


def in_pieces(parts: Answer, size: int) -> list[Event]:
    """The events of an answer with every delta cut into pieces of `size`."""
    out: list[Event] = []
    for event in unfold(parts):
        if isinstance(event, Delta):
            out += [Delta(event.part, event.text[at : at + size]) for at in range(0, len(event.text), size)]
        else:
            out.append(event)
    return out


def test_a_shortened_tool_name_comes_back_as_the_clients_own() -> None:
    long = "search_" * 13
    events = through(
        Duties(names={"search_1234": long}),
        list(unfold(answer(ToolCall("c", "search_1234", "{}"), stop="tool_use"))),
    )
    assert fold(events).choices[0].parts == (ToolCall("c", long, "{}"),)


def test_a_namespaced_tool_comes_back_with_its_namespace() -> None:
    duties = Duties(namespaces={"files__read": ("files", "read")})
    events = through(duties, list(unfold(answer(ToolCall("c", "files__read", "{}"), stop="tool_use"))))
    call = fold(events).choices[0].parts[0]
    assert isinstance(call, ToolCall)
    assert (call.namespace, call.name) == ("files", "read")


@given(st.text(), st.integers(1, 9))
def test_the_input_of_a_custom_tool_is_exact_however_it_is_cut(text: str, size: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    arguments = wire_json.encode({"input": text}).decode()
    events = through(
        Duties(custom_tools=frozenset({"apply_patch"})),
        in_pieces(answer(ToolCall("c", "apply_patch", arguments), stop="tool_use"), size),
    )
    assert fold(events).choices[0].parts == (ToolCall("c", "apply_patch", text, "custom"),)


def test_arguments_of_a_custom_tool_that_are_no_json_are_passed_as_they_are() -> None:
    events = through(
        Duties(custom_tools=frozenset({"apply_patch"})),
        list(unfold(answer(ToolCall("c", "apply_patch", "*** Begin Patch"), stop="tool_use"))),
    )
    assert fold(events).choices[0].parts == (ToolCall("c", "apply_patch", "*** Begin Patch", "custom"),)


@pytest.mark.parametrize("arguments", ['{"input":["a","b"]}', '{"input":{"a":"b"}}', '{"input": 7}', "{}"])
def test_an_input_that_is_no_text_is_passed_as_it_is(arguments: str) -> None:
    events = through(
        Duties(custom_tools=frozenset({"apply_patch"})),
        in_pieces(answer(ToolCall("c", "apply_patch", arguments), stop="tool_use"), 3),
    )
    assert fold(events).choices[0].parts == (ToolCall("c", "apply_patch", arguments, "custom"),)


def test_escapes_split_over_pieces_are_decoded_once_complete() -> None:
    unwrapper = InputUnwrapper()
    pieces = ['{"in', 'put"', ': "a\\', "n\\u00", "e9\\ud83d", "\\ude00", 'x"}']
    assert "".join(map(unwrapper.feed, pieces)) == "a\né😀x"


def test_a_stop_sequence_that_the_target_does_not_know_ends_the_answer() -> None:
    events = through(Duties(stop=("END",)), in_pieces(answer(Text("one two END three")), 2))
    whole = fold(events)
    assert whole.choices[0].parts == (Text("one two "),)
    assert whole.choices[0].stop == Stop("stop_sequence", sequence="END")


@given(st.text("abEND", max_size=30), st.integers(1, 5))
def test_stop_cutting_does_not_depend_on_how_the_text_arrives(text: str, size: int) -> None:
    cutter = StopCutter(("END", "ab"))
    out = "".join(cutter.feed(text[at : at + size]) for at in range(0, len(text), size) if not cutter.matched)
    if not cutter.matched:
        out += cutter.flush()
    hits = [at for at in (text.find("END"), text.find("ab")) if at >= 0]
    assert out == text[: min(hits)] if hits else out == text


def test_the_forced_json_tool_becomes_the_text_of_the_answer() -> None:
    events = through(
        Duties(json_tool="json_output"),
        in_pieces(answer(ToolCall("c", "json_output", '{"a":1}'), stop="tool_use"), 3),
    )
    whole = fold(events)
    assert whole.choices[0].parts == (Text('{"a":1}'),)
    assert whole.choices[0].stop.kind == "end"


def test_with_parallel_calls_off_only_the_first_call_is_kept() -> None:
    events = through(
        Duties(first_call_only=True),
        list(unfold(answer(Text("x"), ToolCall("1", "f", "{}"), ToolCall("2", "g", "{}"), Text("y"), stop="tool_use"))),
    )
    assert fold(events).choices[0].parts == (Text("x"), ToolCall("1", "f", "{}"), Text("y"))


def test_what_no_duty_concerns_passes_as_the_same_objects() -> None:
    events = list(unfold(answer(Text("x"), ToolCall("1", "f", "{}"), stop="tool_use")))
    passed = through(Duties(names={"other": "x"}), events)
    assert passed == events
    assert any(isinstance(event, PartStart) for event in passed) and any(isinstance(event, PartEnd) for event in passed)
