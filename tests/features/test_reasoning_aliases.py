"""REQ-03: what a reasoning mode means per model, where that is written, and what a request becomes of it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import dialects
from llm_proxy.conversation.parts import Media, Text, ToolCall, ToolResult
from llm_proxy.conversation.request import Message, Request
from llm_proxy.features.reasoning_aliases import Mode, ReasoningAlias, ReasoningAliases, aliases_of, built_in
from llm_proxy.features.session_sampling import SessionSampling
from tests.commands.desk import PlainDesk, run
from tests.config.conftest import Load, Refuse
from tests.features import shaping
from tests.features.shaping import (
    ANTHROPIC,
    ASKED_LOW,
    CHAT,
    DIALECTS,
    GEMINI,
    REASONING,
    RESPONSES,
    asked,
    heat_of,
    thinking_of,
    top_p_of,
    view,
    with_heat,
)

SAMPLE = Path(__file__).resolve().parents[2] / "config" / "reasoning_aliases.yaml"
SONNET = 'reasoning_alias_settings: [{model: "*claude-sonnet*", modes: {high: {max_reasoning_tokens: 20000}}}]'
MAX = {"reasoning-mode": "high"}
every_client = pytest.mark.parametrize("client", DIALECTS)


def room(*entries: ReasoningAlias) -> SessionSampling:
    return SessionSampling(ReasoningAliases(entries))


def sent(entry: ReasoningAlias, *arguments: Any, **named: Any) -> dict[str, Any]:
    return shaping.sent(*arguments, rooms=[room(entry)], **named)


def for_all(mode: str, **fields: Any) -> ReasoningAlias:
    return ReasoningAlias("*", {mode: Mode(**fields)})


# Where it is written


def test_the_list_may_stand_in_the_configuration(load: Load) -> None:
    found = aliases_of(load(file=SONNET)).mode("high", "anthropic", "claude-sonnet-x")
    assert found == Mode(max_reasoning_tokens=20000)


def test_the_file_beside_the_configuration_is_read(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "reasoning_aliases.yaml").write_text(SONNET)
    assert aliases_of(load()).mode("high", "b", "claude-sonnet-x").max_reasoning_tokens == 20000


@pytest.mark.parametrize("how", ["file", "variable"])
def test_another_file_may_be_named(load: Load, tmp_path: Path, how: str) -> None:
    (tmp_path / "mine.yaml").write_text(SONNET)
    if how == "file":
        settings = load(file="reasoning_aliases_path: mine.yaml")
    else:
        settings = load(env={"REASONING_ALIASES_PATH": "mine.yaml"})
    assert aliases_of(settings).mode("high", "b", "claude-sonnet-x").max_reasoning_tokens == 20000


@pytest.mark.parametrize("inline", ["[{model: other}]", "[]"])
def test_the_list_of_the_configuration_counts_instead_of_the_file(load: Load, tmp_path: Path, inline: str) -> None:
    (tmp_path / "mine.yaml").write_text(SONNET)
    settings = load(file=f"reasoning_aliases_path: mine.yaml\nreasoning_alias_settings: {inline}")
    assert aliases_of(settings).mode("high", "b", "claude-sonnet-x") == built_in("high")


@pytest.mark.parametrize("mode", ["high", "medium", "low", "none"])
def test_without_any_file_the_modes_are_the_built_in_ones(load: Load, mode: str) -> None:
    assert aliases_of(load()).mode(mode, "b", "m") == Mode(reasoning_effort=mode)  # type: ignore[arg-type]


def test_all_fields_are_read(load: Load) -> None:
    file = """
reasoning_alias_settings:
  - model: m
    modes:
      high: {max_reasoning_tokens: -1, reasoning_effort: maximum, user_prompt_prefix: "a\\n", user_prompt_suffix: "\\nb"}
      none: {temperature: 0, top_p: 1, reasoning_effort: null}
"""
    aliases = aliases_of(load(file=file))
    assert aliases.mode("high", "b", "m") == Mode(-1, "max", "a\n", "\nb")
    assert aliases.mode("none", "b", "m") == Mode(reasoning_effort="none", temperature=0, top_p=1)
    assert aliases.mode("low", "b", "m") == built_in("low")


@pytest.mark.parametrize(
    ("entry", "place", "text"),
    [
        ("{high: {temperature: warm}}", "2:34", 'expected a number from 0 to 2 as modes.high.temperature, got "warm"'),
        ("{high: {temperature: 3}}", "2:34", "expected a number from 0 to 2 as modes.high.temperature, got 3"),
        ("{low: {top_p: 2}}", "2:27", "a number from 0 to 1 as modes.low.top_p, got 2"),
        ("{low: {max_reasoning_tokens: many}}", "2:42", 'a whole number as modes.low.max_reasoning_tokens, got "many"'),
        ("{low: {max_reasoning_tokens: 5}}", "2:42", "128 to 65536 tokens as modes.low.max_reasoning_tokens, got 5"),
        ("{low: {max_reasoning_tokens: true}}", "2:42", "a whole number as modes.low.max_reasoning_tokens, got true"),
        ("{low: {reasoning_effort: huge}}", "2:38", "one of none, minimal, low, medium, high, xhigh, max as modes.low"),
        ("{low: {user_prompt_prefix: 5}}", "2:40", "text in quotes as modes.low.user_prompt_prefix, got 5"),
        ("{low: {user_prompt_suffix: [a]}}", "2:40", "text in quotes as modes.low.user_prompt_suffix, got a list"),
        ("{maximum: {}}", "2:14", 'expected high or medium or low or none in modes, got "maximum"'),
        ("{low: {budget: 1}}", "2:20", 'in modes.low, got "budget"'),
        ("{low: 3}", "2:19", "a map as modes.low, got 3"),
        ("[low]", "2:13", "a map as modes, got a list"),
    ],
)
@pytest.mark.parametrize("where", ["configuration", "file"])
def test_wrong_types_and_unknown_names_are_refused_with_their_place(
    refuse: Refuse, tmp_path: Path, where: str, entry: str, place: str, text: str
) -> None:
    written = f"reasoning_alias_settings:\n  - {{modes: {entry}, model: m}}"
    if where == "file":
        (tmp_path / "wrong.yaml").write_text(written)
        [error] = refuse(file="reasoning_aliases_path: wrong.yaml")
        assert error.startswith(f"wrong.yaml:{place}: ")
    else:
        [error] = refuse(file=written)
        assert error.startswith(f"config.yaml:{place}: reasoning_alias_settings: ")
    assert text in error


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("reasoning_alias_settings: 5", "a list of entries with `model` and `modes`, got 5"),
        ("reasoning_alias_settings: [{modes: {}}]", "a map with `model`, got a map"),
        ("reasoning_alias_settings: [{model: 5}]", "the name of a model, or a pattern with `*`, as model, got 5"),
        ("reasoning_alias_settings: [{model: m, mode: {}}]", 'model or modes in an entry, got "mode"'),
        ("reasoning_alias_settings: [m]", 'a map as an entry, got "m"'),
    ],
)
def test_wrong_entries_are_refused(refuse: Refuse, written: str, text: str) -> None:
    [error] = refuse(file=written)
    assert text in error and error.startswith("config.yaml:1:")


def test_a_file_with_another_name_at_the_top_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("aliases: []")
    [error] = refuse(file="reasoning_aliases_path: wrong.yaml")
    assert error == 'wrong.yaml:1:1: expected reasoning_alias_settings in the file, got "aliases"'


# The sample


def test_the_shipped_file_leaves_the_built_in_modes_as_they_are(load: Load) -> None:
    settings = load(file=f"reasoning_aliases_path: {json.dumps(str(SAMPLE))}")
    assert settings.content("reasoning_aliases_path") == ()
    assert aliases_of(settings).mode("high", "anthropic", "claude-sonnet-4-5") == built_in("high")


def test_the_example_in_the_shipped_file_can_be_used(load: Load, tmp_path: Path) -> None:
    head, _, example = SAMPLE.read_text().partition("reasoning_alias_settings: []\n")
    lines = [line.removeprefix("#") for line in example.splitlines()]
    (tmp_path / "mine.yaml").write_text(head + "reasoning_alias_settings:\n" + "\n".join(lines))
    aliases = aliases_of(load(file="reasoning_aliases_path: mine.yaml"))
    assert aliases.mode("high", "anthropic", "claude-sonnet-4-5").max_reasoning_tokens == 20000
    assert aliases.mode("none", "local", "Qwen3-32B").user_prompt_suffix == "\n/no_think"


# The look-up


@pytest.mark.parametrize(
    ("pattern", "backend", "model", "matches"),
    [
        ("*claude-sonnet*", "anthropic", "claude-sonnet-4-5", True),
        ("*claude-sonnet*", "openrouter", "anthropic/claude-sonnet-4", True),
        ("*claude-sonnet*", "anthropic", "claude-opus-4-7", False),
        ("claude-sonnet", "anthropic", "claude-sonnet-4-5", False),
        ("gpt-5", "openai", "gpt-5", True),
        ("openai:gpt-5", "openai", "gpt-5", True),
        ("openai:gpt-5", "azure", "gpt-5", False),
        ("openai:*", "openai", "anything/at all", True),
        ("openai:*", "openai-responses", "gpt-5", False),
        ("Claude-*", "anthropic", "CLAUDE-x", True),
        ("a.c", "b", "abc", False),
        ("*", "b", "", True),
        ("a*b*c", "b", "a-b-c", True),
        ("a*b*c", "b", "a-c-b", False),
    ],
)
def test_a_pattern_is_compared_with_back_end_and_model_or_the_model(
    pattern: str, backend: str, model: str, matches: bool
) -> None:
    aliases = ReasoningAliases([ReasoningAlias(pattern, {"high": Mode(temperature=0.5)})])
    assert (aliases.mode("high", backend, model) == Mode(temperature=0.5)) is matches
    assert bool(aliases.effect("high", backend, model)) is matches


def test_the_first_entry_that_matches_counts() -> None:
    entries = [ReasoningAlias("gpt-*", {"low": Mode(top_p=0.1)}), ReasoningAlias("*", {"high": Mode(top_p=0.9)})]
    aliases = ReasoningAliases(entries)
    assert aliases.mode("high", "b", "other").top_p == 0.9
    assert aliases.mode("high", "b", "gpt-4o") == built_in("high")


def test_a_pattern_of_many_stars_is_answered_at_once() -> None:
    aliases = ReasoningAliases([ReasoningAlias("*a" * 200 + "!", {})])
    assert aliases.mode("high", "b", "a" * 50_000) == built_in("high")


def test_what_is_said_to_a_person_names_values_and_entry() -> None:
    mode = Mode(max_reasoning_tokens=20000, temperature=0.5, user_prompt_prefix="abc")
    aliases = ReasoningAliases([ReasoningAlias("m*", {"high": mode, "none": Mode(top_p=1), "low": Mode()})])
    assert aliases.effect("high", "b", "m1") == (
        "reasoning budget = 20000 tokens, temperature = 0.5, 3 characters before your last message "
        "(entry m* of the reasoning aliases)"
    )
    assert aliases.effect("none", "b", "m1").startswith("reasoning effort = none, top-p = 1 ")
    assert aliases.effect("low", "b", "m1").startswith("nothing is changed ")
    assert aliases.effect("medium", "b", "m1") == aliases.effect("high", "b", "x") == ""


# What becomes of a request


@every_client
def test_an_entry_gives_the_budget_and_another_model_has_the_effort(client: str) -> None:
    entry = ReasoningAlias("*claude-sonnet*", {"high": Mode(max_reasoning_tokens=20000)})
    matched = sent(entry, asked(client), client, ANTHROPIC, "claude-sonnet-4-5", MAX)
    assert matched["thinking"]["budget_tokens"] == 20000 < matched["max_tokens"]
    assert sent(entry, asked(client), client, CHAT, "o3", MAX)["reasoning_effort"] == "high"


@every_client
def test_a_back_end_may_be_named(client: str) -> None:
    entry = ReasoningAlias("mine:gemini-*", {"low": Mode(max_reasoning_tokens=512)})
    values = {"reasoning-mode": "low"}
    send = partial(sent, entry, asked(client), client, GEMINI, "gemini-2.5-flash", values)
    assert thinking_of(send(backend="mine"))["thinkingBudget"] == 512
    assert thinking_of(send(backend="other"))["thinkingBudget"] == 1024


@every_client
@pytest.mark.parametrize("upstream", DIALECTS)
def test_a_mode_replaces_what_the_request_says(client: str, upstream: str) -> None:
    entry = for_all("low", temperature=0.25, max_reasoning_tokens=0)
    values = {"reasoning-mode": "low", "temperature": 1.5, "gemini-generation-config": {"temperature": 0.9}}
    body = sent(entry, with_heat(client, 0.9), client, upstream, shaping.PLAIN[upstream], values)
    assert heat_of(upstream, body) == 0.25
    entry = for_all("low", top_p=0.75, max_reasoning_tokens=0)
    values = {"reasoning-mode": "low", "gemini-generation-config": {"topP": 0.9, "topK": 3}}
    body = sent(entry, asked(client), client, upstream, shaping.PLAIN[upstream], values)
    assert top_p_of(upstream, body) == 0.75


@every_client
def test_what_a_mode_leaves_out_stays_the_requests(client: str) -> None:
    entry = for_all("high", temperature=0.25)
    asks = asked(client, **ASKED_LOW[client])
    for upstream in DIALECTS:
        assert sent(entry, asks, client, upstream, REASONING[upstream], MAX).get("reasoning_effort") in (None, "low")
    assert sent(entry, asks, client, CHAT, "gpt-5.5", MAX)["reasoning_effort"] == "low"
    values = {**MAX, "reasoning-effort": "medium"}
    assert sent(entry, asked(client), client, CHAT, "gpt-5.5", values)["reasoning_effort"] == "medium"


@every_client
def test_no_think_is_off_also_where_its_entry_only_adds_a_text(client: str) -> None:
    entry = for_all("none", user_prompt_suffix=" /no_think")
    body = sent(
        entry, asked(client, **ASKED_LOW[client]), client, GEMINI, "gemini-2.5-flash", {"reasoning-mode": "none"}
    )
    assert thinking_of(body)["thinkingBudget"] == 0
    assert body["contents"][-1]["parts"][-1]["text"] == "hi /no_think"


@every_client
def test_a_mode_leaves_of_a_generation_config_whether_thoughts_are_shown(client: str) -> None:
    config = {"thinking_config": {"thinking_budget": 300, "include_thoughts": True}, "topK": 5}
    values = {"reasoning-mode": "low", "gemini-generation-config": config}
    body = sent(for_all("low", max_reasoning_tokens=600), asked(client), client, GEMINI, "gemini-2.5-flash", values)
    assert thinking_of(body) == {"thinkingBudget": 600, "includeThoughts": True}
    assert body["generationConfig"]["topK"] == 5


# Prefix and suffix

THREE_TURNS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2 + ("user",), "abcde", strict=True)]},
    RESPONSES: {"input": [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2 + ("user",), "abcde", strict=True)]},
    ANTHROPIC: {"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2 + ("user",), "abcde", strict=True)]},
    GEMINI: {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in zip(("user", "model") * 2 + ("user",), "abcde", strict=True)]},
}  # fmt: skip


@every_client
@pytest.mark.parametrize("upstream", DIALECTS)
def test_only_the_last_of_three_user_turns_has_prefix_and_suffix(client: str, upstream: str) -> None:
    entry = for_all("high", user_prompt_prefix="<<", user_prompt_suffix=">>")
    body = sent(entry, asked(client, **THREE_TURNS[client]), client, upstream, REASONING[upstream], MAX)
    text = json.dumps(body)
    assert text.count("<<") == text.count(">>") == 1
    assert '"<<e>>"' in text
    assert all(f'"{letter}"' in text for letter in "abcd")


def test_a_text_alone_as_input_is_surrounded_as_well() -> None:
    entry = for_all("high", user_prompt_prefix="<<")
    [message] = sent(entry, asked(RESPONSES), RESPONSES, RESPONSES, "gpt-5.5", MAX)["input"]
    assert message["content"] == [{"type": "input_text", "text": "<<hi"}]


def surrounded(*messages: Message) -> tuple[Message, ...]:
    request = Request(dialect=CHAT, messages=messages)
    entry = for_all("high", user_prompt_prefix="<", user_prompt_suffix=">")
    return room(entry).on_attempt(view(MAX), request).messages


def user(*parts: Any) -> Message:
    return Message("user", parts)


RESULT = user(ToolResult("c", (Text("result"),)))
CALL = Message("assistant", (Text("I look"), ToolCall("c", "read")))


def test_results_of_tools_are_no_message_of_the_user() -> None:
    assert surrounded(user(Text("go")), CALL, RESULT) == (user(Text("<go>")), CALL, RESULT)


def test_text_beside_a_result_is_the_users() -> None:
    both = user(RESULT.parts[0], Text("and then"))
    assert surrounded(user(Text("go")), CALL, both)[-1] == user(RESULT.parts[0], Text("<and then>"))


def test_several_parts_are_surrounded_as_one() -> None:
    picture = Media("image", data="AAAA", mime="image/png")
    assert surrounded(user(Text("a"), picture, Text("b"))) == (user(Text("<a"), picture, Text("b>")),)


def test_a_picture_without_words_is_left_alone() -> None:
    picture = user(Media("image", data="AAAA", mime="image/png"))
    assert surrounded(user(Text("a")), picture) == (user(Text("<a>")), picture)
    assert surrounded(picture) == (picture,)


def test_the_same_mode_gives_the_same_bytes_each_time() -> None:
    entry = for_all("high", user_prompt_prefix="<<")
    asks = asked(CHAT, **THREE_TURNS[CHAT])
    first, again = (sent(entry, asks, CHAT, CHAT, "gpt-5.5", MAX) for _ in range(2))
    assert first == again
    assert dialects.get(CHAT).read_request(asks).messages[-1] == user(Text("e"))


def test_reading_of_an_empty_file_gives_no_entries(load: Load, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load(file="reasoning_aliases_path: empty.yaml").content("reasoning_aliases_path") == ()


# In the chat


def test_the_reply_names_what_an_entry_does_for_the_current_model() -> None:
    desk = PlainDesk()
    desk.mode_effects = {"high": "reasoning budget = 20000 tokens (entry x of the reasoning aliases)"}
    assert "reasoning-mode = high, reasoning budget = 20000 tokens (entry x" in run(desk, "!/max")
    assert "reasoning-mode = low, reasoning effort = low," in run(desk, "!/low")
