"""OPS-04, OPS-13: no line of the log shows a secret, whatever part of a record holds it and whatever the format is."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_proxy.cli import log
from llm_proxy.cli.log_secrets import hear_uncaught
from llm_proxy.config.groups import LoggingOptions
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret

KEY = "value-without-a-shape-0042"
SHAPED = "sk-aB3dE5fG7hJ9kL1mN3pQ5rS7"
TEXT = "%(levelname)s %(name)s %(message)s"

Written = Callable[[], str]


@pytest.fixture(params=[TEXT, "json"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Written]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions, sys.excepthook, threading.excepthook)
    options = LoggingOptions(level="debug", format=request.param, file=tmp_path / "log")
    writer = log.set_up(options, Redactor([Secret(KEY)]).clean)
    hear_uncaught()

    def read() -> str:
        writer.finish()
        return (tmp_path / "log").read_text()

    try:
        yield read
    finally:
        writer.finish()
        logging.captureWarnings(False)
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before[0]:
            root.addHandler(handler)
        root.setLevel(before[1])
        logging.raiseExceptions, sys.excepthook, threading.excepthook = before[2:]


def test_messages_arguments_and_tracebacks_of_every_logger(written: Written) -> None:
    for name in ("llm_proxy.somewhere", "uvicorn.error", "aiohttp.client", "asyncio", "somebody.else"):
        logger = logging.getLogger(name)
        logger.error("message %s and %r", KEY, {"key": SHAPED}, extra={"color": KEY})
        try:
            raise ValueError(f"no such key: {KEY}")
        except ValueError:
            logger.exception("it failed")
    text = written()
    assert KEY not in text and SHAPED not in text
    assert text.count("message *** and") == 5 and text.count("ValueError: no such key: ***") == 5


@pytest.mark.parametrize("written", [TEXT + " %(color)s"], indirect=True)
def test_what_callers_give_for_the_format_is_cleaned_too(written: Written) -> None:
    logging.getLogger("a").error("said", extra={"color": f"color {KEY}"})
    logging.getLogger("a").error("said", extra={"color": {"of": [KEY]}})
    logging.getLogger("a").error("said", extra={"color": 7})
    assert written() == "ERROR a said color ***\nERROR a said {'of': ['***']}\nERROR a said 7\n"


def test_a_private_key_without_an_end_leaves_a_line_of_json_whole(written: Written) -> None:
    logging.getLogger("a").error("-----BEGIN PRIVATE KEY-----\nMIIEvQ")
    logging.getLogger("a").error("next")
    text = written()
    lines = text.splitlines()
    assert "MIIEvQ" not in text and len(lines) == 2 and "next" in lines[1]
    if lines[0].startswith("{"):
        assert json.loads(lines[0])["message"] == "***"


def test_what_nobody_caught_is_a_line_of_the_log(written: Written) -> None:
    def fail() -> None:
        raise RuntimeError(f"with {KEY}")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    text = written()
    assert KEY not in text and text.count("RuntimeError: with ***") == 2 and "worker ends" in text


def test_warnings_of_libraries(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"deprecated: {KEY}", UserWarning, stacklevel=1)
    text = written()
    assert "deprecated: ***" in text and KEY not in text
