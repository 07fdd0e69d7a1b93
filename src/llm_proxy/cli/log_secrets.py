"""No log line shows a secret: texts are cleaned before they wait to be written, and what nobody caught becomes a log line too.

Owns which parts of a record hold texts. What a secret is, is the cleaner's business.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

_LOG = logging.getLogger("llm_proxy")
_NOT_TEXT: Final = frozenset(
    ("name", "levelname", "pathname", "filename", "module", "funcName", "threadName", "processName")
)


def clean_record(record: logging.LogRecord, clean: Callable[[str], str]) -> None:
    """Takes secrets out of every text of a record whose message is made: the message, its traceback, and what callers gave as `extra`."""
    for name, value in vars(record).items():
        if type(value) is str and value and name not in _NOT_TEXT:
            setattr(record, name, clean(value))


def hear_uncaught() -> None:
    """Exceptions that end the program or a thread go to the log, and so pass the cleaner."""
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    _LOG.critical("the program ends: %s", kind.__name__, exc_info=(kind, error, traceback))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or issubclass(found.exc_type, SystemExit):
        return
    name = found.thread.name if found.thread is not None else "a thread"
    _LOG.error(
        "%s ends: %s", name, found.exc_type.__name__, exc_info=(found.exc_type, found.exc_value, found.exc_traceback)
    )
