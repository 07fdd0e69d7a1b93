"""S-12: how the agent is started, and what it does not get."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil
import pytest

from llm_proxy.backends.acp.process import clean_environment
from llm_proxy.conversation.fault import FaultError
from tests.backends.acp.house import House, ask, call, say


async def test_its_environment_holds_no_key_and_nothing_of_ours(house: House) -> None:
    house.script([say("ok")])
    secrets = {
        "OPENAI_API_KEY": "sk-canary", "GEMINI_API_KEY": "canary", "LLM_PROXY__AUTH__KEYS": "canary", "AWS_SECRET_ACCESS_KEY": "canary",
        "NODE_OPTIONS": "--require canary", "LD_PRELOAD": "canary", "PYTHONSTARTUP": "canary", "SSH_AUTH_SOCK": "canary",
    }  # fmt: skip
    await ask(house.backend(environ={**house.environ, **secrets, "LC_ALL": "C.UTF-8"}), "Hi")
    (start,) = house.starts
    assert "canary" not in str(start)
    assert start["environ"]["HOME"] == str(house.home)
    assert start["environ"]["LC_ALL"] == "C.UTF-8"
    assert start["environ"]["TERM"] == "dumb"


def test_programs_are_not_looked_for_in_the_project_directory() -> None:
    assert (
        clean_environment({"PATH": os.pathsep.join([".", "/usr/bin", "", "bin", "/bin"])})["PATH"]
        == f"/usr/bin{os.pathsep}/bin"
    )


async def test_the_executable_is_not_looked_for_in_the_current_directory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house.bin)
    backend = house.backend(executable="gemini", environ={"PATH": os.pathsep.join([".", "", str(house.project)])})
    assert not backend.usable


@pytest.mark.parametrize(
    "model", ["-y", "--yolo", "--sandbox=false", "a b", "", "a\nb", "$(id)", "a;id", "\u00e9", "x" * 200]
)
async def test_a_model_is_no_option_of_the_command_line(house: House, model: str) -> None:
    with pytest.raises(FaultError) as caught:
        await house.backend().open(call("Hi", model=model))
    assert caught.value.fault.status_code == 400
    assert house.starts == []


async def test_names_with_blanks_and_signs_are_no_shell(house: House) -> None:
    place = house.place / "a b; touch x $(touch y) 'z"
    place.mkdir()
    house.script([say("ok")])
    await ask(house.backend(), "Hi", directory=str(place))
    assert house.starts[0]["cwd"] == str(place.resolve())
    assert list(place.iterdir()) == []


def _threads(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.NoSuchProcess:
        return 0


async def test_it_is_bounded(house: House) -> None:
    house.script([say("ok")])
    backend = house.backend()
    await ask(backend, "Hi")
    (pid,) = (pid for pid, command in house.left().items() if house.executable.name in command.split()[2])
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= 8192
    assert resource.prlimit(pid, resource.RLIMIT_AS)[1] <= 2**40
    assert resource.prlimit(pid, resource.RLIMIT_DATA)[1] <= 16 * 2**30
    running = sum(_threads(process) for process in psutil.process_iter())
    assert resource.prlimit(pid, resource.RLIMIT_NPROC)[1] <= running + 1024 + 200  # others start and end meanwhile


async def test_it_inherits_no_file_of_ours(house: House, tmp_path: Path) -> None:
    house.script([say("ok")])
    backend = house.backend()
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        await ask(backend, "Hi")
        held = [os.readlink(entry) for pid in house.left() for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert held
    assert not [name for name in held if name.endswith("/ours")]


async def test_an_executable_that_is_no_program_is_said_so(house: House) -> None:
    house.executable.write_text("no program")
    with pytest.raises(FaultError) as caught:
        await house.backend().open(call("Hi"))
    assert caught.value.fault.status_code == 503
    assert str(house.executable) in caught.value.fault.message
