"""S-07, CMD-01, CMD-02, CMD-04 over HTTP: what nobody typed executes nothing and passes unchanged, what a person typed is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import pytest

from tests.commands.corpus import Case, last_texts, load
from tests.commands.corpus.cases import Said, text
from tests.e2e.asking import PROTOCOLS, Scene, path_of, protocol_of, say, started, target
from tests.e2e.talking import calls_in, can_say, evidence_of, kept, request_of, seen
from tests.server.process import Answer
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import upstream_in_thread

_CASES: Final = load()
_SILENT: Final = sorted({case.category for case in _CASES if not case.executes})
_GENUINE: Final = sorted({case.category for case in _CASES if case.executes})
_NUMBERS: Final = count()
_KNOWN: Final = (b"!/model", b"!/help")
_BEFORE_A_BEGINNING: Final = "silent assistant turn: the model's beginning after a command"
"""The client began the model's answer: the user's message is an earlier one."""


@pytest.fixture(scope="module")
def chatting() -> Iterator[Scene]:
    """Every back end that the corpus names exists."""
    with upstream_in_thread(say) as upstream:
        named = {
            name: {"type": "openai", "base_url": f"{upstream.url}/{name}/v1", "no_auth": True} for name in ("b", "evil")
        }
        known = {
            name: {"type": name, "base_url": f"{upstream.url}/{name}/v1", "api_keys": ["k"]}
            for name in ("openai", "openrouter")
        }
        config = {"backends": {**backends_at(upstream.url), **named, **known}, "session": {"max_sessions": 10_000}}
        with started(config=config) as proxy:
            yield Scene(proxy, upstream)


def _protocols(number: int, case: Case) -> list[Protocol]:
    """Two for each case, another two for the next."""
    able = [protocol for protocol in PROTOCOLS if can_say(protocol, case.messages)]
    if case.category == "Claude Code beside a result":
        able = ["anthropic-messages", "gemini"]
    first = number % len(able)
    second = (first + 1 + number // len(able) % (len(able) - 1)) % len(able)
    return [able[first], able[second]]


def _cases(category: str) -> list[tuple[Case, Protocol]]:
    found = [case for case in _CASES if case.category == category]
    return [(case, protocol) for number, case in enumerate(found) for protocol in _protocols(number, case)]


def _asked(scene: Scene, case: Case, protocol: Protocol, session: str) -> tuple[bytes, Answer]:
    headers, opening = evidence_of(case.agent)
    said = list(case.messages)
    if opening and said[0].role in ("system", "developer"):
        said[0] = Said("system", text(opening))
    elif opening:
        said = [Said("system", text(opening)), *said]
    model = target(protocol)
    body = json.dumps(request_of(protocol, model, said), ensure_ascii=False).encode()
    scene.upstream.forget()
    return body, scene.post(path_of(protocol, model), body, {**headers, "x-session-id": session})


def _cut_in_an_earlier_turn(case: Case) -> bool:
    """Known commands of earlier user messages are cut, though not executed (CMD-04); what programs put there stays."""
    return case.id == _BEFORE_A_BEGINNING or (case.category == "older turn" and "environment" not in case.id)


def _sessions(scene: Scene, prefix: str) -> dict[str, dict[str, Any]]:
    listed = scene.proxy.get("/internal/sessions").json["data"]
    return {one["id"]: one for one in listed if one["id"].startswith(prefix)}


def _last_said(protocol: Protocol, scene: Scene) -> str:
    """The texts of the last user message as the provider of any protocol read it, joined by line breaks."""
    back = protocol_of(scene.last)
    found: list[str] = []
    for role, said in reversed(seen(back, scene.last)):
        if role == "user":
            found.append(said)
        elif role != "system" and found:
            break
    return "\n".join(reversed(found))


@pytest.mark.parametrize("category", _SILENT)
def test_what_nobody_typed_executes_nothing_and_reaches_the_provider_byte_for_byte(
    chatting: Scene, category: str
) -> None:
    prefix = f"silent-{next(_NUMBERS)}-"
    wrong: list[Any] = []
    for number, (case, protocol) in enumerate(_cases(category)):
        body, answer = _asked(chatting, case, protocol, f"{prefix}{number}")
        if len(chatting.upstream.requests) != 1:
            wrong.append((case.id, protocol, answer.status, answer.body[:300]))
            continue
        unchanged = body.replace(json.dumps(target(protocol)).encode(), b'"m"', 1)
        if "x-llm-proxy-commands" in answer.headers:
            wrong.append((case.id, protocol, answer.headers))
        elif _cut_in_an_earlier_turn(case):
            wanted = "hi " if case.id == _BEFORE_A_BEGINNING else case.upstream
            if not _last_said(protocol, chatting).endswith(wanted or "") or any(
                one in chatting.last.body for one in _KNOWN
            ):
                wrong.append((case.id, protocol, wanted, chatting.last.body))
        elif chatting.last.body != unchanged:
            wrong.append((case.id, protocol, unchanged, chatting.last.body))
    assert not wrong, f"{len(wrong)} of {number + 1}: {wrong[:4]}"
    sessions = _sessions(chatting, prefix)
    assert len(sessions) == number + 1
    assert {id: one["values"] for id, one in sessions.items() if one["values"]} == {}


@pytest.mark.parametrize("category", _GENUINE)
def test_what_was_typed_in_a_client_is_executed_and_the_provider_sees_the_rest(chatting: Scene, category: str) -> None:
    prefix = f"genuine-{next(_NUMBERS)}-"
    wrong: list[Any] = []
    for number, (case, protocol) in enumerate(_cases(category)):
        _, answer = _asked(chatting, case, protocol, f"{prefix}{number}")
        asked = chatting.upstream.requests
        if answer.status != 200:
            wrong.append((case.id, protocol, answer.status, answer.body))
        elif case.upstream is None:
            said = _replied(protocol, answer)
            failed = "!/" in said[:2] and case.executes[0].name != "unset"
            if asked or failed or "w0" in said:
                wrong.append((case.id, protocol, said))
        elif len(asked) != 1 or "x-llm-proxy-commands" not in answer.headers:
            wrong.append((case.id, protocol, answer.headers, answer.body))
        elif _last_said(protocol, chatting) != (wanted := _wanted(case)):
            wrong.append((case.id, protocol, wanted, _last_said(protocol, chatting)))
    assert not wrong, f"{len(wrong)} of {number + 1}: {wrong[:4]}"
    assert _settings_held(category, prefix, _sessions(chatting, prefix)) == []


def _wanted(case: Case) -> str:
    """The texts since the last answer, as `_last_said` gives them: some clients write several messages in a row."""
    found: list[str] = []
    for said in case.messages:
        if said.role == "assistant":
            found = []
        elif said.role == "user":
            found.append(last_texts([said]))
    return "\n".join([*(one for one in found[:-1] if one), case.upstream or ""])


def _replied(protocol: Protocol, answer: Answer) -> str:
    messages = kept(protocol, answer, False)
    assert not calls_in(protocol, messages)
    return _text(messages[0])


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or message.get("parts")
    return content if isinstance(content, str) else "".join(part["text"] for part in content or [])


_KEPT_AS: Final = {"project": "project", "model": "model", "temperature": "temperature", "backend": "backend"}


def _settings_held(category: str, prefix: str, sessions: dict[str, dict[str, Any]]) -> list[Any]:
    """The sessions that do not hold what their commands set."""
    wrong = []
    for number, (case, protocol) in enumerate(_cases(category)):
        values = sessions[f"{prefix}{number}"]["values"]
        for executed in case.executes:
            pairs = (
                executed.arguments if executed.name == "set" else [(executed.name, v) for _, v in executed.arguments]
            )
            for key, value in pairs:
                held = values.get(_KEPT_AS.get(key, ""))
                if key in ("project", "temperature", "backend") and str(held) != value:
                    wrong.append((case.id, protocol, key, value, values))
                if key == "model" and held is not None and str(held) not in value:
                    wrong.append((case.id, protocol, key, value, values))
                if key == "model" and held is None:
                    wrong.append((case.id, protocol, key, value, values))
    return wrong
