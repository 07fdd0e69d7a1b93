"""OPS-13: lines from any thread, in text or JSON, with the ids of their request, on levels that change while it runs."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cli import log
from llm_proxy.cli.log_format import line_format
from llm_proxy.config import ConfigError, load_settings
from llm_proxy.config.groups import LoggingOptions
from llm_proxy.log_context import REQUEST, SESSION
from llm_proxy.option_groups import GROUPS

GLOBALS = ("logThreads", "logProcesses", "logMultiprocessing", "raiseExceptions", "_srcfile")


@contextmanager
def kept_logging() -> Iterator[None]:
    """What `set_up` changes for the whole process is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {
        name: logger.level
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    globals_ = {name: getattr(logging, name) for name in GLOBALS}
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, logger in list(logging.Logger.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger):
                logger.setLevel(levels.get(name, logging.NOTSET))
        for name, value in globals_.items():
            setattr(logging, name, value)


class Running:
    """A log as `serve` sets it up, into a file."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.writer = log.set_up(LoggingOptions(file=path, **options))

    def configure(self, **options: Any) -> None:
        """As a reload does it."""
        self.writer.configure(LoggingOptions(**{"file": self.path} | options))
        self.writer.flush()

    @property
    def lines(self) -> list[str]:
        self.writer.flush()
        return self.path.read_text().splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(**options: Any) -> Running:
        started.append(Running(tmp_path / "proxy.log", **options))
        return started[-1]

    with kept_logging():
        yield begin
        for one in started:
            one.writer.finish()


def logger(name: str = "llm_proxy.some.room") -> logging.Logger:
    return logging.getLogger(name)


@contextmanager
def serving(request: str, session: str = "") -> Iterator[None]:
    tokens = REQUEST.set(request), SESSION.set(session)
    yield
    REQUEST.reset(tokens[0])
    SESSION.reset(tokens[1])


def record(message: str, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("llm_proxy.x", logging.INFO, "", 0, message, None, None)
    vars(made).update(more)
    return made


# Which lines


def test_only_the_level_and_above_are_logged(start: Callable[..., Running]) -> None:
    running = start(level="warning")
    logger().info("quiet")
    logger().warning("loud")
    assert [line.partition(": ")[2] for line in running.lines] == ["loud"]


def test_given_per_module_debug_for_one_logger_then_only_that_one_is_verbose(start: Callable[..., Running]) -> None:
    running = start(level="info", per_module={"llm_proxy.routing": "debug"})
    logger("llm_proxy.routing.plan").debug("a")
    logger("llm_proxy.server.exchange").debug("b")
    logger("llm_proxy.server.exchange").info("c")
    assert [line[-1] for line in running.lines] == ["a", "c"]


def test_the_longest_name_decides_and_libraries_have_levels_too(start: Callable[..., Running]) -> None:
    running = start(
        level="error", per_module={"llm_proxy": "info", "llm_proxy.server": "error", "aiohttp.client": "info"}
    )
    logger("llm_proxy.server.app").info("a")
    logger("llm_proxy.store").info("b")
    logger("aiohttp.client").info("c")
    logger("aiohttp.web").warning("d")
    logger("some.library").error("e")
    assert [line[-1] for line in running.lines] == ["b", "c", "e"]


def test_levels_change_live_and_come_back(start: Callable[..., Running]) -> None:
    running = start(level="info")
    running.configure(level="info", per_module={"llm_proxy.routing": "debug", "asyncio": "debug"})
    logger("llm_proxy.routing").debug("a")
    logger("asyncio").debug("b")
    running.configure(level="error")
    logger("llm_proxy.routing").debug("c")
    logger("asyncio").warning("d")
    logger("llm_proxy.routing").error("e")
    assert [line[-1] for line in running.lines] == ["a", "b", "e"]


@pytest.mark.parametrize(
    "flags",
    [["--log-level", "chatty"], ["--set", "logging.per_module={x: chatty}"], ["--set", "logging.per_module=debug"]],
)
def test_an_unknown_level_is_an_error_of_the_configuration(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags, {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    assert len(caught.value.errors) == 1
    assert "logging." in caught.value.errors[0] or "--log-level" in caught.value.errors[0]


def test_levels_of_the_file_name_their_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("logging:\n  per_module:\n    llm_proxy.routing: Debug\n    httpx: loud\n")
    with pytest.raises(ConfigError) as caught:
        load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    assert caught.value.errors[0].startswith("config.yaml:4:")
    assert "httpx" in caught.value.errors[0]
    (tmp_path / "config.yaml").write_text("logging:\n  per_module:\n    llm_proxy.routing: Debug\n")
    options = load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS).get(LoggingOptions)
    assert options.per_module == {"llm_proxy.routing": "debug"}


@pytest.mark.parametrize("form", ["%(nope)s", "%(message)d", "%(message", "{message}"])
def test_a_format_that_cannot_be_used_is_an_error_of_the_configuration(tmp_path: Path, form: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(["--log-format", form], {"HOME": str(tmp_path)}, tmp_path, GROUPS)


# What a line holds


def test_a_line_carries_the_ids_of_its_request_and_session(start: Callable[..., Running]) -> None:
    running = start()
    with serving("req_1", "ses_1"):
        logger().info("during")
    with serving("req_2"):
        logger().info("req_2: named")
        logger().info("without session")
    logger().info("beside")
    with serving("1", "s-1"):  # a client's own ids
        logger().info("11 of s-12")
    assert [line.partition(": ")[2] for line in running.lines] == [
        "during [req_1 ses_1]",
        "req_2: named",
        "without session [req_2]",
        "beside",
        "11 of s-12 [1 s-1]",
    ]


def test_a_format_with_a_place_for_the_ids_has_them_there() -> None:
    form = line_format("%(request_id)s|%(session_id)s|%(message)s")
    assert form.format(record("m", request_id="r", session_id="s")) == "r|s|m"
    assert form.format(record("m", request_id="", session_id="")) == "-|-|m"


def test_json_has_one_object_per_line(start: Callable[..., Running]) -> None:
    running = start(format="json")
    with serving("req_1", "ses_1"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger().exception('it "failed"\n%s', "ä")
    logger().warning("plain \ud800")
    first, second = map(json.loads, running.lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert "ValueError: two\nlines" in first.pop("exception")
    assert first == {
        "level": "ERROR",
        "logger": "llm_proxy.some.room",
        "message": 'it "failed"\nä',
        "request_id": "req_1",
        "session_id": "ses_1",
    }
    assert set(second) == {"time", "level", "logger", "message"}


def test_nobody_can_forge_a_line_or_move_a_cursor(start: Callable[..., Running]) -> None:
    running = start(format="%(levelname)s %(message)s")
    forged = "x\nERROR forged\r\x1b[2J\u2028\u202e\x85"
    logger().info("%s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logger().exception("caught")
    text = "\n".join(running.lines)
    assert [line for line in text.split("\n") if line.startswith("ERROR")] == ["ERROR caught"]
    assert not set(text) & set("\r\x1b\u2028\u202e\x85")
    assert r"x\nERROR forged\r\x1b[2J\u2028\u202e\x85" in text
    assert "Traceback" in text


def test_a_message_is_bounded(start: Callable[..., Running]) -> None:
    running = start()
    logger().info("x" * 1_000_000)
    assert len(running.lines[0]) < 40_000


def test_whoever_logs_wrongly_does_not_fail(start: Callable[..., Running]) -> None:
    running = start()
    logger().info("%d", "not a number")
    logger().info("next")
    assert "not a number" in running.lines[0]
    assert running.lines[1].endswith("next")


def test_the_caller_is_found_out_only_for_a_format_that_shows_it(start: Callable[..., Running]) -> None:
    running = start(format="%(filename)s %(message)s")
    logger().info("a")
    running.configure(format="%(message)s")
    logger().info("b")
    running.configure(format="%(filename)s %(message)s")
    logger().info("c")
    assert running.lines == ["test_log.py a", "b", "test_log.py c"]


# Where they go


def test_format_and_file_change_live_without_losing_a_line(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(format="%(message)s")
    logger().info("one")
    running.configure(format="json")
    logger().info("two")
    assert running.lines[0] == "one"
    assert json.loads(running.lines[1])["message"] == "two"
    running.configure(format="%(message)s", file=tmp_path / "other.log")
    logger().info("three")
    running.writer.flush()
    assert (tmp_path / "other.log").read_text() == "three\n"
    assert len(running.path.read_text().splitlines()) == 2


def test_a_file_that_cannot_be_opened_on_a_reload_leaves_the_old_one(
    start: Callable[..., Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = start(format="%(message)s")
    running.configure(format="%(message)s", file=tmp_path / "nowhere" / "other.log")
    logger().info("still here")
    assert running.lines == ["still here"]
    assert capsys.readouterr().err.count("nowhere") == 1


def test_rotation_follows_a_reload(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(format="%(message)s", max_size_mb=0)
    running.configure(format="%(message)s", max_size_mb=1, backup_count=2)
    for _ in range(5000):
        logger().info("x" * 1000)
        if _ % 400 == 0:
            running.writer.flush()
    running.writer.flush()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["proxy.log", "proxy.log.1", "proxy.log.2"]
    assert all(path.stat().st_size <= 1024 * 1024 for path in tmp_path.iterdir())


def test_lines_of_many_threads_are_whole_and_all_there(start: Callable[..., Running]) -> None:
    running = start(format="%(message)s")
    threads = [
        threading.Thread(target=lambda n=n: [logger().info("thread %d line %d", n, i) for i in range(500)])  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(running.lines) == sorted(f"thread {n} line {i}" for n in range(4) for i in range(500))
    assert running.writer.dropped == 0


def test_what_does_not_fit_is_dropped_and_counted(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(format="%(message)s")
    monkeypatch.setattr(log, "_MOST_WAITING", 3)
    with running.writer._turn:  # the thread is busy
        for number in range(10):
            logger().info("line %d", number)
    running.writer.flush()
    monkeypatch.undo()
    logger().info("later")
    lines = running.lines
    kept = len(lines) - 1
    assert 3 <= kept < 10
    assert running.writer.dropped == 10 - kept
    assert lines[-1] == f"later  [{10 - kept} log lines before this one were dropped]"


def test_warnings_of_libraries_are_logged_too(start: Callable[..., Running]) -> None:
    import warnings

    running = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old fashioned", UserWarning, stacklevel=1)
    assert "old fashioned" in running.lines[0]


def test_the_end_writes_what_is_due(tmp_path: Path) -> None:
    with kept_logging():
        running = Running(tmp_path / "log", format="%(message)s")
        for number in range(1000):
            logger().info("line %d", number)
        running.writer.finish()
        assert running.path.read_text().splitlines() == [f"line {number}" for number in range(1000)]
