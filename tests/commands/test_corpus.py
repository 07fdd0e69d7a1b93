"""S-07: what nobody typed executes nothing, what a person typed in any client is executed, and the model sees the rest."""

from __future__ import annotations

import pytest

from llm_proxy.commands import grammar, messages
from llm_proxy.conversation.parts import Text, text_of
from llm_proxy.conversation.request import Message, Request
from tests.commands.corpus import Case, last_texts, load, request_of

_CASES = load()
_SILENT = [case for case in _CASES if not case.executes]
_GENUINE = [case for case in _CASES if case.executes]


def _read(request: Request, case: Case, *, strict: bool = False) -> messages.Reading:
    return messages.read(request, prefix="!/", strict=strict, agent=case.agent, most=20)


def test_the_corpus_is_as_large_as_promised_and_names_each_case_once() -> None:
    assert len(_SILENT) >= 200
    assert len(_GENUINE) >= 100
    assert len({case.id for case in _CASES}) == len(_CASES)


@pytest.mark.parametrize("case", _SILENT, ids=lambda case: case.id)
def test_nothing_is_executed_that_nobody_typed(case: Case) -> None:
    request = request_of(case)
    reading = _read(request, case)
    assert reading == messages.Reading()
    assert messages.without_commands(request, reading, known=lambda name: True) is request
    assert _read(request, case, strict=True) == messages.Reading()


_SILENT_LAST = [case for case in _SILENT if case.category != "older turn" and case.messages[-1].role == "user"]
_HIDDEN = ("machine block", "machine block at the end", "block trick", "result opening")


@pytest.mark.parametrize("case", [case for case in _SILENT if case.category in _HIDDEN], ids=lambda case: case.id)
def test_the_same_text_would_be_a_command_if_it_were_typed(case: Case) -> None:
    text = last_texts(case.messages).replace(">!/", "> !/")
    assert grammar.find(text, "!/", [(0, len(text))])


@pytest.mark.parametrize("case", _SILENT_LAST, ids=lambda case: case.id)
def test_what_is_no_command_is_not_cut_in_later_turns(case: Case) -> None:
    request = request_of(case)
    user = request.messages[-1]
    later = Request(
        dialect="openai-chat", messages=(user, Message("assistant", (Text("Yes."),)), Message("user", (Text("go on"),)))
    )
    cleaned = messages.clean_history(
        later, prefixes=("!/",), known=lambda name: True, agent=case.agent, local_replies=(), confirmations=()
    )
    assert cleaned is later


@pytest.mark.parametrize("case", _GENUINE, ids=lambda case: case.id)
def test_what_was_typed_is_executed(case: Case) -> None:
    request = request_of(case)
    reading = _read(request, case)
    found = [
        (found.name, tuple((item.key, item.value) for item in found.arguments.items) if found.arguments else ())
        for found in reading.commands
    ]
    assert found == [(wanted.name, wanted.arguments) for wanted in case.executes]
    assert not any(found.error for found in reading.commands)
    assert reading.command_only is (case.upstream is None)


@pytest.mark.parametrize("case", [case for case in _GENUINE if case.upstream is not None], ids=lambda case: case.id)
def test_the_model_sees_the_message_without_the_command(case: Case) -> None:
    request = request_of(case)
    reading = _read(request, case)
    sent = messages.without_commands(request, reading, known=lambda name: True)
    assert text_of(sent.messages[reading.founds[0].message].parts, "\n") == case.upstream
