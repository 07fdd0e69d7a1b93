"""SES-01: requests of one conversation share an id, those of others never do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dialects.base import Opening
from llm_proxy.sessions.agents import detect
from llm_proxy.sessions.identity import Identity, identify, scope_of
from tests.sessions.requests import KEY, chat, headers, headers_of, opening, opening_of, recorded
from tests.support.shared import needs_shared

ALLOWED = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
USER_ID = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "from-user-id"})


def derived(found: Opening, *, scope: str = "s", user_agent: str = "app/1", key: bytes = KEY) -> str:
    identity = identify(headers(user_agent=user_agent), found, scope, key)
    assert identity.source == "derived"
    assert re.fullmatch("auto-[0-9a-f]{16}", identity.id)
    return identity.id


# Every place that may name the session, in the order in which they count.
PLACES = [
    ("header", "x-session-id"),
    ("field", "session_id"),
    ("field", "extra_body.session_id"),
    ("header", "x-claude-code-session-id"),
    ("header", "session-id"),
    ("header", "session_id"),
    ("header", "conversation_id"),
    ("header", "x-session-affinity"),
    ("field", "metadata.user_id"),
    ("field", "client_metadata.session_id"),
    ("field", "prompt_cache_key"),
]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_first_place_that_names_the_session_counts(first: int) -> None:
    sent = {name: f"id-{name}" for kind, name in PLACES[first:] if kind == "header"}
    fields = {name: f"id-{name}" for kind, name in PLACES[first:] if kind == "field"}
    if "metadata.user_id" in fields:
        fields["metadata.user_id"] = json.dumps({"session_id": "id-metadata.user_id"})
    found = identify(headers(sent), Opening(ids=fields), "s", KEY, previous_session="previous")
    assert found == Identity(f"id-{PLACES[first][1]}", PLACES[first][1])


def test_given_header_and_body_ids_then_the_headers_is_used() -> None:
    found = identify(headers(x_session_id="a"), chat(("user", "hi"), session_id="b"), "s", KEY)
    assert found.id == "a"


def test_the_session_of_the_previous_response_comes_before_a_derived_id() -> None:
    found = identify(headers(), chat(("user", "hi")), "s", KEY, previous_session="auto-0123456789abcdef")
    assert found == Identity("auto-0123456789abcdef", "previous_response_id")


@pytest.mark.parametrize(
    ("user_id", "id_"),
    [
        (USER_ID, "from-user-id"),
        ("user_0a1b_account__session_11d0-22", "11d0-22"),
        ("user_0a1b_account_5c_session_11d0-22", "11d0-22"),
    ],
)
def test_the_session_in_metadata_user_id_is_found(user_id: str, id_: str) -> None:
    assert identify(headers(), Opening(ids={"metadata.user_id": user_id}), "s", KEY).id == id_


@pytest.mark.parametrize(
    "user_id", ["alice", "{broken", '{"session_id": 5}', '{"device_id": "d"}', "x" * 5000, "_session_"]
)
def test_a_plain_user_id_names_no_conversation(user_id: str) -> None:
    assert identify(headers(), Opening(ids={"metadata.user_id": user_id}), "s", KEY).source == "derived"


class TestIds:
    def test_given_a_path_as_id_then_a_hash_is_used(self) -> None:
        assert re.fullmatch("[0-9a-f]{64}", identify(headers(x_session_id="../../x"), Opening(), "s", KEY).id)

    def test_an_id_of_128_allowed_characters_stays_and_a_longer_one_is_replaced(self) -> None:
        allowed = "aZ09._:@-" + "x" * 119
        assert identify(headers(x_session_id=allowed), Opening(), "s", KEY).id == allowed
        assert identify(headers(x_session_id=allowed + "x"), Opening(), "s", KEY).id != allowed + "x"

    def test_two_ids_that_are_replaced_stay_two(self) -> None:
        ids = {identify(headers(x_session_id=value), Opening(), "s", KEY).id for value in ("a b", "a  b", "a/b")}
        assert len(ids) == 3

    def test_blank_ids_are_none(self) -> None:
        assert identify(headers(x_session_id="  "), chat(("user", "hi"), session_id=" "), "s", KEY).source == "derived"

    @given(
        value=st.text(max_size=200),
        place=st.sampled_from(PLACES),
        scope=st.text(max_size=40),
        user_agent=st.text(max_size=40),
    )
    def test_any_value_gives_an_id_of_the_allowed_alphabet(
        self, value: str, place: tuple[str, str], scope: str, user_agent: str
    ) -> None:
        kind, name = place
        sent = {"user-agent": user_agent} | ({name: value} if kind == "header" else {})
        found = identify(headers(sent), Opening(ids={name: value} if kind == "field" else {}), scope, KEY)
        assert ALLOWED.fullmatch(found.id)

    @given(
        system=st.lists(st.text(max_size=60)), user=st.lists(st.text(max_size=60)), agent=st.sampled_from(["", "cline"])
    )
    def test_any_opening_gives_one_and_the_same_derived_id(
        self, system: list[str], user: list[str], agent: str
    ) -> None:
        found = Opening(system=tuple(system), first_user=tuple(user))
        first = identify(headers(), found, "s", KEY, agent=agent)
        assert first == identify(headers(), found, "s", KEY, agent=agent)
        assert ALLOWED.fullmatch(first.id)


class TestErrandPrefix:
    def test_title_before_an_id_is_an_errand_of_that_session(self) -> None:
        found = identify(headers(x_session_id="title-ses_1"), Opening(), "s", KEY)
        assert found == Identity("ses_1", "x-session-id", errand=True)

    def test_it_holds_for_ids_that_are_replaced(self) -> None:
        plain = identify(headers(x_session_id="a b"), Opening(), "s", KEY)
        title = identify(headers(x_session_id="title-a b"), Opening(), "s", KEY)
        assert (title.id, title.errand, plain.errand) == (plain.id, True, False)

    def test_the_prefix_alone_is_an_id(self) -> None:
        assert identify(headers(x_session_id="title-"), Opening(), "s", KEY) == Identity("title-", "x-session-id")


class TestDerivedIds:
    def test_given_a_growing_history_then_the_same_id(self) -> None:
        system = ("system", "be kind")
        first = chat(system, ("user", "hello"))
        second = chat(system, ("user", "hello"), ("assistant", "hi"), ("user", "and now?"))
        assert derived(first) == derived(second)

    def test_a_conversation_opened_by_a_command_is_found_again(self) -> None:
        first = chat(("user", "!/set(project=a)"))
        second = chat(("user", "!/set(project=a)"), ("assistant", "project: a"), ("user", "hi"))
        assert derived(first) == derived(second)

    def test_commands_are_part_of_what_tells_conversations_apart(self) -> None:
        assert derived(chat(("user", "!/set(project=a)"))) != derived(chat(("user", "!/set(project=b)")))

    @pytest.mark.parametrize(
        "other",
        [
            {"scope": "t"},
            {"user_agent": "app/2"},
            {"key": b"another key"},
        ],
    )
    def test_scope_user_agent_and_key_each_change_it(self, other: dict[str, Any]) -> None:
        found = chat(("user", "hello"))
        assert derived(found) != derived(found, **other)

    def test_system_texts_and_first_user_message_each_change_it(self) -> None:
        ids = {
            derived(chat(("system", "a"), ("user", "hello"))),
            derived(chat(("system", "b"), ("user", "hello"))),
            derived(chat(("system", "a"), ("user", "bye"))),
            derived(chat(("user", "hello"))),
            derived(chat(("system", "ahello"))),
        }
        assert len(ids) == 5

    def test_the_model_in_gemini_clis_user_agent_does_not(self) -> None:
        found = chat(("user", "hello"))
        one = derived(found, user_agent="GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)")
        assert one == derived(found, user_agent="GeminiCLI-tui/0.61.0/gemini-2.5-flash (linux; x64; terminal)")
        assert one != derived(found, user_agent="GeminiCLI-tui/0.62.0/gemini-2.5-pro (linux; x64; terminal)")

    def test_machine_blocks_that_change_from_turn_to_turn_do_not(self) -> None:
        def turn(tokens: int) -> Opening:
            reminder = f"<system-reminder>\n{tokens} tokens left\n</system-reminder>"
            return chat(("user", [{"type": "text", "text": reminder}, {"type": "text", "text": "hello"}]))

        assert derived(turn(1000)) == derived(turn(900))

    def test_a_preface_of_blocks_alone_does_not_hide_the_task(self) -> None:
        preface = ("user", "<session_context>\nToday is Monday\n</session_context>")
        assert derived(chat(preface, ("user", "one"))) != derived(chat(preface, ("user", "two")))

    @pytest.mark.parametrize(
        "line",
        [
            "x-anthropic-billing-header: cc_version=2.1.{}; cc_entrypoint=cli; cch={};",
            "Today's date is 2026-11-{}.",
            "  Current date: Monday, November {}, 2026",
            "**Local date:** 2026-11-{} UTC",
            "<env>\nWorking directory: /home\nDate: {}\n</env>",
            "Currently using model: local/model-{}",
        ],
    )
    def test_lines_of_the_system_prompt_that_change_do_not(self, line: str) -> None:
        def turn(value: str) -> Opening:
            return chat(("system", f"be kind\n{line.replace('{}', value)}\nbe brief"), ("user", "hello"))

        assert derived(turn("21")) == derived(turn("22"))

    def test_what_stands_beside_such_lines_still_counts(self) -> None:
        def turn(rule: str) -> Opening:
            return chat(("system", f"Today's date is 2026-11-21.\n{rule}"), ("user", "hello"))

        assert derived(turn("be kind")) != derived(turn("be brief"))

    def test_a_request_without_any_user_message_has_an_id(self) -> None:
        assert derived(chat(("system", "a"))) != derived(chat(("system", "b")))
        assert derived(Opening()) == derived(Opening())

    def test_a_text_and_a_list_of_that_text_are_the_same_beginning(self) -> None:
        assert derived(chat(("user", "hello"))) == derived(chat(("user", [{"type": "text", "text": "hello"}])))

    def test_equal_beginnings_share_an_id(self) -> None:
        one = chat(("user", "hello"), ("assistant", "hi"), ("user", "a"))
        assert derived(one) == derived(chat(("user", "hello"), ("assistant", "hi"), ("user", "b")))

    def test_a_key_of_any_length_will_do(self) -> None:
        found = chat(("user", "hello"))
        assert len({derived(found, key=key) for key in (b"", b"k", b"k" * 64, b"k" * 65, b"k" * 1000)}) == 5

    def test_the_same_texts_in_another_protocol_share_it(self) -> None:
        other = opening("anthropic-messages", {"system": "a", "messages": [{"role": "user", "content": "hello"}]})
        assert derived(other) == derived(chat(("system", "a"), ("user", "hello")))


class TestScope:
    def test_without_authentication_all_share_one_scope(self) -> None:
        assert (
            scope_of("key", anonymous=True, trusted_address="10.0.0.1") == scope_of("", anonymous=True) == "anonymous"
        )

    def test_two_keys_have_two_scopes_that_do_not_show_their_names(self) -> None:
        alice, bob = scope_of("alice", anonymous=False), scope_of("bob", anonymous=False)
        assert alice != bob
        assert "alice" not in alice

    def test_a_key_counts_more_than_the_address(self) -> None:
        assert scope_of("alice", anonymous=False, trusted_address="10.0.0.1") == scope_of("alice", anonymous=False)

    def test_a_trusted_address_without_key_is_its_own_scope(self) -> None:
        assert scope_of("", anonymous=False, trusted_address="10.0.0.1") == "10.0.0.1"


# Where agents.md says that each client's own id stands; all others name none.
NAMED = {
    "claude": "x-claude-code-session-id",
    "codex": "session-id",
    "opencode": "x-session-id",
    "kilocode": "x-session-id",
    "pi/responses": "session_id",
    "copilot/responses": "prompt_cache_key",
}


@needs_shared
def test_every_recorded_client_is_identified_by_its_own_id_or_by_its_beginning() -> None:
    for file, request in recorded().items():
        source = next((place for start, place in NAMED.items() if file.startswith(start)), "derived")
        found = identify(headers_of(request), opening_of(request), "s", KEY)
        assert found.source == source, file
        assert not found.errand, file


@needs_shared
def test_header_and_body_of_claude_code_and_codex_name_the_same_session() -> None:
    for file, request in recorded().items():
        if file.startswith(("claude/", "codex/", "pi/responses")):
            with_headers = identify(headers_of(request), opening_of(request), "s", KEY)
            from_body = identify(headers(), opening_of(request), "s", KEY)
            assert with_headers.id == from_body.id, file


def _one_turn_before(request: Any) -> dict[str, Any]:
    """The body of the turn before: without the last call and what came of it, and without the newest reminders."""
    body = json.loads(json.dumps(request.body))
    name = "input" if "input" in body else "contents" if "contents" in body else "messages"
    while body[name][-1].get("role") in ("tool", "assistant", "model") or not _is_prompt(body[name][-1]):
        body[name].pop()
    return dict(body)


def _is_prompt(message: Any) -> bool:
    if message.get("type") in ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"):
        return False
    parts = message.get("content", message.get("parts"))
    return isinstance(parts, str) or any("text" in part for part in parts or ())


@needs_shared
def test_two_turns_of_every_recorded_agent_stay_in_one_session_without_a_header_of_ours() -> None:
    for file, request in recorded().items():
        if request.turn < 2 or request.scenario != "tool" or file.startswith("anthropic-python/anthropic-tool-3"):
            continue
        earlier = opening(request.protocol or "", _one_turn_before(request))
        sent = headers_of(request)
        if file.startswith(("opencode", "kilocode")):
            sent = headers({"user-agent": sent("user-agent")})
        agent = detect(sent, opening_of(request)).agent
        one = identify(sent, earlier, "s", KEY, agent=agent)
        assert one == identify(sent, opening_of(request), "s", KEY, agent=agent), file


@needs_shared
def test_recorded_conversations_of_one_client_are_told_apart() -> None:
    by_client: dict[tuple[str, str], list[str]] = {}
    for file, request in recorded().items():
        if request.client in ("aider",):  # opens every conversation with the same example
            continue
        found = identify(headers_of(request), opening_of(request), "s", KEY)
        by_client.setdefault((request.client, headers_of(request)("user-agent")), []).append(f"{found.id} {file}")
    for client, entries in by_client.items():
        ids = [entry.split()[0] for entry in entries if "opencode/chat-tool-1" not in entry]
        assert len(set(ids)) == len(ids), (client, entries)
