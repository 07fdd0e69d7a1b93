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
_OF_EACH: Final = frozenset(vars(logging.makeLogRecord({})))
"""What every record has; of that only the texts below are not the program's own words and numbers."""
_TEXTS: Final = ("msg", "exc_text", "stack_info")
_NUMBERS: Final = (int, float, bool)


def clean_record(record: logging.LogRecord, clean: Callable[[str], str]) -> None:
    """Takes secrets out of every text of a record whose message is made: the message, its traceback, and what callers gave as `extra`,
    which is a text from then on if it is no number. Nothing is left that the line would have to be cleaned of once more.
    """
    members = vars(record)
    for name in _TEXTS:
        if text := members[name]:
            members[name] = clean(text)
    if len(members) > len(_OF_EACH):
        for name in members.keys() - _OF_EACH:
            if (value := members[name]) and type(value) not in _NUMBERS:
                members[name] = clean(str(value))


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
