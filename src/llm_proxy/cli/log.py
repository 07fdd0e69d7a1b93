"""Log lines leave the event loop at once and are written by a thread, several at a time: a terminal, pipe or disk that takes nothing
stops no request, and a busy proxy is not woken for each line.

What does not fit into the bounded waiting room is dropped and counted in the next line that does. Levels, format and file can be others
from one line to the next.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from llm_proxy.cli.log_file import LogFile, Terminal
from llm_proxy.cli.log_format import line_format, record_only, traceback_of
from llm_proxy.cli.log_secrets import clean_record
from llm_proxy.config.groups import LoggingOptions
from llm_proxy.log_context import REQUEST, SESSION

_MOST_WAITING: Final = 10_000
_INTERVAL: Final = 0.1  # seconds between two looks for new lines
_LAST_LINES: Final = 2.0  # seconds that the end waits for a slow terminal
_PORTION: Final = 500  # lines written at once
_MEGABYTE: Final = 1024 * 1024
_NOISY: Final = ("uvicorn", "asyncio", "aiohttp")


class Target(Protocol):
    """Where lines go. Nothing here raises; `lost` counts what could not be written."""

    lost: int

    def write(self, lines: Sequence[str]) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class LineWriter(logging.Handler):
    """Takes records from any thread; its own thread formats and writes them. `finish` ends it."""

    def __init__(self, options: LoggingOptions, clean: Callable[[str], str] = str) -> None:
        """`clean` takes the secrets out of a text. Raises OSError when the file cannot be opened."""
        super().__init__()
        self._clean = clean
        self._options = options
        self._target = _target(options)
        self.setFormatter(line_format(options.format))
        self._waiting: deque[logging.LogRecord | LoggingOptions] = deque()
        self._untold = 0
        self._dropped = 0
        self._lost_before = 0
        self._reopen = False
        self._end = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def createLock(self) -> None:
        self.lock = None  # a deque needs none

    @property
    def dropped(self) -> int:
        """Lines that were never written, since the start."""
        return self._dropped + self._lost_before + self._target.lost

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._untold += 1
            self._dropped += 1
            return
        # The text is made here, where its arguments still are what they were, and nothing holds frames for longer.
        try:
            record.msg = record.getMessage()
        except Exception:  # whoever logs wrongly is not to fail for it
            record.msg = f"{record.msg!r} with {record.args!r}"
        record.args = None
        if record.exc_info:
            traceback_of(record)
            record.exc_info = None
        clean_record(record, self._clean)
        record.request_id, record.session_id = REQUEST.get(), SESSION.get()  # free of secrets where they are set
        if self._untold:
            record.msg += f"  [{self._untold} log lines before this one were dropped]"
            self._untold = 0
        self._waiting.append(record)

    def configure(self, options: LoggingOptions) -> None:
        """What is logged from now on, and where to. What waits already goes where it was meant to go."""
        set_levels(options, self._options)
        record_only(options.format)
        self._options = options
        self._waiting.append(options)

    def reopen(self) -> None:
        """The file may have been moved by another program: the next lines go to the one that has its name."""
        self._reopen = True

    def flush(self) -> None:
        """Writes what is waiting, now, in the calling thread."""
        with self._turn:
            while self._waiting:
                lines: list[str] = []
                options: LoggingOptions | None = None
                while self._waiting and len(lines) < _PORTION and options is None:
                    due = self._waiting.popleft()
                    if isinstance(due, LoggingOptions):
                        options = due
                    else:
                        lines.append(self._line(due))
                self._target.write(lines)
                if options is not None:
                    self._change(options)
            if self._reopen:
                self._reopen = False
                self._target.reopen()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:  # the thread goes on whatever a record holds
            return f"a log line of {record.name} has no form ({type(error).__name__})"

    def _write(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(_INTERVAL)
            self.flush()
        self._target.close()

    def _change(self, options: LoggingOptions) -> None:
        self.setFormatter(line_format(options.format))
        old = self._target
        if isinstance(old, LogFile) and options.file == old.path:
            old.most_bytes, old.backups = options.max_size_mb * _MEGABYTE, options.backup_count
            return
        if isinstance(old, Terminal) and options.file is None:
            return
        try:
            self._target = _target(options)
        except OSError as error:
            complaint = f"llm-proxy: the log file {options.file} cannot be written: {error.strerror or error}"
            print(complaint, file=sys.stderr, flush=True)
            return
        self._lost_before += old.lost
        old.close()

    def finish(self) -> None:
        """Writes what is due, but waits no longer than a moment for a terminal that takes nothing."""
        self._end.set()
        self._thread.join(_LAST_LINES)


def set_up(options: LoggingOptions, clean: Callable[[str], str] = str) -> LineWriter:
    """Sends all logging where `options` say. The caller calls `finish` in the end. Raises OSError when the file cannot be written."""
    writer = LineWriter(options, clean)
    record_only(options.format)
    logging.raiseExceptions = False
    logging.basicConfig(level=options.level.upper(), handlers=[writer], force=True)
    logging.captureWarnings(True)
    set_levels(options)
    return writer


def set_levels(options: LoggingOptions, before: LoggingOptions | None = None) -> None:
    """The levels of the root and of single loggers; those that `before` set and `options` do not are as they come again."""
    for name in before.per_module if before is not None else ():
        logging.getLogger(name).setLevel(logging.NOTSET)
    root = logging.getLogger()
    root.setLevel(options.level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name, level in options.per_module.items():
        logging.getLogger(name).setLevel(level.upper())


def _target(options: LoggingOptions) -> Target:
    """Raises OSError."""
    if options.file is None:
        return Terminal()
    return LogFile(Path(options.file), options.max_size_mb * _MEGABYTE, options.backup_count)
