"""Whose request is being served where a log line is written: its id and its session's.

The server says it once per request; the log's writer reads it for each line. Knows neither. The values belong to the task that
serves the request and to the tasks that it begins; elsewhere they are empty. Whoever sets them puts no secret there.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

REQUEST: Final[ContextVar[str]] = ContextVar("request", default="")
SESSION: Final[ContextVar[str]] = ContextVar("session", default="")
