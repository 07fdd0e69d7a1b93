"""A scripted agent with its project directory and the back end that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.backends.acp.backend import AcpBackend
from llm_proxy.backends.acp.sandbox import Mode
from llm_proxy.backends.base import Call
from llm_proxy.backends.transport import Response
from tests.backends.settings import backend_settings

SCRIPTED = Path(__file__).with_name("scripted_agent.py")
Step = dict[str, Any]


class CallOfSession(Call, frozen=True, kw_only=True):
    """A call that says whose it is."""

    session: str = ""
    directory: str = ""


def say(text: str) -> Step:
    return {"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}}


def think(text: str) -> Step:
    return {"update": {"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": text}}}


OPTIONS = [
    {"optionId": "for-ever", "name": "Always", "kind": "allow_always"},
    {"optionId": "once", "name": "Allow", "kind": "allow_once"},
    {"optionId": "no", "name": "Reject", "kind": "reject_once"},
]


def permission(**card: Any) -> Step:
    call = {"toolCallId": "c1", "status": "pending", "content": [], "locations": [], **card}
    return {"ask": ["session/request_permission", {"toolCall": call, "options": OPTIONS}]}


class House:
    """`script` members as in `scripted_agent.py`; `options` of the back end. What the agent writes down is its own state, at home, which
    it may write in the sandbox too. `sandbox`: of its back ends unless they say otherwise; `means`: where bubblewrap is looked for.
    """

    def __init__(self, place: Path, sandbox: Mode = "auto", path: str | None = None) -> None:
        self.place = place
        self.sandbox = sandbox
        self.path = os.environ["PATH"] if path is None else path
        self.bin = place / "programs"
        self.project = place / "project"
        self.home = place / "home"
        self.state = self.home / ".gemini"
        self.bin.mkdir()
        self.project.mkdir()
        self.state.mkdir(parents=True)
        self.executable = self.bin / "gemini"
        script = self.bin / SCRIPTED.name
        for source in (SCRIPTED, SCRIPTED.with_name("escapes.py")):
            shutil.copyfile(source, self.bin / source.name)
        run = f"runpy.run_path({str(script)!r}, {{'PLACE': {str(self.state)!r}}})"
        self.executable.write_text(f"#!{sys.executable} -ISu\nimport runpy\n{run}\n")
        self.executable.chmod(0o700)
        self.backends: list[AcpBackend] = []
        self.script()

    def script(self, *prompts: list[Step], **members: Any) -> None:
        (self.state / "script.json").write_text(json.dumps({"prompts": prompts, **members}))

    def backend(self, **options: Any) -> AcpBackend:
        settings = {
            "executable": str(self.executable),
            "project_dir": self.project,
            "dangerous": lambda command: "rm -rf" in command,
            "sandbox": self.sandbox,
            "environ": self.environ,
        }
        instance = backend_settings("gemini-cli-acp", mentioned=True)
        backend = AcpBackend(instance, **{**settings, **options})
        self.backends.append(backend)
        return backend

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "PATH": self.path}

    @property
    def journal(self) -> list[dict[str, Any]]:
        try:
            text = (self.state / "journal.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def left(self) -> dict[int, str]:
        """Living processes of the agents, launchers and children included: they all have our place in their command line, and numbers of
        their own where they have a namespace of their own.
        """
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if str(self.place) + "/" in command and living(int(entry.name)):
                    found[int(entry.name)] = command
        return found

    def alive(self, start: int) -> bool:
        """Is anything left of the agent that was started as that of this number."""
        mark = f"LLM_PROXY_AGENT={self.starts[start]['environ']['LLM_PROXY_AGENT']}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and living(int(entry.name)):
                    return True
        return False

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.journal if "argv" in entry]

    def got(self, method: str) -> list[dict[str, Any]]:
        """The parameters of messages of `method` that the agent got."""
        return [entry["got"].get("params") for entry in self.journal if entry.get("got", {}).get("method") == method]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """What the agent got as answers to its own requests."""
        return [entry["got"] for entry in self.journal if "got" in entry and "method" not in entry["got"]]

    def told(self) -> list[str]:
        """The texts of the prompts."""
        return [
            block["text"]
            for prompt in self.got("session/prompt")
            for block in prompt["prompt"]
            if block["type"] == "text"
        ]


def call(*messages: Any, stream: bool = False, model: str = "gemini-2.5-flash", **members: Any) -> CallOfSession:
    """A text is what a user says; pairs are (role, content)."""
    given = [("user", message) if isinstance(message, str) else message for message in messages]
    body: dict[str, Any] = {"model": model, "messages": [{"role": role, "content": content} for role, content in given]}
    body |= members.pop("more", {})
    if stream:
        body["stream"] = True
    members.setdefault("session", "one")
    return CallOfSession(dialect="openai-chat", model=model, body=msgspec.json.encode(body), stream=stream, **members)


async def whole(response: Response) -> dict[str, Any]:
    body = msgspec.json.decode(await response.read())
    response.close()
    assert isinstance(body, dict)
    return body


async def ask(backend: AcpBackend, *messages: Any, **members: Any) -> dict[str, Any]:
    """The whole answer's choice."""
    body = await whole(await backend.open(call(*messages, **members)))
    choice: dict[str, Any] = body["choices"][0]
    return choice


def frames(data: bytes) -> list[Any]:
    found = [frame.removeprefix(b"data: ") for frame in data.split(b"\n\n") if frame]
    return [frame.decode() if frame == b"[DONE]" else msgspec.json.decode(frame) for frame in found]


def living(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes between opening and reading
        return False
    return state not in (b"Z", b"X")


async def until(condition: Any, within: float = 10.0) -> None:
    """Waits for what happens in another process."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
