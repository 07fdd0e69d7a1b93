"""REQ-01: one meaning for effort and budget. For each protocol pair and each effort or budget the value that arrives upstream is the
table's. The tables here are written out by hand from translation.md, sections 4 and 12, and from what the vendors' models take.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from tests.e2e.asking import CROSSED, PROTOCOLS, Scene, body_of, error_of, path_of, protocol_of, say, started, target
from tests.e2e.commanding import Talk
from tests.faults.stage import whole
from tests.server.process import Proxy
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "maximum")
WORD_OF: Final[dict[int, str]] = {
    0: "none", 128: "minimal", 1024: "minimal", 1025: "low", 4096: "low", 4097: "medium", 8192: "medium", 12288: "medium",
    12289: "high", 24576: "high", 24577: "xhigh", 49152: "xhigh", 49153: "max", 65536: "max",
}  # fmt: skip
BUDGETS: Final = (-1, *WORD_OF)
ASKED: Final[tuple[str | int, ...]] = (*EFFORTS, *BUDGETS)
LIMIT: Final = 4000
"""The output limit that every client names."""

# Words that a model gets for: none, minimal, low, medium, high, xhigh, max, and "the model decides"; "-" for no word at all.
CHAT_WORDS: Final = {
    "gpt-5.6": "none low low medium high xhigh max -",
    "gpt-5.5": "none low low medium high xhigh xhigh -",
    "gpt-5.1": "- low low medium high high high medium",
    "gpt-5": "minimal minimal low medium high high high -",
    "gpt-5.4-pro": "medium medium medium medium high xhigh xhigh -",
    "o3": "low low low medium high high high -",
    "gpt-4o": "- - - - - - - -",
    "grok-4.5": "low low low medium high high high -",
    "grok-4.3": "none low low medium high high high -",
    "grok-3-mini": "- low low low high high high low",
    "glm-5.3": "low low low low high high max -",
}
RESPONSES_WORDS: Final = {
    "gpt-5.6": "none low low medium high xhigh max -",
    "gpt-5.1": "none low low medium high high high medium",
    "gpt-5": "minimal minimal low medium high high high -",
    "gpt-5.3-codex": "low low low medium high xhigh xhigh -",
    "gpt-4.1": "- - - - - - - -",
}
ANTHROPIC_WORDS: Final = {
    "claude-opus-4-5": "- low low medium high high high -",
    "claude-sonnet-4-6": "- low low medium high max max -",
    "claude-opus-4-8": "- low low medium high xhigh max -",
    "claude-fable-5": "low low low medium high xhigh max -",
}
GEMINI_WORDS: Final = {
    "gemini-3-pro-preview": "LOW LOW LOW LOW HIGH HIGH HIGH -",
    "gemini-3.1-pro-preview": "LOW LOW LOW MEDIUM HIGH HIGH HIGH -",
    "gemini-3.5-flash": "MINIMAL MINIMAL LOW MEDIUM HIGH HIGH HIGH -",
}
# Tokens for the same eight, and the least and the most that the model takes besides 0.
GEMINI_TOKENS: Final = {
    "gemini-2.5-pro": ((128, 1024, 1024, 8192, 24576, 32768, 32768, -1), 128, 32768),
    "gemini-2.5-flash": ((0, 1024, 1024, 8192, 24576, 24576, 24576, -1), 1, 24576),
    "gemini-2.5-flash-lite": ((0, 1024, 1024, 8192, 24576, 24576, 24576, -1), 512, 24576),
}
QWEN_TOKENS: Final = (0, 1024, 2048, 8192, 16384, 32768, None, None)
# Anthropic's budget and the output limit that must be above it: from the client's 4000, and within what the model can write.
SONNET_4_5: Final = (
    None, (1024, 4000), (2048, 4000), (8192, 12192), (16384, 20384), (32768, 36768), (60000, 64000), (8192, 12192),
)  # fmt: skip
OPUS_4_1: Final = (
    None, (1024, 4000), (2048, 4000), (8192, 12192), (16384, 20384), (28000, 32000), (28000, 32000), (8192, 12192),
)  # fmt: skip
MODELS: Final[dict[Protocol, tuple[str, ...]]] = {
    "openai-chat": (*CHAT_WORDS, "deepseek-chat", "deepseek-r1", "glm-4.6", "qwen-plus"),
    "openai-responses": tuple(RESPONSES_WORDS),
    "anthropic-messages": (*ANTHROPIC_WORDS, "claude-sonnet-4-5", "claude-opus-4-1", "claude-3-5-haiku-latest"),
    "gemini": (*GEMINI_WORDS, *GEMINI_TOKENS, "gemini-2.0-flash"),
}
ONE_OF: Final[dict[Protocol, str]] = {
    "openai-chat": "gpt-5.5", "openai-responses": "gpt-5.1", "anthropic-messages": "claude-sonnet-4-6", "gemini": "gemini-3.5-flash",
}  # fmt: skip
"""A model for what does not go through the tables."""


def place(asked: str | int) -> int:
    """The column of what was asked: an effort, or the one that a budget stands for; the last is the model's own choice."""
    if asked == -1:
        return 7
    word = asked if isinstance(asked, str) else WORD_OF[asked]
    return EFFORTS.index("max" if word == "maximum" else word)


def from_words(words: str, asked: str | int) -> str | None:
    word = words.split()[place(asked)]
    return None if word == "-" else word


def asking(client: Protocol, asked: str | int) -> dict[str, Any]:
    """How a client of this protocol asks for it."""
    match client, asked:
        case "openai-chat", str():
            return {"reasoning_effort": asked}
        case "openai-chat", _:
            return {"thinking_budget": asked} if asked in (128, -1) else {"reasoning": {"max_tokens": asked}}
        case "openai-responses", _:
            return {"reasoning": {"effort" if isinstance(asked, str) else "max_tokens": asked}}
        case "anthropic-messages", str():
            return {"thinking": {"type": "adaptive"}, "output_config": {"effort": asked}}
        case "anthropic-messages", _:
            return {"thinking": {"type": "enabled", "budget_tokens": asked}}
        case _, str():
            return {"generationConfig": {"thinkingConfig": {"thinkingLevel": asked.upper()}}}
        case _:
            return {"generationConfig": {"thinkingConfig": {"thinkingBudget": asked}}}


def limited(client: Protocol, body: dict[str, Any]) -> dict[str, Any]:
    match client:
        case "openai-chat":
            return {**body, "max_completion_tokens": LIMIT}
        case "openai-responses":
            return {**body, "max_output_tokens": LIMIT}
        case "anthropic-messages":
            return {**body, "max_tokens": LIMIT}
        case "gemini":
            return {**body, "generationConfig": {**body.get("generationConfig", {}), "maxOutputTokens": LIMIT}}


def control(back: Protocol, body: dict[str, Any]) -> dict[str, Any]:
    """All that a request says on reasoning, and the output limit."""
    names = {
        "openai-chat": ("reasoning_effort", "reasoning", "thinking", "enable_thinking", "thinking_budget",
                        "max_tokens", "max_completion_tokens"),
        "openai-responses": ("reasoning", "max_output_tokens"),
        "anthropic-messages": ("thinking", "output_config", "max_tokens"),
        "gemini": ("thinkingConfig", "maxOutputTokens"),
    }[back]  # fmt: skip
    held = body.get("generationConfig", {}) if back == "gemini" else body
    return {name: held[name] for name in names if name in held}


def expected(client: Protocol, back: Protocol, model: str, asked: str | int) -> dict[str, Any]:
    """The table."""
    shown = client in ("openai-chat", "anthropic-messages")
    match back:
        case "openai-chat":
            return in_chat(model, asked)
        case "openai-responses":
            word = from_words(RESPONSES_WORDS[model], asked)
            reasoning = {} if word is None else {"effort": word}
            if client == "anthropic-messages" and model != "gpt-4.1" and place(asked):
                reasoning["summary"] = "auto"
            return {**({"reasoning": reasoning} if reasoning else {}), "max_output_tokens": LIMIT}
        case "anthropic-messages":
            return in_anthropic(model, asked)
        case "gemini":
            return in_gemini(model, asked, shown)


def in_chat(model: str, asked: str | int) -> dict[str, Any]:
    old = {"max_tokens": LIMIT}
    match model:
        case "deepseek-chat" | "glm-4.6":
            return {"thinking": {"type": "enabled" if place(asked) else "disabled"}, **old}
        case "deepseek-r1":
            return {"thinking": {"type": "enabled"}, **old} if place(asked) else old
        case "qwen-plus":
            tokens = QWEN_TOKENS[place(asked)] if isinstance(asked, str) or asked < 1 else asked
            return {"enable_thinking": place(asked) > 0, **({"thinking_budget": tokens} if tokens else {}), **old}
        case _:
            word = from_words(CHAT_WORDS[model], asked)
            limit = {"max_completion_tokens": LIMIT} if model.startswith(("gpt", "o3")) else old
            return {**({} if word is None else {"reasoning_effort": word}), **limit}


def in_anthropic(model: str, asked: str | int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if model in ANTHROPIC_WORDS and (word := from_words(ANTHROPIC_WORDS[model], asked)):
        out["output_config"] = {"effort": word}
    match model:
        case "claude-sonnet-4-5" | "claude-opus-4-1" | "claude-opus-4-5":
            most = 32000 if model == "claude-opus-4-1" else 64000
            found = (OPUS_4_1 if model == "claude-opus-4-1" else SONNET_4_5)[place(asked)]
            if isinstance(asked, int) and asked > 0:
                found = beside(max(asked, 1024), most)
            if found is None:
                return {"max_tokens": LIMIT}
            return {**out, "thinking": {"type": "enabled", "budget_tokens": found[0]}, "max_tokens": found[1]}
        case "claude-3-5-haiku-latest":
            return {"max_tokens": LIMIT}
        case "claude-fable-5":
            kind = "adaptive"
        case _:
            kind = "adaptive" if place(asked) else "disabled"
    return {**out, "thinking": {"type": kind}, "max_tokens": LIMIT}


def beside(budget: int, most: int) -> tuple[int, int]:
    """A budget and the limit above it: the client's, else raised by it; the budget is cut where the model has no room for both."""
    if budget < LIMIT:
        return budget, LIMIT
    return (budget, budget + LIMIT) if budget + LIMIT <= most else (min(budget, most - LIMIT), most)


def in_gemini(model: str, asked: str | int, shown: bool) -> dict[str, Any]:
    thinking: dict[str, Any] = {}
    if model in GEMINI_WORDS:
        if (word := from_words(GEMINI_WORDS[model], asked)) is not None:
            thinking["thinkingLevel"] = word
    elif model in GEMINI_TOKENS:
        row, least, most = GEMINI_TOKENS[model]
        given = isinstance(asked, int) and asked > 0
        thinking["thinkingBudget"] = min(max(int(asked), least), most) if given else row[place(asked)]
    else:
        return {"maxOutputTokens": LIMIT}
    if shown and place(asked):
        thinking["includeThoughts"] = True
    return {**({"thinkingConfig": thinking} if thinking else {}), "maxOutputTokens": LIMIT}


# One run for all of it


@dataclass(frozen=True)
class Case:
    number: int
    client: Protocol
    back: Protocol
    model: str
    asked: str | int

    @property
    def body(self) -> dict[str, Any]:
        named = target(self.back, self.model)
        return limited(
            self.client, body_of(self.client, named, said=f"case {self.number}.", **asking(self.client, self.asked))
        )


def cases() -> list[Case]:
    triples = [(client, back, model) for client, back in CROSSED for model in MODELS[back]]
    triples += [(client, client, ONE_OF[client]) for client in PROTOCOLS]
    every = [(*triple, asked) for triple in triples for asked in ASKED]
    return [Case(number, *one) for number, one in enumerate(every)]


def send(proxy: Proxy, some: Sequence[Case]) -> list[tuple[int, bytes]]:
    """Posts them one after the other on one connection; what was not answered with 200."""
    failed = []
    connection = http.client.HTTPConnection(*proxy.main, timeout=30)
    headers = {"Authorization": f"Bearer {proxy.key}", "Content-Type": "application/json", "X-Session-Id": "reasoning"}
    for case in some:
        path = path_of(case.client, target(case.back, case.model))
        connection.request("POST", path, json.dumps(case.body), headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            failed.append((case.number, content))
    connection.close()
    return failed


@pytest.fixture(scope="module")
def arrived() -> Iterator[dict[int, dict[str, Any]]]:
    """What arrived at the provider, by the number of the case."""
    everything = cases()
    with upstream_in_thread(say) as upstream, started(config={"backends": backends_at(upstream.url)}) as proxy:
        with ThreadPoolExecutor(6) as pool:
            failed = [
                one for some in pool.map(partial(send, proxy), (everything[n::6] for n in range(6))) for one in some
            ]
        assert failed == []
        found = {int(match[1]): request.json for request in upstream.requests if (match := CASE.search(request.body))}
    yield found


CASE: Final = re.compile(rb"case (\d+)\.")


@pytest.mark.parametrize(("client", "back"), CROSSED)
def test_req_01_the_value_that_arrives_is_the_tables(
    arrived: dict[int, dict[str, Any]], client: Protocol, back: Protocol
) -> None:
    wrong = [
        (case.model, case.asked, sent, wanted)
        for case in cases()
        if (case.client, case.back) == (client, back)
        and (sent := control(back, arrived[case.number])) != (wanted := expected(client, back, case.model, case.asked))
    ]
    assert wrong == []


@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_a_client_of_the_same_protocol_is_not_translated(
    arrived: dict[int, dict[str, Any]], client: Protocol
) -> None:
    """Only the word that no provider knows becomes the model's highest."""
    highest = {"openai-chat": "xhigh", "openai-responses": "high", "anthropic-messages": "max", "gemini": "HIGH"}[
        client
    ]
    for case in cases():
        if case.client == case.back == client:
            word = highest if case.asked == "maximum" else case.asked
            wanted = limited(client, body_of(client, "", **asking(client, word)))
            assert control(client, arrived[case.number]) == control(client, wanted), case


# Acceptance, sentence by sentence


@pytest.mark.parametrize("stream", [False, True])
def test_req_01_high_at_gemini_is_the_tables_with_thoughts(scene: Scene, stream: bool) -> None:
    scene.ask("openai-chat", "google:gemini-2.5-flash", stream, reasoning_effort="high")
    config = scene.last.json["generationConfig"]["thinkingConfig"]
    assert config == {"thinkingBudget": 24576, "includeThoughts": True}
    scene.ask("openai-chat", "google:gemini-3-pro-preview", stream, reasoning_effort="high")
    config = scene.last.json["generationConfig"]["thinkingConfig"]
    assert config == {"thinkingLevel": "HIGH", "includeThoughts": True}


@pytest.mark.parametrize("stream", [False, True])
def test_req_01_a_budget_of_4096_is_effort_low_at_openai(scene: Scene, stream: bool) -> None:
    thinking = {"type": "enabled", "budget_tokens": 4096}
    scene.ask("anthropic-messages", target("openai-chat", "gpt-5.5"), stream, max_tokens=9000, thinking=thinking)
    assert scene.last.json["reasoning_effort"] == "low"
    scene.ask("anthropic-messages", target("openai-responses", "gpt-5.5"), stream, max_tokens=9000, thinking=thinking)
    assert scene.last.json["reasoning"]["effort"] == "low"


@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_maximum_set_in_chat_is_max_or_the_highest(commanded: Scene, client: Protocol) -> None:
    wanted: tuple[tuple[Protocol, str, dict[str, Any]], ...] = (
        ("openai-chat", "gpt-5.6", {"reasoning_effort": "max"}),
        ("openai-chat", "o3", {"reasoning_effort": "high"}),
        ("openai-responses", "gpt-5.5", {"reasoning": {"effort": "xhigh"}}),
        (
            "anthropic-messages",
            "claude-opus-4-8",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
        ),
    )
    for back, model, values in wanted:
        talk = Talk(commanded, client, model=target(back, model))
        talk.say("!/set(reasoning-effort=maximum)")
        talk.say("hi")
        sent = control(back, commanded.last.json)
        assert {name: sent.get(name) for name in values} == values, (client, back, model)


@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_a_budget_of_the_session_stays_below_the_limit(commanded: Scene, client: Protocol) -> None:
    """Also for a client of Anthropic's own protocol: the limit is raised, and what is refused beside thinking is left out."""
    talk = Talk(commanded, client, model=target("anthropic-messages", "claude-sonnet-4-5"))
    talk.say("!/set(thinking-budget=20000, temperature=0.2)")
    talk.say("hi", **limited(client, {}))
    sent = commanded.last.json
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 20000} and sent["max_tokens"] == 24000
    assert "temperature" not in sent
    talk.say("!/set(thinking-budget=0) hi", **limited(client, {}))
    assert "thinking" not in commanded.last.json or commanded.last.json["thinking"] == {"type": "disabled"}
    assert commanded.last.json["temperature"] == 0.2 and commanded.last.json["max_tokens"] == LIMIT


@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_none_set_in_chat_is_no_field_or_an_explicit_off(commanded: Scene, client: Protocol) -> None:
    off: tuple[tuple[Protocol, str, dict[str, Any]], ...] = (
        ("openai-chat", "gpt-5.5", {"reasoning_effort": "none"}),
        ("openai-chat", "gpt-4o", {}),
        ("anthropic-messages", "claude-opus-4-8", {"thinking": {"type": "disabled"}}),
        ("gemini", "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}),
    )
    for back, model, values in off:
        talk = Talk(commanded, client, model=target(back, model))
        talk.say("!/set(reasoning-effort=none) hi")
        sent = control(back, commanded.last.json)
        limits = ("max_tokens", "max_completion_tokens", "maxOutputTokens")
        assert {name: value for name, value in sent.items() if name not in limits} == values, (client, back, model)


FIELD_OF: Final[dict[Protocol, str]] = {
    "openai-chat": "reasoning_effort",
    "openai-responses": "reasoning.effort",
    "anthropic-messages": "output_config.effort",
    "gemini": "generationConfig.thinkingConfig.thinkingLevel",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("back", PROTOCOLS)
@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_an_unknown_effort_is_refused(scene: Scene, client: Protocol, back: Protocol, stream: bool) -> None:
    """Also where the body would go on byte for byte; the field is named, and nothing is sent."""
    answer = scene.ask(client, target(back), stream, **asking(client, "huge"))
    assert answer.status == 400
    assert FIELD_OF[client] in error_of(client, answer)["message"]
    assert scene.upstream.requests == []


def test_req_01_words_of_other_servers_for_the_models_own_choice_are_none(scene: Scene) -> None:
    """Groq's `default`; Gemini's unspecified level."""
    assert scene.ask("openai-chat", target("openai-chat"), reasoning_effort="default").status == 200
    assert scene.last.json["reasoning_effort"] == "default"
    scene.ask("openai-chat", target("openai-responses", "gpt-5.5"), reasoning_effort="default")
    assert "reasoning" not in scene.last.json
    level = {"thinkingConfig": {"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}}
    assert scene.ask("gemini", target("gemini"), generationConfig=level).status == 200


SAMPLED: Final[dict[Protocol, dict[str, Any]]] = {
    "openai-chat": {"temperature": 0.3, "top_p": 0.5},
    "openai-responses": {"temperature": 0.3, "top_p": 0.5},
    "anthropic-messages": {"temperature": 0.3, "top_p": 0.5},
    "gemini": {"temperature": 0.3, "topP": 0.5},
}


@pytest.mark.parametrize("client", PROTOCOLS)
def test_req_01_temperature_is_left_out_where_it_is_forbidden_beside_reasoning(scene: Scene, client: Protocol) -> None:
    models: tuple[tuple[Protocol, str, bool], ...] = (
        ("openai-chat", "gpt-5.1", False),
        ("openai-responses", "gpt-5.1", False),
        ("anthropic-messages", "claude-sonnet-4-5", False),
        ("gemini", "gemini-2.5-flash", True),
    )
    for back, model, kept in models:
        if back == client:
            continue
        for effort, taken in (("high", kept), ("none", True)):
            more = asking(client, effort)
            if client == "gemini":
                more["generationConfig"] |= SAMPLED[client]
            else:
                more |= SAMPLED[client]
            scene.ask(client, target(back, model), **more)
            body = scene.last.json.get("generationConfig", scene.last.json)
            assert ("temperature" in body) is taken, (client, back, effort)
            assert ("top_p" in body or "topP" in body) is (taken and back != "anthropic-messages"), (
                client,
                back,
                effort,
            )


# Reasoning that is made but not shown

THOUGHT: Final = "what-the-model-thought"


def think(request: Received) -> Reply:
    """The provider shows its reasoning and answers."""
    protocol = protocol_of(request)
    answer = whole(protocol, "fine")
    match protocol:
        case "openai-chat":
            answer["choices"][0]["message"]["reasoning_content"] = THOUGHT
        case "openai-responses":
            summary = [{"type": "summary_text", "text": THOUGHT}]
            answer["output"] = [{"type": "reasoning", "id": "rs_1", "summary": summary}, *answer["output"]]
        case "anthropic-messages":
            block = {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"}
            answer["content"] = [block, *answer["content"]]
        case "gemini":
            parts = answer["candidates"][0]["content"]["parts"]
            answer["candidates"][0]["content"]["parts"] = [{"text": THOUGHT, "thought": True}, *parts]
    return Reply.json(answer)


def excluding(client: Protocol, exclude: bool) -> dict[str, Any]:
    match client:
        case "openai-chat" | "openai-responses":
            return {"reasoning": {"effort": "low", "exclude": exclude}}
        case "anthropic-messages":
            thinking = {"type": "adaptive", "display": "omitted" if exclude else "summarized"}
            return {"thinking": thinking, "output_config": {"effort": "low"}}
        case "gemini":
            return {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": not exclude}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("client", "back"), CROSSED)
def test_req_01_excluded_reasoning_is_made_but_not_shown(
    scene: Scene, client: Protocol, back: Protocol, stream: bool
) -> None:
    model = target(back, ONE_OF[back])
    scene.play(think)
    shown = scene.ask(client, model, stream, **excluding(client, False))
    assert THOUGHT.encode() in shown.body
    hidden = scene.ask(client, model, stream, **excluding(client, True))
    assert hidden.status == 200 and b"fine" in hidden.body
    assert THOUGHT.encode() not in hidden.body
    sent = control(back, scene.last.json)
    match back:
        case "openai-chat":
            assert sent["reasoning_effort"]
        case "openai-responses":
            assert sent["reasoning"]["effort"] and "summary" not in sent["reasoning"]
        case "anthropic-messages":
            assert sent["thinking"] == {"type": "adaptive", "display": "omitted"}
        case "gemini":
            assert "includeThoughts" not in sent.get("thinkingConfig", {})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("back", [back for back in PROTOCOLS if back != "anthropic-messages"])
def test_req_01_an_anthropic_client_that_enabled_no_thinking_gets_none(
    scene: Scene, back: Protocol, stream: bool
) -> None:
    scene.play(think)
    effort = {"output_config": {"effort": "low"}}
    answer = scene.ask("anthropic-messages", target(back, ONE_OF[back]), stream, **effort)
    assert answer.status == 200 and THOUGHT.encode() not in answer.body
