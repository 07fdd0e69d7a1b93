"""S-12: ways out of the sandbox, all closed; where it is wanted and what it does to those who work in it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import runpy
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from llm_proxy.backends.acp import sandbox
from llm_proxy.backends.acp.places import without
from llm_proxy.backends.acp.sandbox import Sandbox
from llm_proxy.conversation.fault import FaultError
from tests.backends.acp.house import House, ask, call, say, until

if sys.platform != "linux":
    pytest.skip("bubblewrap and Landlock are Linux's", allow_module_level=True)

from llm_proxy.backends.acp.launcher import can_filter, landlock_version

ESCAPES: Final = Path(__file__).with_name("escapes.py")
WAYS: Final[list[str]] = list(runpy.run_path(str(ESCAPES))["WAYS"])
ROOT: Final = os.geteuid() == 0
MEANS: Final = ("bubblewrap", "landlock")

# What the proxy keeps from an agent without any sandbox too.
HELD_WITHOUT: Final = {
    "secrets_in_its_environment", "secrets_in_the_environment_of_whom_it_stems_from", "inherited_descriptors",
}  # fmt: skip
OF_ROOT: Final = {"read_the_systems_passwords", "become_somebody_else", "make_a_device"}
# Which hosts do not even need a sandbox for it: Yama, closed user namespaces.
OF_SOME_HOSTS: Final = {
    "trace_a_neighbour",
    "memory_of_a_neighbour_by_a_call",
    "mount_what_is_outside_into_the_project",
}
OPEN_UNDER_LANDLOCK: Final = {"change_the_mode_of_a_file_outside", "change_the_time_of_a_file_outside"}
SINCE: Final = {"truncate_a_file_outside": 3, "signal_a_neighbour": 6, "signal_the_launcher": 6}
SOCKETS: Final = {"a_socket_with_a_path", "a_socket_without_a_path", "a_datagram_by_a_pair_of_sockets"}

NEIGHBOUR: Final = """
import ctypes, sys, time
kept = ctypes.create_string_buffer(b"canary")
print(ctypes.addressof(kept), flush=True)
time.sleep(600)
"""


def need(means: str) -> None:
    if means == "bubblewrap" and sandbox._working_bubblewrap(os.environ["PATH"]) is None:
        pytest.skip("bubblewrap is not installed here, or this host forbids it")
    if means == "landlock" and landlock_version() == 0:
        pytest.skip("this kernel has no Landlock")


@contextmanager
def host(means: str) -> Iterator[None]:
    """A host that offers that and nothing better."""
    with pytest.MonkeyPatch.context() as patch:
        if means != "bubblewrap":
            patch.setattr(sandbox, "_working_bubblewrap", lambda path: None)
        if means == "none":
            patch.setattr(sandbox, "_landlock", lambda: 0)
        yield


@contextmanager
def laid_out(house: House) -> Iterator[dict[str, Any]]:
    """What an agent might be after: files, a neighbour of the same user, sockets, shared memory."""
    outside, home = house.place / "outside", house.home
    data, config = home / ".local" / "share" / "llm-proxy", house.place / "settings" / "config.yaml"
    files = [outside / way for way in WAYS] + [data / "state.sqlite3", config]
    files += [home / name for name in (".ssh/id_ed25519", ".aws/credentials", ".bashrc")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("canary")
        file.chmod(0o600)
    shared = Path("/dev/shm", f"llm-proxy-test-{secrets.token_hex(6)}")
    abstract = f"llm-proxy-test-{secrets.token_hex(6)}"
    with ExitStack() as stack:
        shared.write_text("canary")
        stack.callback(shared.unlink)
        neighbour = subprocess.Popen(
            [sys.executable, "-ISc", NEIGHBOUR], env={"SECRET": "canary"}, stdout=subprocess.PIPE, text=True
        )
        stack.callback(neighbour.wait)
        stack.callback(neighbour.kill)
        assert neighbour.stdout is not None
        stack.callback(neighbour.stdout.close)
        address = int(neighbour.stdout.readline())
        short = Path(f"/tmp/llm-proxy-test-{secrets.token_hex(4)}")  # sockets have short names
        short.mkdir(mode=0o700)
        stack.callback(short.rmdir)
        for name in (str(short / "s"), "\0" + abstract):
            _greet(stack, name)
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(str(short / "d"))
        stack.callback((short / "d").unlink)
        stack.callback((short / "s").unlink)
        yield {
            "outside": str(outside), "home": str(home), "data": str(data), "config": str(config), "proxy": os.getpid(),
            "neighbour": neighbour.pid, "address": address, "shared": shared.name, "abstract": abstract,
            "socket": str(short / "s"), "datagrams": str(short / "d"), "program": str(house.executable),
        }  # fmt: skip


def _greet(stack: ExitStack, name: str) -> None:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(name)
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.sendall(b"canary")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stack.callback(thread.join, 5)
    stack.callback(listener.shutdown, socket.SHUT_RDWR)


def seen(given: dict[str, Any]) -> dict[str, tuple[bytes, int, int]]:
    """All that must stay as it is: contents, modes, times."""
    found = {}
    for top in (given["outside"], given["home"], str(Path(given["config"]).parent)):
        for path in sorted(Path(top).rglob("*")):
            about = path.lstat()
            if ".gemini" not in path.parts:
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (content, about.st_mode, about.st_mtime_ns if content else 0)
    return found


async def tries(house: House, given: dict[str, Any], walls: Any) -> dict[str, str]:
    """Way -> what it got."""
    house.script([{"attempt": WAYS, "given": given}, say("done")])
    environ = {**house.environ, "OPENAI_API_KEY": "canary", "LLM_PROXY__AUTH__KEYS": "canary"}
    private = [Path(given["config"]).parent, Path(given["data"])]
    backend = house.backend(sandbox=walls, environ=environ, private=private, process_timeout=120.0)
    with (Path(given["outside"]) / "inherited_descriptors").open() as ours:
        os.set_inheritable(ours.fileno(), True)
        await ask(backend, "Hi")
    await backend.close()
    assert house.left() == {}
    return {entry["way"]: entry["gave"] for entry in house.journal if "way" in entry}


@pytest.fixture(scope="module", params=MEANS)
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    need(request.param)
    house = House(tmp_path_factory.mktemp("walls"))
    with laid_out(house) as given, host(request.param):
        before = seen(given)
        got = asyncio.run(tries(house, given, "required"))
        after = seen(given)
    if request.param == "landlock":
        changed = {name for name in before if after.get(name) != before[name]}
        assert {Path(name).name for name in changed} <= OPEN_UNDER_LANDLOCK
        before = {name: what for name, what in before.items() if name not in changed}
        after = {name: what for name, what in after.items() if name not in changed}
    assert after == before
    return request.param, got


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_out(tried: tuple[str, dict[str, str]], way: str) -> None:
    means, got = tried
    if means == "landlock":
        if way in OPEN_UNDER_LANDLOCK:
            pytest.skip("Landlock does not bound modes and times of files; bubblewrap does")
        if landlock_version() < SINCE.get(way, 1):
            pytest.skip(f"this kernel's Landlock is older than {SINCE[way]}")
        if way in SOCKETS and not can_filter():
            pytest.skip("sockets are not filtered on this machine's processor")
    assert got[way] == ""


@pytest.fixture(scope="module")
def without_walls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    house = House(tmp_path_factory.mktemp("open"))
    with laid_out(house) as given:
        return asyncio.run(tries(house, given, "off"))


@pytest.mark.parametrize("way", WAYS)
def test_without_the_sandbox_the_same_ways_are_open(without_walls: dict[str, str], way: str) -> None:
    if way in OF_ROOT and not ROOT:
        pytest.skip("only root could do that")
    if way == "raise_its_limits" and not resource_power():
        pytest.skip("only who has CAP_SYS_RESOURCE could do that")
    if way in OF_SOME_HOSTS and not ROOT:
        pytest.skip("many hosts forbid that to all who are not root")
    assert bool(without_walls[way]) is (way not in HELD_WITHOUT)


def resource_power() -> bool:
    held = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
    return bool(int(held, 16) & 1 << 24)


def test_there_are_thirty_ways_and_more() -> None:
    assert len(WAYS) >= 30


# ---- where it may work


@pytest.mark.parametrize(
    "place",
    ["/", "/etc", "/usr/lib", "/proc/self", "/tmp", "{home}", "{home}/.ssh", "{home}/.config/git", "{data}", "{data}/..", "{link}"],
)  # fmt: skip
async def test_it_is_not_started_in_the_system_at_home_or_among_credentials(house: House, place: str) -> None:
    data, link = house.home / "state" / "data", house.project / "link"
    link.symlink_to("/etc")
    for name in (".ssh", ".config/git", "state/data"):
        (house.home / name).mkdir(parents=True)
    chosen = place.format(home=house.home, data=data, link=link)
    with pytest.raises(FaultError) as caught:
        await house.backend(private=[data]).open(call("Hi", directory=chosen))
    assert caught.value.fault.status_code == 400
    assert "may not work in that directory" in caught.value.fault.message
    assert house.starts == []


async def test_it_works_in_a_folder_at_home(house: House) -> None:
    place = house.home / "src" / "thing"
    place.mkdir(parents=True)
    house.script([say("ok")])
    await ask(house.backend(), "Hi", directory=str(place))
    assert house.starts[0]["cwd"] == str(place.resolve())


@pytest.mark.parametrize("means", MEANS)
async def test_what_it_needs_is_there(house: House, means: str) -> None:
    need(means)
    house.script([{"work": True}, say("ok")])
    with host(means):
        await ask(house.backend(sandbox="required"), "Hi")
    (work,) = [entry["work"] for entry in house.journal if "work" in entry]
    assert work == {
        "temporary": "ok",
        "project": "ok",
        "state": "ok",
        "program": "ok",
        "processes": "ok",
        "cache": "ok",
    }
    assert (house.project / "made" / "file").read_text() == "ok"
    for backend in house.backends:
        await backend.close()
    (start,) = house.starts
    assert not Path(start["environ"]["TMPDIR"], "file").exists()
    assert "XDG_RUNTIME_DIR" not in start["environ"]


# ---- the proxy's files in the project


@pytest.mark.parametrize("means", MEANS)
async def test_the_proxys_files_in_the_project_are_hidden_or_said_to_show(
    house: House, means: str, caplog: pytest.LogCaptureFixture
) -> None:
    need(means)
    config = house.project / "config.yaml"
    config.write_text("canary")
    given = {"outside": str(house.project), "config": str(config), "proxy": os.getpid()}
    ways = ["read_the_proxys_configuration"]
    house.script([{"attempt": ways, "given": given}, {"ask": ["fs/read_text_file", {"path": str(config)}]}, say("ok")])
    with host(means), caplog.at_level(logging.WARNING):
        backend = house.backend(private=[config])
        await ask(backend, "Hi")
        (got,) = [entry["gave"] for entry in house.journal if "way" in entry]
        if means == "bubblewrap":
            assert got == ""
            assert caplog.messages == []
        else:
            assert caplog.messages == [
                f"gemini-cli-acp: {config} lies in the project directory, where Landlock cannot hide it from the agent; "
                "move it, or install bubblewrap"
            ]
            with pytest.raises(FaultError) as caught:
                await house.backend(private=[config], sandbox="required").open(call("Hi"))
            assert caught.value.fault.status_code == 503
    assert house.answers[0]["error"]["message"] == "The path belongs to the proxy."
    assert config.read_text() == "canary"


def test_a_directory_with_something_hidden_is_given_by_its_entries(tmp_path: Path) -> None:
    for name in ("a/b/secret", "a/b/other", "a/c", "d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    here = str(tmp_path.resolve())
    hidden = [f"{here}/a/b/secret", f"{here}/nowhere", f"{here}/d"]
    assert sorted(without([f"{here}/a", f"{here}/d", f"{here}/d/e"], hidden)) == [f"{here}/a/b/other", f"{here}/a/c"]


# ---- hosts that offer nothing


async def test_a_host_without_means_is_said_so_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.script([say("ok")])
    with host("none"), caplog.at_level(logging.WARNING):
        backend = house.backend()
        for session in ("one", "two"):
            await ask(backend, "Hi", session=session)
    assert len(caplog.messages) == 1
    assert "runs without a sandbox" in caplog.messages[0]
    assert len(house.starts) == 2


async def test_where_a_sandbox_is_required_there_is_no_agent_without_one(house: House) -> None:
    with host("none"), pytest.raises(FaultError) as caught:
        await house.backend(sandbox="required").open(call("Hi"))
    assert caught.value.fault.status_code == 503
    assert "install bubblewrap" in caught.value.fault.message
    assert house.starts == []


async def test_off_says_nothing_and_bounds_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.script([say("ok")])
    with caplog.at_level(logging.WARNING):
        await ask(house.backend(sandbox="off"), "Hi", directory=str(house.home))
    assert caplog.messages == []
    assert house.starts[0]["cwd"] == str(house.home.resolve())


# ---- the launcher alone


def _order(**members: Any) -> str:
    order = {"temporary": "", "read": None, "write": None, "lonely": False, "filtered": False, "processes": 1024}
    return json.dumps(order | members)


def _launcher(order: str, *command: str, python: str = sys.executable, **options: Any) -> subprocess.Popen[bytes]:
    script = options.pop("script", str(Path(sandbox.__file__).with_name("launcher.py")))
    return subprocess.Popen([python, "-I", "-S", script, order, *command], **options)


FLEES: Final = """
import os, signal, sys, time
ready, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)]
        print(os.getpid(), flush=True)
        os.close(1)
        os.close(told)
        time.sleep(60)
    os._exit(0)
os.close(told)
os.read(ready, 1)
"""


def test_when_the_proxy_is_killed_the_agent_and_who_fled_from_it_end(tmp_path: Path) -> None:
    """The kernel closes its end of the pipe then, whatever the proxy died of."""
    waits = FLEES + "time.sleep(60)"
    launcher = _launcher(
        _order(), sys.executable, "-ISc", waits, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert launcher.stdin is not None and launcher.stdout is not None
    with launcher.stdout:
        fled = int(launcher.stdout.readline())
    assert Path(f"/proc/{fled}").exists()
    launcher.stdin.close()
    launcher.wait(10)
    assert not Path(f"/proc/{fled}").exists()


@pytest.mark.parametrize(("way", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)])
def test_it_ends_as_the_agent_did_and_leaves_nobody(way: str, status: int) -> None:
    launcher = _launcher(_order(), sys.executable, "-ISc", FLEES + way, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with launcher:
        assert launcher.stdout is not None
        fled = int(launcher.stdout.readline())
        assert launcher.wait(10) == status
    assert not Path(f"/proc/{fled}").exists()


FORKS: Final = """
import os, time
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
"""


def test_a_fork_bomb_fizzles_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    python = sys.executable
    script = tmp_path / "launcher.py"
    script.write_bytes(Path(sandbox.__file__).with_name("launcher.py").read_bytes())
    if ROOT:  # whom the kernel does not bound
        python, number = "/usr/bin/python3", 64_123
        if not Path(python).exists():
            pytest.skip("root is not bounded, and there is no Python that others could run")
        for place in (tmp_path, *tmp_path.parents[:3]):  # with several workers pytest makes one more
            place.chmod(0o755)
        options = {"user": number, "group": number, "extra_groups": []}
    launcher = _launcher(
        _order(processes=10), python, "-ISc", FORKS, python=python, script=str(script),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **options,
    )  # fmt: skip
    with launcher:
        assert launcher.stdout is not None
        made = int(launcher.stdout.readline())
        assert launcher.wait(10) == 0
    assert 0 < made < 50


# ---- no process stays


@pytest.mark.parametrize("means", [*MEANS, "none"])
async def test_daemons_that_are_deaf_and_forgot_whose_they_are_end(house: House, means: str) -> None:
    need(means)
    house.script([{"flee": 3}, say("Beginning"), {"stall": 60}], ignores_sigterm=True)
    with host(means):
        response = await house.backend().open(call("Hi", stream=True))
    await until(
        lambda: sum("SIG_IGN" in command and "launcher" not in command for command in house.left().values()) >= 3
    )
    response.close()
    await until(lambda: not house.left())


@pytest.mark.long
@pytest.mark.parametrize("means", [*MEANS, "none"])
async def test_two_hundred_clients_that_leave_leave_no_process(house: House, means: str) -> None:
    need(means)
    cancelled = {"result": {"stopReason": "cancelled"}}
    house.script(
        [{"flee": 2}, {"spawn": True}, say("Beginning"), {"wait": "session/cancel"}, cancelled], ignores_sigterm=True
    )
    with host(means):
        backend = house.backend()
        for number in range(25):
            calls = [call("Hi", stream=True, session=f"{number}-{place}") for place in range(8)]
            responses = await asyncio.gather(*(backend.open(one) for one in calls))
            assert len(house.left()) >= 8 * 4
            for response in responses:
                response.close()
            await until(lambda: not house.left(), 30.0)
    await until(lambda: not backend.running)
    assert len(house.starts) == 200


def test_the_means_are_told(tmp_path: Path) -> None:
    with host("none"):
        assert Sandbox("x", "auto", {}).means == "none"
    need("landlock")
    with host("landlock"):
        assert Sandbox("x", "auto", {}).means == "landlock"
        assert Sandbox("x", "off", {}).means == "none"
