"""Every command in every argument form, typed in every client protocol, streamed and not: reply, state, and a provider that hears nothing
(CMD-02, CMD-07, CMD-09 to CMD-18)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from typing import Any

import pytest

from llm_proxy.commands.registry import COMMANDS
from tests.e2e.asking import Scene, data_of
from tests.e2e.commanding import NAMES, SURFACES, Talk, calls, fresh_id, reply_ids
from tests.support.shared import Protocol

every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
FOLDER = os.path.realpath(tempfile.gettempdir())
ONE_OFF = "the one-off"
# The page of a session shows no addresses of a network; that calls go there is stated with the effects of commands.
REDIRECTED = {"openai-url": "http://127.0.0.1:1/v1"}


@dataclass(frozen=True)
class Form:
    """`typed` in a message of its own makes a reply in which `says` (a regular expression) is found. `values`: what the session then
    holds, and nothing else. `first` is typed in a message before; % stands for a name that no other case uses."""

    typed: str
    says: str
    values: dict[str, Any] = field(default_factory=dict)
    first: str = ""

    @property
    def label(self) -> str:
        return f"{self.first} {self.typed}".replace("\n", "/").strip()


def wrong(typed: str, says: str, first: str = "", **values: Any) -> Form:
    """A form that is refused with a line that names the command, and leaves the session as `first` made it."""
    return Form(typed, rf"(?m)^!/[a-z-]+: (?s:.*){says}", values, first)


EFFORT_HIGH = {"reasoning": {"effort": "high"}}
NO_THINKING = {"gemini-generation-config": {"thinkingConfig": {"thinkingBudget": 0}}}

GRAMMAR = [
    # CMD-02: names in any case, `-` like `_`, blanks before the bracket, line breaks inside.
    Form("!/SET(project=a)", "project = a", {"project": "a"}),
    Form("!/Temperature(0.5)", "temperature = 0.5", {"temperature": 0.5}),
    Form("!/tool_loop_ttl(60)", "tool-loop-ttl = 60", {"tool-loop-ttl": 60}),
    Form("!/set(Tool_Loop_Max_Repeats=6)", "tool-loop-max-repeats = 6", {"tool-loop-max-repeats": 6}),
    Form("!/set (project = a)", "project = a", {"project": "a"}),
    Form("!/set \t ( project  =  a )", "project = a", {"project": "a"}),
    Form("!/set(\n  project=a,\n  temperature=0.5\n)", "project = a", {"project": "a", "temperature": 0.5}),
    Form("\n\n  !/set(project=a)  \n", "project = a", {"project": "a"}),
    # Quotes, escapes, nesting, JSON.
    Form(
        '!/set(project="my project, two", temperature=0.7)',
        "project",
        {"project": "my project, two", "temperature": 0.7},
    ),
    Form("!/set('project'='a (b) = c')", "project", {"project": "a (b) = c"}),
    Form(r"!/set(project=a\, b)", "project", {"project": "a, b"}),
    Form('!/set(project="say \\"hi\\"")', "project", {"project": 'say "hi"'}),
    Form("!/project(don't)", "project", {"project": "don't"}),
    Form("!/set(project=café ☕)", "project", {"project": "café ☕"}),
    Form(
        '!/set(gemini-generation-config={"thinkingConfig":{"thinkingBudget":0}})', "gemini-generation-config", NO_THINKING
    ),
    Form('!/set(reasoning="{\\"effort\\": \\"high\\"}")', "reasoning", EFFORT_HIGH),
    Form('!/set(reasoning={"effort": "high"})', "reasoning", EFFORT_HIGH),
    Form("!/set(reasoning=(effort=high))", "reasoning", EFFORT_HIGH),
    Form("!/set(reasoning(effort=high))", "reasoning", EFFORT_HIGH),
    Form(
        "!/set(reasoning=(effort=low, max_tokens=2048, exclude=yes))",
        "reasoning",
        {"reasoning": {"effort": "low", "max_tokens": 2048, "exclude": True}},
    ),
    wrong("!/set(project=a temperature=0.7)", "comma"),
    wrong("!/set(project=a", r"!/set\("),
    wrong('!/set(project="a)', "quote"),
    # Several, left to right; a bare one ends before a sign.
    Form("!/project(a) !/temperature(0.5)", r"(?s)project = a.*\n.*temperature = 0.5", {"project": "a", "temperature": 0.5}),
    Form("!/low\n!/max", "reasoning-mode = high", {"reasoning-mode": "high"}),
    *(
        Form(f"!/loop-detection({word})", "loop-detection = true", {"loop-detection": True})
        for word in ("true", "1", "YES", "on")
    ),
    *(
        Form(f"!/loop-detection({word})", "loop-detection = false", {"loop-detection": False})
        for word in ("false", "0", "no", "Off", "none")
    ),
]  # fmt: skip

INFORMATION = [
    Form("!/hello", r"LLM Interactive Proxy \d.*\nSession: s-"),
    Form("!/hello()", "LLM Interactive Proxy"),
    Form("!/hello", "Project: a", {"project": "a"}, first="!/project(a)"),
    wrong("!/hello(x)", r"!/hello"),
    Form("!/help", r"(?s)!/hello.*!/route-append"),
    Form("!/help(set)", r"(?s)temperature = 0\.5 \(session\)", {"temperature": 0.5}, first="!/temperature(0.5)"),
    Form("!/help(!/set)", "temperature = "),
    Form("!/help(SET)", "temperature = "),
    Form("!/help(one-off)", r"!/oneoff\(backend:model\)"),
    Form("!/help(temperature)", r"!/temperature\(x\)"),
    wrong("!/help(modle)", "!/model"),
    Form("!/status", r"(?s)Session: s-.*0 input and 0 output tokens"),
    wrong("!/status(x)", "!/status"),
    Form("!/pwd", r"(?s)!/project-dir.*!/project\("),
    Form("!/pwd", "Project a; no project directory", {"project": "a"}, first="!/project(a)"),
    Form("!/pwd", "^" + re.escape(FOLDER), {"project-dir": FOLDER}, first=f"!/project-dir({FOLDER})"),
    Form("!/modle(x)", "!/model"),
    Form("!/xyzzyplugh", "!/help"),
]

SETTINGS = [
    Form("!/set", r"(?s)temperature = none.*default"),
    Form("!/set()", "temperature = none"),
    wrong("!/set(backend=google, temperature=5)", "0 to 2"),
    wrong("!/set(temperature=0.1, foo=1)", "nearest"),
    wrong("!/set(foo=1, temperature=9)", r"foo(?s:.*)0 to 2"),
    wrong("!/set(temperature=0.1, temperature=0.2)", "twice"),
    wrong("!/set(temperature)", "temperature=value"),
    wrong("!/set(temperature=)", "0 to 2"),
    wrong("!/set(command-prefix=aa)", "2 to 10"),
    wrong("!/set(command-prefix=a b)", "2 to 10"),
    wrong("!/set(top-p=2)", "0 to 1"),
    Form("!/set(backend=google, model=x)", "model = x", {"backend": "google", "model": "x"}),
    Form(
        "!/set(model=openai:mistralai/mistral-7b)",
        "mistralai/mistral-7b",
        {"backend": "openai", "model": "mistralai/mistral-7b"},
    ),
    Form("!/unset(model)", r"[Cc]leared", {}, first="!/model(openai:x)"),
    Form("!/unset(backend)", r"[Cc]leared", {}, first="!/model(openai:x)"),
    Form("!/unset(temperature, project)", "temperature", {}, first="!/set(temperature=1, project=a)"),
    Form("!/unset(temperature, top-p)", "Not set before: top-p", {}, first="!/temperature(1)"),
    Form("!/unset(reasoning_mode)", "reasoning-mode", {}, first="!/max"),
    Form("!/unset(project-name)", "project", {}, first="!/project(a)"),
    Form("!/unset(openai_url)", "openai-url", {}, first="!/openai-url(http://127.0.0.1:1/v1)"),
    wrong("!/unset(temperature)", "not set"),
    wrong("!/unset", r"!/unset\(key"),
    wrong("!/unset()", r"!/unset\(key"),
    wrong("!/unset(temperature, foo)", "foo", "!/temperature(1)", temperature=1.0),
    Form("!/interactive", "is off", {"interactive": False}),
    Form("!/interactive", "is on", {"interactive": True}, first="!/interactive"),
    Form("!/interactive(on)", "is on", {"interactive": True}),
    Form("!/interactive(false)", "is off", {"interactive": False}),
    Form("!/set(interactive=off)", "interactive = false", {"interactive": False}),
    Form("!/unset(interactive-mode)", "interactive", {}, first="!/interactive(on)"),
    wrong("!/interactive(maybe)", "true or false"),
]

CHOICES = [
    Form("!/backend(google)", "backend = google", {"backend": "google"}),
    Form("!/backend(id=google)", "backend = google", {"backend": "google"}),
    Form("!/BACKEND( GOOGLE )", "backend = google", {"backend": "google"}),
    Form("!/provider(google)", "backend = google", {"backend": "google"}),
    Form("!/backend", "backend = "),
    Form("!/backend", r"backend = google \(session\)", {"backend": "google"}, first="!/backend(google)"),
    wrong("!/backend(nosuch)", "demo.*google.*openai"),
    wrong("!/backend(keyless)", "key"),
    Form("!/model(gpt-4o-mini)", "model = gpt-4o-mini", {"model": "gpt-4o-mini"}),
    Form("!/model(name=gpt-4o-mini)", "model = gpt-4o-mini", {"model": "gpt-4o-mini"}),
    Form("!/model(b)", "model = b", {"backend": "google", "model": "b"}, first="!/backend(google)"),
    Form("!/model(openai:x)", "model = x", {"backend": "openai", "model": "x"}),
    Form("!/model(openai/x)", "model = x", {"backend": "openai", "model": "x"}),
    Form("!/model", "model = "),
    wrong("!/model(a, b)", "comma"),
    Form("!/oneoff(openai:x)", "openai:x", {ONE_OFF: "openai:x"}),
    Form("!/oneoff(openai/x)", "openai:x", {ONE_OFF: "openai:x"}),
    Form("!/one-off(openai:x)", "openai:x", {ONE_OFF: "openai:x"}),
    Form("!/ONE_OFF(google:g)", "instead of openai:x", {ONE_OFF: "google:g"}, first="!/oneoff(openai:x)"),
    wrong("!/oneoff(gpt-4)", r"!/oneoff\(backend:model\)"),
    wrong("!/oneoff", r"!/oneoff\(backend:model\)"),
    wrong("!/oneoff(keyless:x)", "key"),
    Form("!/temperature(0.2)", "temperature = 0.2", {"temperature": 0.2}),
    Form("!/temperature(value=2)", "temperature = 2", {"temperature": 2.0}),
    Form("!/temperature", "temperature = none"),
    wrong("!/temperature(abc)", "0 to 2"),
    wrong("!/temperature(2.1)", "0 to 2"),
    wrong("!/temperature(nan)", "0 to 2"),
    Form(
        "!/openai-url(http://127.0.0.1:1/v1)", "127.0.0.1:1/v1", REDIRECTED
    ),
    Form("!/set(openai_url=http://127.0.0.1:1/v1)", "127.0.0.1:1/v1", REDIRECTED),
    Form("!/openai-url", "openai-url = "),
    wrong("!/openai-url(ftp://x)", "http or https"),
    wrong("!/openai-url(http://u:p@127.0.0.1:1/)", "openai-url"),
    wrong("!/openai-url(http://169.254.169.254/)", "openai-url"),
]  # fmt: skip

PROJECTS = [
    Form("!/project(a)", "project = a", {"project": "a"}),
    Form("!/project(name=a)", "project = a", {"project": "a"}),
    Form("!/project(a b)", "project", {"project": "a b"}),
    Form('!/project("a, b")', "project", {"project": "a, b"}),
    Form("!/set(project-name=a)", "project = a", {"project": "a"}),
    Form("!/project", r"project = a \(session\)", {"project": "a"}, first="!/project(a)"),
    wrong(f"!/project({'x' * 201})", "1 to 200"),
    wrong('!/project("a\tb")', "control characters"),
    Form(f"!/project-dir({FOLDER})", "project-dir = ", {"project-dir": FOLDER}),
    Form(f"!/project-dir(path={FOLDER})", "project-dir = ", {"project-dir": FOLDER}),
    Form(f"!/set(dir={FOLDER})", "project-dir = ", {"project-dir": FOLDER}),
    Form(f"!/set(project-directory={FOLDER})", "project-dir = ", {"project-dir": FOLDER}),
    Form("!/project-dir", "project-dir = none"),
    Form("!/unset(project-dir)", "project-dir", {}, first=f"!/project-dir({FOLDER})"),
    wrong("!/project-dir(/no/such/directory)", "existing", f"!/project-dir({FOLDER})", **{"project-dir": FOLDER}),
    wrong("!/project-dir(relative)", "absolute"),
    wrong("!/project-dir($HOME)", "absolute"),
]

MODES = [
    *(
        Form(f"!/{name}", f"reasoning-mode = {mode}", {"reasoning-mode": mode})
        for mode, names in {
            "high": ("max", "high"),
            "medium": ("medium",),
            "low": ("low",),
            "none": ("no-think", "no-thinking", "no_reasoning", "disable-thinking", "disable-reasoning"),
        }.items()
        for name in names
    ),
    Form("!/max", "reasoning-mode = high", {"reasoning-mode": "high"}, first="!/low"),
    Form("!/set(reasoning-mode=max)", "reasoning-mode = high", {"reasoning-mode": "high"}),
    wrong("!/max(x)", "!/max"),
]

LOOPS = [
    Form("!/loop-detection", "loop-detection = true"),
    Form("!/loop-detection(value=off)", "loop-detection = false", {"loop-detection": False}),
    Form("!/set(loop=off)", "loop-detection = false", {"loop-detection": False}),
    Form("!/tool-loop-detection(off)", "tool-loop-detection = false", {"tool-loop-detection": False}),
    Form("!/tool-loop-detection", "tool-loop-detection = true"),
    Form("!/tool-loop-max-repeats(2)", "tool-loop-max-repeats = 2", {"tool-loop-max-repeats": 2}),
    Form("!/tool-loop-max-repeats", "tool-loop-max-repeats = 4"),
    wrong("!/tool-loop-max-repeats(1)", "≥ 2"),
    wrong("!/tool-loop-max-repeats(2.5)", "≥ 2"),
    Form("!/tool-loop-ttl(300)", "tool-loop-ttl = 300", {"tool-loop-ttl": 300}),
    Form("!/tool-loop-ttl", "tool-loop-ttl = 120"),
    wrong("!/tool-loop-ttl(0)", "≥ 1"),
    Form("!/tool-loop-mode(break)", "tool-loop-mode = break", {"tool-loop-mode": "break"}),
    Form(
        "!/tool-loop-mode(chance_then_block)", "chance_then_break", {"tool-loop-mode": "chance_then_break"}
    ),
    Form("!/set(loop-mode=chance_then_break)", "chance_then_break", {"tool-loop-mode": "chance_then_break"}),
    Form("!/tool-loop-mode", "tool-loop-mode = break"),
    wrong("!/tool-loop-mode(never)", "chance_then_break"),
]  # fmt: skip

CREATED = "!/create-failover-route(%, m)"
FILLED = f"{CREATED} !/route-append(%, openai:a, google:b)"
ROUTES = [
    Form("!/create-failover-route(name=%, policy=k)", r"% \(policy k\): empty"),
    Form("!/create-failover-route(%, KM)", r"% \(policy km\)"),
    Form("!/create-failover-route(%, ordered)", r"% \(policy m\)"),
    Form("!/create-failover-route(%, mk)", r"existed.* m to mk.*% \(policy mk\): openai:a, google:b", first=FILLED),
    wrong("!/create-failover-route(name=%)", "k, m, km, mk"),
    wrong("!/create-failover-route(%, x)", "k, m, km, mk"),
    wrong("!/create-failover-route", r"!/create-failover-route\("),
    Form("!/route-append(name=%, openai:a, google:b)", "openai:a, google:b", first=CREATED),
    Form("!/route-append(%, openai/a, google/b)", "openai:a, google:b", first=CREATED),
    Form("!/route-append(%, element=openai:a, element=google:b)", "openai:a, google:b", first=CREATED),
    Form("!/route-append(%, openai:c)", "openai:a, google:b, openai:c", first=FILLED),
    Form("!/route-append(%, openai:a)", r"% \(policy m\): openai:a"),
    wrong("!/route-append(name=%, openai:a)", r"!/create-failover-route\(%"),
    wrong("!/route-append(name=%, openai:c, nosuch:m)", "nosuch:m", FILLED),
    wrong("!/route-append(%)", "!/route-append"),
    Form("!/route-prepend(name=%, openai:x, openai:y)", "openai:x, openai:y, openai:a, google:b", first=FILLED),
    Form("!/route-prepend(%, openai/x, element=openai:y)", "openai:x, openai:y, openai:a, google:b", first=FILLED),
    wrong("!/route-prepend(name=%, nosuch:m)", "nosuch:m", FILLED),
    Form("!/route-list(name=%)", r"^% \(policy m\): openai:a, google:b$", first=FILLED),
    Form("!/route-list(%)", r"^% \(policy m\): openai:a, google:b$", first=FILLED),
    Form("!/route-list", r"(?m)^% \(policy m\): openai:a, google:b$", first=FILLED),
    wrong("!/route-list(%)", "unknown route %"),
    Form("!/list-failover-routes", "%:m", first=CREATED),
    wrong("!/list-failover-routes(x)", "!/list-failover-routes"),
    Form("!/route-clear(%)", "empty", first=FILLED),
    Form("!/route-clear(name=%)", "empty", first=FILLED),
    Form("!/route-list(%)", "empty", first=f"{FILLED} !/route-clear(%)"),
    wrong("!/route-clear(%)", "unknown route %"),
    Form("!/delete-failover-route(name=%)", "Deleted route %", first=FILLED),
    Form("!/delete-failover-route(%)", "Deleted route %", first=CREATED),
    wrong("!/delete-failover-route(%)", "unknown route %"),
    wrong("!/route-list(%)", "unknown route %", f"{CREATED} !/delete-failover-route(%)"),
]

LOCAL = [*GRAMMAR, *INFORMATION, *SETTINGS, *CHOICES, *PROJECTS, *MODES, *LOOPS]


def check(talk: Talk, form: Form) -> None:
    """Types the form and compares the reply, the session and what the provider heard."""
    name = f"r-{fresh_id()}"
    if form.first:
        prepared = talk.say(form.first.replace("%", name))
        assert "Usage" not in prepared.text, prepared.text
    reply = talk.say(form.typed.replace("%", name))
    assert reply.error is None
    assert re.search(form.says.replace("%", name), reply.text), reply.text
    if not form.says.startswith("(?m)^!/") and "help(" not in form.typed.lower():
        assert not re.search(r"(?m)^!/[a-z-]+: ", reply.text), reply.text
    assert (reply.stop, reply.tool_calls, reply.thinking) == ("stop", (), "")
    assert (reply.usage.input, reply.usage.output) == (0, 0)
    state = talk.state()
    expected = {key: value for key, value in form.values.items() if key != ONE_OFF}
    assert (state["values"], state["one_off"]) == (expected, form.values.get(ONE_OFF))
    assert calls(talk.scene) == 0


def turning(forms: list[Form]) -> list[Any]:
    """Each form in two surfaces of eight, one of them streamed, each surface with a quarter of the forms; the others take minutes."""
    return [
        pytest.param(
            form, client, stream, id=f"{form.label}-{name}", marks=() if (at + number) % 4 == 0 else pytest.mark.long
        )
        for number, form in enumerate(forms)
        for name, (at, (client, stream)) in zip(NAMES, _in_turn(), strict=True)
    ]


def _in_turn() -> list[tuple[int, tuple[Protocol, bool]]]:
    """The surfaces and their places: those of a client's two ways to be answered lie apart."""
    return [((at // 2 + at % 2) % 4, surface) for at, surface in enumerate(SURFACES)]


@pytest.mark.parametrize(("form", "client", "stream"), turning(LOCAL))
def test_a_message_with_only_a_command_is_answered_by_the_proxy(
    commanded: Scene, client: Protocol, stream: bool, form: Form
) -> None:
    check(Talk(commanded, client, stream), form)


@pytest.mark.parametrize(("form", "client", "stream"), turning(ROUTES))
def test_cmd_16_routes_are_edited_from_the_chat(commanded: Scene, client: Protocol, stream: bool, form: Form) -> None:
    check(Talk(commanded, client, stream), form)


def test_every_command_by_each_of_its_names_stands_in_the_tables() -> None:
    typed = " ".join(form.typed for form in (*LOCAL, *ROUTES)).replace("_", "-").lower()
    names = [name for command in COMMANDS for name in command.names]
    assert [name for name in names if not re.search(rf"!/{name}(?![a-z-])", typed)] == []


def test_cmd_10_every_example_of_the_help_works(changed: Scene) -> None:
    failed = []
    for example in [example for command in COMMANDS for example in command.examples]:
        talk = Talk(changed, "openai-chat")
        talk.say(
            "!/set(temperature=1, project=a, model=openai:x, default-interactive=true) !/create-failover-route(coding, m)"
        )
        reply = talk.say(f"!/{example}")
        name = example.partition("(")[0]
        if (name != "help" and reply.text.startswith(f"!/{name}: ")) or "Unknown" in reply.text or reply.error:
            failed.append((example, reply.text))
        talk.say("!/unset(default-interactive)")
    assert failed == []


@every_surface
def test_cmd_07_the_reply_is_a_valid_answer_of_the_surface(commanded: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(commanded, client, stream)
    first, second = talk.post("!/hello"), talk.post("!/hello")
    assert (first.status, first.headers["x-session-id"]) == (200, talk.session)
    ids, others = reply_ids(client, first, stream), reply_ids(client, second, stream)
    assert len(set(ids)) == len(set(others)) == 1
    match client:
        case "openai-chat":
            assert (ids[0], others[0]) == ("proxy_cmd_processed", "proxy_cmd_processed")
        case "openai-responses":
            assert ids[0] != others[0] and ids[0].startswith("resp_")
        case "anthropic-messages":
            assert ids[0] != others[0] and ids[0].startswith("msg_")
        case "gemini":
            assert ids[0] != others[0]
    if stream:
        kinds = [event if event == "[DONE]" else event.get("type", "chunk") for event in data_of(first)]
        expected: list[str] = {
            "openai-chat": ["[DONE]"],
            "openai-responses": ["response.output_item.done", "response.completed"],
            "anthropic-messages": ["content_block_stop", "message_delta", "message_stop"],
            "gemini": ["chunk"],
        }[client]
        assert kinds[-len(expected) :] == expected
    assert calls(commanded) == 0


@every_surface
def test_cmd_07_the_model_of_the_reply_is_the_effective_one(commanded: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(commanded, client, stream)
    answer = talk.post("!/model(openai:chosen-model)")
    assert b'"chosen-model"' in answer.body


@every_surface
def test_cmd_07_local_replies_are_in_the_history_but_not_in_the_usage(
    commanded: Scene, client: Protocol, stream: bool
) -> None:
    talk = Talk(commanded, client, stream)
    talk.say("!/hello")
    state = talk.state()
    [entry] = state["history"]
    assert (entry["handler"], entry["prompt"], entry["status"]) == ("proxy", "!/hello", 200)
    assert (state["totals"]["requests"], state["totals"]["prompt"], state["totals"]["cost"]) == (0, 0, 0)
    rows = commanded.proxy.get("/v1/usage/recent?limit=1000").json
    assert not [row for row in rows["data"] if row["session"] == talk.session]
