"""Sealed reasoning survives clients that cannot carry it, and never reaches another origin (translation.md section 6, FE-13)."""

from __future__ import annotations

import msgspec

from llm_proxy.conversation.parts import Seal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import Message, Request
from llm_proxy.dialects.names import call_id
from llm_proxy.dialects.reasoning import Envelope, Recollection, call_key, place_of, recollections, restore

SEAL = Seal(origin="anthropic-messages", kind="signature", value="sig==", maker="anthropic/claude")
ENVELOPE = Envelope(b"key")


PLACE = place_of([Message("user", (Text("q"),))])


def history(*parts: object) -> Request:
    return Request(
        dialect="openai-chat",
        messages=(
            Message("user", (Text("q"),)),
            Message("assistant", tuple(parts)),  # type: ignore[arg-type]
            Message("user", (ToolResult("c1", (Text("r"),)),)),
        ),
    )


def test_an_envelope_opens_to_the_seal_that_was_packed() -> None:
    packed = ENVELOPE.pack(SEAL)
    assert packed.startswith("gw1.")
    assert "sig==" not in packed
    assert ENVELOPE.open(packed) == SEAL


def test_an_envelope_of_another_installation_or_a_damaged_one_does_not_open() -> None:
    packed = ENVELOPE.pack(SEAL)
    assert Envelope(b"other").open(packed) is None
    assert ENVELOPE.open(packed[:-4] + "AAAA") is None
    assert ENVELOPE.open("gw1.other-origin") is None
    assert ENVELOPE.open("plain") is None


def test_an_echoed_envelope_gives_the_back_end_its_own_seal_again() -> None:
    echoed = Thinking("t", seal=Seal("anthropic-messages", "signature", ENVELOPE.pack(SEAL)))
    restored = restore(history(echoed, Text("a")), ENVELOPE, lambda key: None)
    assert restored.messages[1].parts[0] == Thinking("t", seal=SEAL)


def test_an_envelope_that_does_not_open_becomes_a_seal_of_unknown_origin() -> None:
    echoed = Thinking("t", seal=Seal("anthropic-messages", "signature", "gw1.other"))
    restored = restore(history(echoed), ENVELOPE, lambda key: None)
    seal = restored.messages[1].parts[0].seal  # type: ignore[union-attr]
    assert seal is not None and seal.maker == "unknown" and seal.value == ""


def test_a_client_that_drops_reasoning_gets_it_back_by_the_id_of_its_tool_call() -> None:
    made = (Thinking("t", seal=SEAL), Text("let me look"), ToolCall("c1", "f", "{}"))
    memory = recollections(PLACE, made)
    restored = restore(history(Text("let me look"), ToolCall("c1", "f", "{}")), ENVELOPE, memory.get)
    assert restored.messages[1].parts == made


def test_reasoning_between_parallel_calls_returns_to_its_place() -> None:
    one, two = Thinking("1", seal=SEAL), Thinking("2", seal=msgspec.structs.replace(SEAL, value="s2"))
    made = (one, ToolCall("c1", "f", "{}"), two, ToolCall("c2", "g", "{}"))
    memory = recollections(PLACE, made)
    restored = restore(history(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")), ENVELOPE, memory.get)
    assert restored.messages[1].parts == made


def test_a_seal_on_the_call_itself_returns_to_the_call() -> None:
    thought = Seal("gemini", "thought", "AbC", "gemini/gemini-3")
    memory = recollections(PLACE, (ToolCall("c1", "f", "{}", seal=thought), ToolCall("c2", "g", "{}")))
    restored = restore(history(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")), ENVELOPE, memory.get)
    assert restored.messages[1].parts == (ToolCall("c1", "f", "{}", seal=thought), ToolCall("c2", "g", "{}"))


def test_reasoning_of_a_plain_answer_returns_by_the_content_of_its_text() -> None:
    memory = recollections(PLACE, (Thinking("t", seal=SEAL), Text("The answer is 4. ")))
    restored = restore(history(Text("The answer is 4.")), ENVELOPE, memory.get)
    assert restored.messages[1].parts[0] == Thinking("t", seal=SEAL)


def test_a_request_without_traces_comes_back_as_the_same_object() -> None:
    request = history(Text("a"), ToolCall("c1", "f", "{}"))
    assert restore(request, ENVELOPE, lambda key: None) is request


def test_visible_reasoning_that_a_client_resent_is_replaced_by_the_sealed_original() -> None:
    memory = {call_key(PLACE, "c1"): Recollection((Thinking("t", seal=SEAL),), None)}
    restored = restore(history(Thinking("t (trimmed)"), ToolCall("c1", "f", "{}")), ENVELOPE, memory.get)
    assert restored.messages[1].parts == (Thinking("t", seal=SEAL), ToolCall("c1", "f", "{}"))


def test_reasoning_that_a_client_sent_is_never_replaced_by_another() -> None:
    memory = {call_key(PLACE, "c1"): Recollection((Thinking("of somebody else", seal=SEAL),), None)}
    request = history(Thinking("my own"), ToolCall("c1", "f", "{}"))
    assert restore(request, ENVELOPE, memory.get) is request


def test_what_another_conversation_left_under_the_same_call_id_stays_there() -> None:
    elsewhere = place_of([Message("user", (Text("another question"),))])
    memory = recollections(elsewhere, (Thinking("theirs", seal=SEAL), ToolCall("call_0", "f", "{}")))
    request = history(ToolCall("call_0", "f", "{}"))
    assert restore(request, ENVELOPE, memory.get) is request


def test_a_call_whose_odd_id_the_client_saw_as_a_stand_in_is_found() -> None:
    made = (Thinking("t", seal=SEAL), ToolCall("functions.f:0", "f", "{}"))
    memory = recollections(PLACE, made)
    shown = history(ToolCall(call_id("functions.f:0", "toolu_"), "f", "{}"))
    restored = restore(shown, ENVELOPE, memory.get)
    assert restored.messages[1].parts[0] == Thinking("t", seal=SEAL)
