"""How a log record becomes a line: text after a Python format string, or one JSON object.

Every line carries the ids of its request and its session where there are any. What people, models and providers wrote cannot begin a
line of its own, move a cursor or colour a terminal. Knows no file and no thread.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import msgspec

_LONGEST: Final = 32_768  # characters of one message or traceback
_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPED: Final = {code: repr(chr(code))[1:-1] for code in _CONTROLS} | {0x85: "\\x85"}
_ESCAPED_IN_BLOCKS: Final = {code: text for code, text in _ESCAPED.items() if chr(code) not in "\n\t"}
_CALLER: Final = ("%(pathname", "%(filename", "%(module", "%(lineno", "%(funcName")


def line_format(text: str) -> logging.Formatter:
    """The format that the option `logging.format` names."""
    return JsonLines() if text == "json" else TextLines(text)


def record_only(text: str) -> None:
    """Finds out for each line only what `text` shows, which is logging's own advice for speed."""
    logging.logThreads = "%(thread" in text
    logging.logProcesses = "%(process" in text
    logging.logMultiprocessing = "%(processName" in text
    vars(logging)["logAsyncioTasks"] = "%(taskName" in text  # of Python 3.12
    logging._srcfile = _SOURCE_OF_LOGGING if any(name in text for name in _CALLER) else None


_SOURCE_OF_LOGGING: Final = logging._srcfile


class TextLines(logging.Formatter):
    """`%(request_id)s` and `%(session_id)s` are for formats with a place for them; in others the ids follow the message."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._places = "%(request_id" in text or "%(session_id" in text
        self._second, self._time = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        message = one_line(record.getMessage())
        request, session = getattr(record, "request_id", ""), getattr(record, "session_id", "")
        if self._places:
            record.request_id, record.session_id = request or "-", session or "-"
        else:
            ids = [id for id in (request, session) if id and not _names(message, id)]
            if ids:
                message = f"{message} [{' '.join(ids)}]"
        record.message = message
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        for block in (traceback_of(record), record.stack_info):
            if block:
                line += "\n    " + block[:_LONGEST].translate(_ESCAPED_IN_BLOCKS).replace("\n", "\n    ")
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:  # most lines share it with the one before
            self._second, self._time = second, time.strftime(self.default_time_format, time.localtime(second))
        return f"{self._time},{int(record.msecs):03d}"


class JsonLines(logging.Formatter):
    """One object per line: `time` (UTC), `level`, `logger`, `message`, and where there are any `request_id`, `session_id`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
            "request_id": getattr(record, "request_id", ""),
            "session_id": getattr(record, "session_id", ""),
            "exception": traceback_of(record)[:_LONGEST],
        }
        found = {name: value for name, value in found.items() if value or name == "message"}
        try:
            return msgspec.json.encode(found).decode()
        except UnicodeEncodeError:  # half a surrogate pair
            found = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in found.items()}
            return msgspec.json.encode(found).decode()


def one_line(text: str) -> str:
    """`text` as part of one line that no terminal obeys."""
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    return text if text.isprintable() else text.translate(_ESCAPED)


def _names(message: str, id: str) -> bool:
    """Does `id` stand in the message by itself, not as a piece of something longer?"""
    at = message.find(id)
    if at < 0:
        return False
    around = message[at - 1 : at] + message[at + len(id) : at + len(id) + 1]
    return not any(char.isalnum() or char in "-_." for char in around)


def traceback_of(record: logging.LogRecord) -> str:
    """The traceback of a record as text, which stays with it; "" for none."""
    if not record.exc_text and record.exc_info and record.exc_info[0] is not None:
        record.exc_text = _PLAIN.formatException(record.exc_info)
    return record.exc_text or ""


_PLAIN: Final = logging.Formatter()
