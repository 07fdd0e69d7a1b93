"""CFG-06: what commands change survives a restart; the user's file is never rewritten."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.config import RouteSettings, load_settings
from llm_proxy.config.groups import BackendGeneralOptions
from llm_proxy.option_groups import GROUPS
from llm_proxy.routing.options import ChoiceOptions
from llm_proxy.store.saved_state import NewerVersion, SavedState, Unreadable, effective_settings, read_saved

ROUTE = RouteSettings("m", ("openai:a",))


async def saved(path: Path | None, **changes: object) -> SavedState:
    state = SavedState(path)
    state.apply(changes, {}, ())
    await state.written()
    state.close()
    return state


async def test_values_and_routes_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = SavedState(path)
    state.apply({"default_backend": "gemini", "session.default_interactive_mode": False}, {"r": ROUTE}, ())
    assert state.values["default_backend"] == "gemini" and state.routes == {"r": ROUTE}
    assert await state.written()
    state.close()
    again = SavedState(path)
    assert again.values == {"default_backend": "gemini", "session.default_interactive_mode": False}
    assert again.routes == {"r": ROUTE} and again.deleted_routes == frozenset() and again.warnings == []
    document = json.loads(path.read_bytes())
    assert set(document) == {"version", "written_at", "values", "failover_routes", "deleted_routes"}
    assert document["failover_routes"] == {"r": {"policy": "m", "elements": ["openai:a"]}}


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    await saved(path, default_backend="gemini")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


async def test_none_removes_a_value(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    await saved(path, default_backend="gemini")
    await saved(path, default_backend=None)
    assert SavedState(path).values == {}


async def test_a_deleted_route_of_the_file_is_remembered_until_it_is_made_again() -> None:
    state = SavedState(None)
    state.apply({}, {"mine": ROUTE, "files": ROUTE}, {"files"})
    state.apply({}, {"mine": None, "files": None}, {"files"})
    assert state.routes == {} and state.deleted_routes == {"files"}
    state.apply({}, {"files": ROUTE}, {"files"})
    assert state.routes == {"files": ROUTE} and state.deleted_routes == frozenset()


async def test_a_restart_leaves_the_configuration_file_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    content = b"# mine\ndefault_backend: openai   # kept\nfailover_routes: {a: {policy: k}, b: {policy: m}}\n"
    config.write_bytes(content)
    argv = ["--config", "my.yaml"]
    environ = {"HOME": str(tmp_path / "home")}
    first = load_settings(argv, environ, tmp_path, GROUPS)
    assert first.state_file == tmp_path / "my.yaml.state.json"
    state = SavedState(first.state_file)
    state.apply({"default_backend": "gemini"}, {"a": None, "b": RouteSettings("mk"), "c": ROUTE}, first.file_routes)
    await state.written()
    state.close()
    again = load_settings(argv, environ, tmp_path, GROUPS, SavedState(first.state_file))
    assert again.get(BackendGeneralOptions).default_backend == "gemini"
    assert again.source_of("default_backend") == "saved state"
    assert again.get(ChoiceOptions).failover_routes == {"b": RouteSettings("mk"), "c": ROUTE}
    assert effective_settings(argv, environ, tmp_path, GROUPS).entries() == again.entries()
    state = SavedState(first.state_file)
    state.apply({"default_backend": None}, {}, first.file_routes)
    await state.written()
    state.close()
    after = load_settings(argv, environ, tmp_path, GROUPS, SavedState(first.state_file))
    assert after.get(BackendGeneralOptions).default_backend == "openai"
    assert config.read_bytes() == content


def test_without_the_flag_it_lies_in_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data_dir: d\n")
    assert load_settings([], {"HOME": "/h"}, tmp_path, GROUPS).state_file == tmp_path / "d" / "state.json"


@pytest.mark.parametrize(
    "content",
    [
        b'{"version": 1, "values": {"default_ba',
        b"",
        b"[]",
        b'{"version": "x"}',
        b'{"values": {}}',
        b"\xff\xfe",
        b'{"version": 1, "failover_routes": {"a": {"policy": "zz"}}}',
        b'{"version": 1, "values": [1]}',
        b"[" * 100_000,
    ],
)
async def test_an_unreadable_file_is_renamed_and_the_start_succeeds(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    state = SavedState(path)
    assert state.values == {} and state.routes == {}
    assert (tmp_path / "state.json.bad").read_bytes() == content
    assert not path.exists()
    [warning] = state.warnings
    assert "state.json.bad" in warning
    state.apply({"default_backend": "demo"}, {}, ())
    assert await state.written()
    state.close()
    assert SavedState(path).values == {"default_backend": "demo"}


async def test_a_file_cut_anywhere_never_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = SavedState(path)
    state.apply({"default_backend": "gemini"}, {"r": ROUTE}, ())
    await state.written()
    state.close()
    whole = path.read_bytes()
    for end in range(len(whole.rstrip())):
        path.write_bytes(whole[:end])
        with pytest.raises(Unreadable):
            read_saved(path)


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    content = b'{"version": 2, "values": "of another shape"}'
    path.write_bytes(content)
    with pytest.raises(NewerVersion):
        read_saved(path)
    state = SavedState(path)
    assert len(state.warnings) == 1
    state.apply({"default_backend": "demo"}, {}, ())
    assert not await state.written()
    state.close()
    assert path.read_bytes() == content and state.values == {"default_backend": "demo"}


async def test_fifty_parallel_changes_are_all_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = SavedState(path)

    async def change(number: int) -> None:
        state.apply({f"x.{number}": number}, {f"route{number}": RouteSettings("k", (f"openai:{number}",))}, ())
        assert await state.written()
        on_disk = json.loads(path.read_bytes())
        assert on_disk["values"][f"x.{number}"] == number and f"route{number}" in on_disk["failover_routes"]

    await asyncio.gather(*(change(number) for number in range(50)))
    threads = [asyncio.to_thread(state.apply, {f"y.{number}": number}, {}, ()) for number in range(50)]
    await asyncio.gather(*threads)
    await state.written()
    state.close()
    document = json.loads(path.read_bytes())
    assert set(document["failover_routes"]) == {f"route{number}" for number in range(50)}
    assert set(document["values"]) == {f"{letter}.{number}" for letter in "xy" for number in range(50)}


async def test_what_cannot_be_written_stays_in_memory_with_one_warning_per_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    state = SavedState(tmp_path / "missing" / "state.json", clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            state.apply({"default_backend": str(number)}, {}, ())
            assert not await state.written()
        assert len(caplog.records) == 1
        now[0] = 61.0
        state.apply({"default_backend": "last"}, {}, ())
        assert not await state.written()
        assert len(caplog.records) == 2
    assert state.values == {"default_backend": "last"}
    (tmp_path / "missing").mkdir()
    state.apply({}, {"r": ROUTE}, ())
    assert await state.written()
    state.close()
    assert SavedState(tmp_path / "missing" / "state.json").values == {"default_backend": "last"}


async def test_without_a_place_changes_live_in_memory() -> None:
    state = await saved(None, default_backend="demo")
    assert state.values == {"default_backend": "demo"}


WRITER = """
import asyncio, sys
from pathlib import Path
from llm_proxy.store.saved_state import SavedState
async def main():
    state = SavedState(Path(sys.argv[1]))
    number = len(state.values)
    print("begun", flush=True)
    while True:
        number += 1
        state.apply({f"key.{number}": "x" * 1000}, {}, ())
        if number % 3 == 0:
            await state.written()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    source = Path(__file__).parents[2] / "src"
    sizes = []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        inode = path.stat().st_ino if path.exists() else None
        while not path.exists() or path.stat().st_ino == inode:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        sizes.append(len(read_saved(path).values))
    assert sizes == sorted(sizes) and sizes[0] > 0
