"""The Gemini CLI itself as a back end: an OpenAI client asks, the CLI thinks, edits files and is cancelled (BE-18).

Its model is a scripted Gemini API on loopback, which the CLI finds in the settings of a home of its own. Runs on Linux only,
where /proc tells which processes are left.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from llm_proxy.backends.acp.sandbox import Sandbox
from tests.agents.clients import GEMINI_CLI, KEY, Setting
from tests.agents.errand import CONTENT, THOUGHT, Call, Say, Tool
from tests.agents.programs import Running, environment, install_npm, started
from tests.agents.providers import PROVIDERS
from tests.agents.proxy import START_SECONDS
from tests.support.upstream import Hang, Received, Reply, upstream_in_thread

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc to see which processes are left"),
]

_SOURCES: Final = Path(__file__).resolve().parents[2] / "src"
MODEL: Final = "gemini-2.5-flash"
WRITE: Final = "Please create errand.txt."
EDIT: Final = "Please turn one into two in notes.txt."
OUTSIDE: Final = "Please make a file beside the project."
WAIT: Final = "Please think for a long time."
RUN: Final = "Please run the long command."
WHERE: Final = "Please answer from where you are."
DONE: Final = "All of it is done."
_CLI_SECONDS: Final = 60.0  # two node processes start, one after the other, on a machine that has other work


@dataclass
class Model:
    """The scripted Gemini API: does what the last user's words ask for, in the project directory of `folder`."""

    folder: Path
    asked: list[Received] = field(default_factory=list)
    refusal: Reply | None = None
    """Its answer to whatever it is asked."""

    def answer(self, request: Received) -> Reply:
        provider = PROVIDERS["gemini"]
        ask = provider.read(request)
        if ask is None:
            return provider.serve_other(request)
        if self.refusal is not None:
            return self.refusal
        last = request.json["contents"][-1]
        if any("functionResponse" in part for part in last["parts"]):
            return provider.write(ask, Say(DONE))
        said = "\n".join(part.get("text", "") for part in last["parts"])
        self.asked.append(request)
        if WAIT in said:
            begun = provider.write(ask, Say("Let me think."))
            assert begun.steps is not None
            return Reply.sse(*begun.steps[:-1], Hang())
        for wanted, (name, arguments) in self._calls().items():
            if wanted in said:
                assert name in {tool.name for tool in ask.tools}
                called = provider.write(ask, Call(Tool(name, {}), arguments))
                assert called.steps is not None
                return Reply.sse(called.steps[0], *called.steps)  # it thinks twice
        return provider.write(ask, Say(f"Here: {said}"))

    def _calls(self) -> dict[str, tuple[str, dict[str, Any]]]:
        notes, new = self.folder / "notes.txt", self.folder / "errand.txt"
        edit = {"file_path": str(notes), "old_string": "one", "new_string": "two", "instruction": "Turn one into two."}
        return {
            WRITE: ("write_file", {"file_path": str(new), "content": CONTENT}),
            EDIT: ("replace", edit),
            OUTSIDE: ("run_shell_command", {"command": "touch ../beside.txt", "description": "Make a file"}),
            RUN: ("run_shell_command", {"command": "sleep 98765", "description": "Wait"}),
        }


@dataclass
class Scene:
    """A proxy whose default back end is the real CLI, working in `project`."""

    client: openai.OpenAI
    model: Model
    project: Path
    process: Running
    home: Path

    def ask(self, *said: str, session: str = "one") -> tuple[str, str]:
        """Streams the answer to a conversation in which user and assistant take turns: its text and its reasoning."""
        text, reasoning = "", ""
        with self.stream(*said, session=session) as chunks:
            for chunk in chunks:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        return text, reasoning

    def stream(self, *said: str, session: str = "one") -> openai.Stream[Any]:
        roles = ("user", "assistant")
        messages: Any = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
        return self.client.chat.completions.create(
            model=f"gemini-cli-acp:{MODEL}",
            messages=messages,
            stream=True,
            extra_headers={"x-session-id": session},
        )

    def agents(self) -> dict[int, str]:
        """Living processes that stem from an agent, by the HOME that all of them inherit; the proxy itself is not among them."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                environ = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            ours = f"HOME={self.home}".encode() in environ and int(entry.name) != self.process.process.pid
            if ours and state not in (b"Z", b"X"):
                found[int(entry.name)] = command
        return found


def until(condition: Callable[[], object], within: float) -> float:
    """Waits for what happens in another process; gives the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def scene_in(place: Path, refusal: Reply | None = None, **options: Any) -> Iterator[Scene]:
    """`options` are the back end's, `refusal` its model's."""
    commands = install_npm()
    home, project = place / f"home-{secrets.token_hex(4)}", place / "project"
    project.mkdir()
    (project / "notes.txt").write_text("one\n")
    model = Model(project, refusal=refusal)
    with upstream_in_thread(model.answer) as upstream:
        _write_home(home, upstream.url)
        backend = {"gemini_cli_executable": str(commands / "gemini"), "project_dir": str(project), "model": MODEL}
        config = place / "config.yaml"
        config.write_text(json.dumps({"backends": {"gemini-cli-acp": backend | options}}))
        variables = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY, "PYTHONPATH": str(_SOURCES)}
        command = [sys.executable, "-m", "llm_proxy", "--port", "0", "--config", str(config)]
        with started(command, place, environment(home, variables, commands)) as running:
            found = re.search(r"http://[\w.]+:\d+", running.line_with("OpenAI tools", START_SECONDS))
            assert found is not None
            with openai.OpenAI(base_url=f"{found[0]}/v1", api_key=KEY, max_retries=0, timeout=_CLI_SECONDS) as client:
                scene = Scene(client, model, project, running, home)
                yield scene
        assert scene.agents() == {}


def _write_home(home: Path, url: str) -> None:
    """The CLI's own ways to be pointed somewhere: its settings, and the variables in `.gemini/.env`, which it reads in trusted folders."""
    files = dict(GEMINI_CLI.files(Setting(url, MODEL, home, "")))
    settings = json.loads(files[".gemini/settings.json"])
    settings["security"]["folderTrust"] = {"enabled": False}
    files[".gemini/settings.json"] = json.dumps(settings)
    files[".gemini/.env"] = f"GEMINI_API_KEY={KEY}\nGOOGLE_GEMINI_BASE_URL={url}\n"
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_in(tmp_path_factory.mktemp("acp")) as scene:
        yield scene


def test_it_writes_a_file_and_streams_its_thoughts_and_messages(scene: Scene) -> None:
    text, reasoning = scene.ask(WRITE)
    assert (scene.project / "errand.txt").read_text() == CONTENT, text
    assert reasoning == f"{THOUGHT}\n\n{THOUGHT}"
    assert DONE in text
    assert "errand.txt" in text.partition(DONE)[0]


def test_it_edits_a_file_and_remembers_what_was_said(scene: Scene) -> None:
    text, _ = scene.ask("Good morning.", session="edits")
    before = scene.agents()
    assert scene.ask("Good morning.", text, EDIT, session="edits")[0].endswith(DONE)
    assert (scene.project / "notes.txt").read_text() == "two\n"
    assert scene.agents() == before


def test_a_command_that_leads_out_of_the_project_directory_is_refused(scene: Scene) -> None:
    text, _ = scene.ask(OUTSIDE, session="outside")
    assert "touch ../beside.txt – not allowed]" in text
    assert text.endswith(DONE)
    assert not (scene.project.parent / "beside.txt").exists()


def test_project_dir_switches_directories(scene: Scene, tmp_path: Path) -> None:
    scene.ask(WHERE, session="moves")
    assert str(scene.project) in scene.model.asked[-1].body.decode()
    there = tmp_path / "elsewhere"
    there.mkdir()
    scene.ask(f"!/project-dir({there})\n{WHERE}", session="moves")
    assert str(there) in scene.model.asked[-1].body.decode()


@pytest.mark.parametrize("number", range(3))
def test_a_client_that_leaves_cancels_the_model_within_a_second_and_no_process_remains(
    scene: Scene, number: int
) -> None:
    others = scene.agents()
    chunks = scene.stream(WAIT, session=f"leaves-{number}")
    next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content)
    assert scene.agents() != others
    request = scene.model.asked[-1]
    left = time.monotonic()
    chunks.close()
    assert request.closed.wait(5.0) - left < 1.0
    until(lambda: scene.agents() == others, 6.0)


def test_a_command_that_runs_ends_with_the_client(scene: Scene) -> None:
    others = scene.agents()
    chunks = scene.stream(RUN, session="runs")
    next(chunk for chunk in chunks if chunk.choices and "sleep 98765" in (chunk.choices[0].delta.content or ""))
    until(lambda: any("sleep 98765" in command for command in scene.agents().values()), 20.0)
    chunks.close()
    until(lambda: not any("sleep 98765" in command for command in scene.agents().values()), 1.0)
    until(lambda: scene.agents() == others, 6.0)


@pytest.mark.parametrize(("accepts", "sandbox"), [(True, "off"), (True, "required"), (False, "required")])
def test_auto_accept_allows_all_or_nothing_and_the_sandbox_holds_in_any_case(
    tmp_path: Path, accepts: bool, sandbox: str
) -> None:
    if sandbox == "required" and Sandbox("it", "auto", {"PATH": os.environ["PATH"]}).means == "none":
        pytest.skip("this host offers neither bubblewrap nor Landlock")
    with scene_in(tmp_path, auto_accept=accepts, sandbox=sandbox) as scene:
        written, _ = scene.ask(WRITE)
        assert (scene.project / "errand.txt").exists() is accepts
        assert ("not allowed" in written) is not accepts
        scene.ask(OUTSIDE, session="outside")
        assert (tmp_path / "beside.txt").exists() is (accepts and sandbox == "off")


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (429, "You exceeded your current quota.", 429),
        (400, "Invalid value at 'contents'.", 400),
        (400, "API key not valid. Please pass a valid API key.", 502),
        (404, "models/x is not found for API version v1beta", 502),
    ],
)
def test_what_its_model_refuses_is_told_with_a_sensible_status(
    tmp_path: Path, status: int, said: str, expected: int
) -> None:
    limit = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDay"}]}
    error = {"code": status, "message": said, "status": "REFUSED", "details": [limit] if status == 429 else []}
    body = json.dumps({"error": error}).encode()
    with scene_in(tmp_path, Reply(status, [("content-type", "application/json")], body)) as scene:
        with pytest.raises(openai.APIStatusError) as caught:
            scene.ask(WRITE)
        assert caught.value.status_code == expected
        if status == 429:
            assert int(caught.value.response.headers["retry-after"]) >= 1


def test_without_a_google_login_the_error_names_the_command_at_once(tmp_path: Path) -> None:
    with scene_in(tmp_path) as scene:
        _choose_login(scene.home, "oauth-personal")
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as caught:
            scene.ask(WRITE)
        assert time.monotonic() - began < 30.0
        assert caught.value.status_code == 502
        assert caught.value.response.json()["detail"]["code"] == "gemini-cli-acp_credentials_invalid"
        assert "gemini` in the project directory and log in" in str(caught.value)
        until(lambda: scene.agents() == {}, 6.0)


def test_without_an_api_key_a_google_login_is_neither_used_nor_forgotten(tmp_path: Path) -> None:
    with scene_in(tmp_path) as scene:
        (scene.home / ".gemini" / ".env").unlink()
        login = scene.home / ".gemini" / "oauth_creds.json"
        login.write_text('{"access_token": "a", "refresh_token": "b", "expiry_date": 1}')
        with pytest.raises(openai.InternalServerError) as caught:
            scene.ask(WRITE)
        assert caught.value.response.json()["detail"]["code"] == "gemini-cli-acp_credentials_invalid"
        assert login.exists()
        assert scene.model.asked == []


def _choose_login(home: Path, name: str) -> None:
    path = home / ".gemini" / "settings.json"
    settings = json.loads(path.read_text())
    settings["security"]["auth"]["selectedType"] = name
    path.write_text(json.dumps(settings))
