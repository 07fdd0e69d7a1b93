"""An agent that does what a script says: run as the executable of the back end, with the standard library alone.

Beside it lie `script.json` (see `play`) and `journal.jsonl`, into which it writes how it was started and every message that it gets.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(globals()["PLACE"])  # given by the executable that runs this
JOURNAL = HERE / "journal.jsonl"


def note(**members: Any) -> None:
    with JOURNAL.open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(members) + "\n")


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        note(ended="end of input")
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    note(got=message)
    return message


def play(steps: list[dict[str, Any]], id: object) -> None:
    """`update`: a notification · `ask`: [method, params], the answer goes into the journal · `raw`: a line as it is · `spawn`: a child,
    `apart` from our group · `flee`: so many daemons · `attempt`: these ways of `escapes.py` · `work`: what agents do ·
    `wait`: for a message of that method · `exit`: at once · `error`, `result`: of the prompt.
    """
    asked = 0
    for step in steps:
        match step:
            case {"update": update}:
                send({"method": "session/update", "params": {"sessionId": "s1", "update": update}})
            case {"ask": [method, params]}:
                asked += 1
                send({"id": f"a{asked}", "method": method, "params": {"sessionId": "s1", **params}})
                receive()
            case {"raw": text}:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
            case {"spawn": apart}:
                # It leaves our group and session, and forgets its parent, where it is to be `apart`.
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", SLEEPER, str(HERE)], start_new_session=apart, close_fds=apart
                )
                note(child=child.pid)
            case {"work": _}:
                note(work={name: work(act) for name, act in WORK.items()})
            case {"flee": number}:
                for _ in range(number):
                    flee()
            case {"attempt": ways, "given": given}:
                escapes = runpy.run_path(str(Path(__file__).with_name("escapes.py")))
                for way in ways:
                    if (child := os.fork()) == 0:  # what it does to itself is its own
                        note(way=way, gave=escapes["attempt"](way, given))
                        os._exit(0)
                    os.waitpid(child, 0)
            case {"wait": method}:
                while receive().get("method") != method:
                    pass
            case {"exit": status}:
                os._exit(status)
            case {"stall": seconds}:
                time.sleep(seconds)
            case {"error": error}:
                send({"id": id, "error": error})
                return
            case {"result": result}:
                send({"id": id, "result": result})
                return
    send({"id": id, "result": {"stopReason": "end_turn"}})


def make_folder_and_file() -> None:
    os.mkdir("made")
    Path("made", "temporary").write_text("ok")
    os.replace("made/temporary", "made/file")


WORK = {
    "temporary": lambda: Path(os.environ["TMPDIR"], "file").write_text("ok"),
    "cache": lambda: os.makedirs(os.environ["XDG_CACHE_HOME"]),
    "project": make_folder_and_file,
    "state": lambda: (HERE / "own").write_text("ok"),
    "program": lambda: Path(sys.argv[0]).read_text(),
    "processes": lambda: subprocess.run("cat /proc/self/status | tail -1 > /dev/null", shell=True, check=True),
}


def work(act: Any) -> str:
    try:
        act()
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "ok"


SLEEPER = "import time; time.sleep(60)"
STUBBORN = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; print(end='', flush=True); time.sleep(60)"


def flee() -> None:
    """A daemon as they are made: of another session, adopted by another parent, without our environment, deaf to polite signals."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", STUBBORN, str(HERE)], {})
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    script = json.loads((HERE / "script.json").read_text())
    note(argv=sys.argv[1:], cwd=os.getcwd(), environ=dict(os.environ), pid=os.getpid(), group=os.getpgrp())
    if sys.argv[1] in script.get("unknown_flags", []):
        sys.stderr.write(f"Unknown argument: {sys.argv[1]}\n")
        sys.exit(1)
    if script.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logins = script.get("login_after", 0)
    prompts = iter(script.get("prompts", []))
    while True:
        message = receive()
        id, method = message.get("id"), message.get("method")
        match method:
            case "initialize":
                if text := script.get("prints"):
                    sys.stdout.write(text + "\n")
                    sys.stdout.flush()
                if script.get("mute"):
                    time.sleep(60)
                send({"id": id, "result": {"protocolVersion": script.get("version", 1), **script.get("about", {})}})
            case "session/new" if logins:
                send({"id": id, "error": {"code": -32000, "message": "Authentication required"}})
            case "authenticate":
                logins -= 1
                send({"id": id, "result": {}})
            case "session/new":
                send({"id": id, "result": {"sessionId": "s1"}})
            case "session/prompt":
                play(next(prompts, []), id)


main()
