"""Where the time of one request goes: its phases, what the proxy itself added, and the line that says so.

    with track_request_performance(session_id="s1") as perf:
        with perf.phase("backend_call"):
            ...
        perf.elapsed_time_ms, perf.metrics.phases

Knows no request, no server and no log; all times that it gives are milliseconds. One tracker belongs to one task.
"""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Final

import msgspec

PHASES: Final = ("command_processing", "backend_selection", "backend_call", "response_processing")
REQUEST_BODY: Final = "request_body"
"""The client sends its request: with `backend_call` the phases in which others have the time."""


class Metrics(msgspec.Struct, frozen=True):
    """What is known of one request. `phases`: milliseconds by name; a phase within another one counts once, as its own.

    `total_ms` is None until the request is over. `overhead_ms` is how much longer than its provider the proxy makes the client wait:
    until its answer is ready, or the first content of a stream is there.
    """

    session_id: str | None
    phases: dict[str, float]
    total_ms: float | None
    overhead_ms: float


class RequestPerformance:
    """The watch over one request; it runs from its making, or from the beginning of its `with` block, to the block's end or `finish`."""

    __slots__ = ("_answered", "_began", "_ended", "_mark", "_now_in", "_overhead", "_seconds", "session_id")

    def __init__(self, session_id: str | None = None) -> None:
        self.session_id = session_id
        self._seconds: dict[str, float] = {}
        self._now_in = ""
        self._answered = False
        self._overhead = 0.0
        self._ended: float | None = None
        self._began = self._mark = perf_counter()

    def __enter__(self) -> RequestPerformance:
        self._began = self._mark = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()

    @property
    def elapsed_time_ms(self) -> float:
        """Since the beginning; when all is over, the whole time."""
        return ((perf_counter() if self._ended is None else self._ended) - self._began) * 1000

    @property
    def is_answered(self) -> bool:
        return self._answered

    @property
    def metrics(self) -> Metrics:
        """What is known now, or in the end."""
        now = perf_counter() if self._ended is None else self._ended
        seconds = dict(self._seconds)
        if self._now_in:
            seconds[self._now_in] = seconds.get(self._now_in, 0.0) + now - self._mark
        return Metrics(
            session_id=self.session_id,
            phases={name: value * 1000 for name, value in seconds.items()},
            total_ms=None if self._ended is None else (self._ended - self._began) * 1000,
            overhead_ms=self.overhead_ms,
        )

    @property
    def overhead_ms(self) -> float:
        """See `Metrics`."""
        return (self._overhead if self._answered else self._own(perf_counter())) * 1000

    def phase(self, name: str) -> Phase:
        """A context whose time counts for `name`. May be entered again; times add up."""
        return Phase(self, name)

    def turn_to(self, name: str) -> str:
        """From now on the time counts for `name`, "" for none; returns what it counted for until now."""
        now = perf_counter()
        before = self._now_in
        if before:
            self._seconds[before] = self._seconds.get(before, 0.0) + now - self._mark
        self._mark = now
        self._now_in = name
        return before

    def answered(self) -> None:
        """The answer, or its first content, is about to go out: what comes later is no overhead. The first call counts."""
        if not self._answered:
            self._overhead = self._own(perf_counter())
            self._answered = True

    def _own(self, now: float) -> float:
        """Seconds so far in which neither the client nor the provider was waited for."""
        seconds = self._seconds
        own = now - self._began - seconds.get(REQUEST_BODY, 0.0) - seconds.get("backend_call", 0.0)
        if self._now_in in (REQUEST_BODY, "backend_call"):
            own -= now - self._mark
        return own if own > 0.0 else 0.0

    def finish(self) -> None:
        """The end, also of a phase that an exception has left; a second one changes nothing."""
        if self._ended is None:
            self.turn_to("")
            self.answered()
            self._ended = self._mark

    def summary(self, session: str, backend: str, model: str, streaming: bool, commands: bool) -> str:
        """`PERF_SUMMARY session=… total=… …`: one `name=value` each, without blanks in a value; times in milliseconds."""
        if not (session and backend and model and (names := session + backend + model).isprintable()) or " " in names:
            session, backend, model = _word(session), _word(backend), _word(model)
        of = self._seconds.get
        return _SUMMARY % (
            session, (self._mark - self._began) * 1e3, backend, model, _TRUTH[streaming], _TRUTH[commands],
            of("command_processing", 0.0) * 1e3, of("backend_selection", 0.0) * 1e3, of("backend_call", 0.0) * 1e3,
            of("response_processing", 0.0) * 1e3, self._overhead * 1e3,
        )  # fmt: skip


_TRUTH: Final = {True: "true", False: "false"}
_SUMMARY: Final = (
    "PERF_SUMMARY session=%s total=%.1f backend=%s model=%s streaming=%s commands=%s "
    "cmd_proc=%.2f backend_sel=%.2f backend_call=%.2f resp_proc=%.2f overhead=%.2f"
)


class Phase:
    """One stay in a phase."""

    __slots__ = ("_before", "_name", "_performance")

    def __init__(self, performance: RequestPerformance, name: str) -> None:
        self._performance = performance
        self._name = name
        self._before = ""

    def __enter__(self) -> None:
        self._before = self._performance.turn_to(self._name)

    def __exit__(self, *_: object) -> None:
        self._performance.turn_to(self._before)


def track_request_performance(session_id: str | None = None) -> RequestPerformance:
    """A tracker for one request, as a context or until its `finish`. What is raised inside goes on."""
    return RequestPerformance(session_id)


def _word(text: str) -> str:
    """A value that ends at the next blank."""
    if text.isprintable() and " " not in text:
        return text or "-"
    return "".join([char if char.isprintable() and char != " " else "_" for char in text])
