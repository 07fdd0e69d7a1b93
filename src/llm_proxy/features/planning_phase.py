"""Planning phase: a strong model answers at the start of a session, with sampling values of its own (REQ-05).

Owns when the phase of a session is over, and what it changes in requests for the strong model. That they go there is routing's
decision: it asks for `strong_model`, and says by `exchange.planned` which tries are such. Knows no protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from llm_proxy.config.maps import check_budget
from llm_proxy.config.options import OptionGroup, Target, option
from llm_proxy.conversation.request import Request
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.generation_config import THINKING, plain_name, without
from llm_proxy.features.reasoning import effort_word, shown_as, wanted
from llm_proxy.sessions.session import Session
from llm_proxy.sessions.tool_kinds import kind_of
from llm_proxy.wire.json import parse_arguments

_LOG = logging.getLogger(__name__)
_OVERRIDES = "session.planning_phase.overrides"


class PlanningOptions(OptionGroup, path="session.planning_phase", title="Planning phase"):
    enabled: bool = option(
        False,
        env="PLANNING_PHASE_ENABLED",
        switch="planning-phase",
        help="begin each session with a strong model",
    )
    strong_model: str | None = option(
        None,
        env="PLANNING_PHASE_STRONG_MODEL",
        flag="--planning-phase-strong-model",
        value_name="BACKEND:MODEL",
        help="the model that plans; needed when the phase is enabled",
    )
    max_turns: int = option(
        10,
        env="PLANNING_PHASE_MAX_TURNS",
        flag="--planning-phase-max-turns",
        minimum=1,
        help="completed answers after which the phase of a session ends",
    )
    max_file_writes: int = option(
        1,
        env="PLANNING_PHASE_MAX_FILE_WRITES",
        flag="--planning-phase-max-file-writes",
        minimum=1,
        help="tool calls that write or edit a file after which it ends",
    )
    temperature: float | None = option(
        None,
        at=f"{_OVERRIDES}.temperature",
        env="PLANNING_PHASE_TEMPERATURE",
        flag="--planning-phase-temperature",
        minimum=0,
        maximum=2,
        help="sampling temperature of the strong model, whatever else says",
    )
    top_p: float | None = option(
        None,
        at=f"{_OVERRIDES}.top_p",
        env="PLANNING_PHASE_TOP_P",
        flag="--planning-phase-top-p",
        minimum=0,
        maximum=1,
        help="nucleus sampling of the strong model, whatever else says",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = option(
        None,
        at=f"{_OVERRIDES}.reasoning_effort",
        env="PLANNING_PHASE_REASONING_EFFORT",
        flag="--planning-phase-reasoning-effort",
        spellings={"maximum": "max"},
        help="how much the strong model thinks, whatever else says",
    )
    thinking_budget: int | None = option(
        None,
        at=f"{_OVERRIDES}.thinking_budget",
        env="PLANNING_PHASE_THINKING_BUDGET",
        flag="--planning-phase-thinking-budget",
        check=check_budget,
        help="the same in tokens, before the effort: -1 dynamic, 0 off",
    )

    def targets(self) -> Iterable[Target]:
        if self.enabled and self.strong_model:
            doubted = not self.strong_model.startswith("route:")
            yield Target("session.planning_phase.strong_model", self.strong_model, doubted=doubted)

    def conflicts(self) -> Iterable[tuple[str, str]]:
        if self.enabled and not (self.strong_model or "").strip():
            yield (
                "session.planning_phase.strong_model",
                "a model (backend:model), because session.planning_phase.enabled is true",
            )


class PlanningPhase(Feature):
    """Keeps `turns`, `writes` and `ended` in the session's mark. Counts all turns, whichever model they went to."""

    name = "planning_phase"

    def __init__(self, options: PlanningOptions) -> None:
        self._strong = (options.strong_model or "").strip()
        self._max_turns = options.max_turns
        self._max_writes = options.max_file_writes
        given = {"temperature": options.temperature, "top_p": options.top_p}
        self._sampling = {name: value for name, value in given.items() if value is not None}
        self._reasoning = wanted(options.thinking_budget, effort_word(options.reasoning_effort))
        self._replaced = {plain_name(name) for name in self._sampling}
        if self._reasoning is not None:
            self._replaced.add(THINKING)

    def strong_model(self, session: Session) -> str:
        """The strong model while the phase of this session lasts, else ""."""
        mark = _mark(session)
        over = mark.get("ended") or self._reached(_count(mark, "turns"), _count(mark, "writes"))
        return "" if over else self._strong

    def on_request(self, exchange: ExchangeView) -> None:
        if not exchange.side and self.strong_model(exchange.session):
            exchange.keep_calls()

    def concerns(self, exchange: ExchangeView) -> bool:
        return exchange.planned and bool(self._replaced)

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        """The overrides replace what the request, the session and its modes say; what a client wants to see of reasoning stays."""
        if not self.concerns(exchange):
            return request
        changes: dict[str, Any] = {}
        added = set(request.added)
        if self._sampling:
            changes["sampling"] = msgspec.structs.replace(request.sampling, **self._sampling)
            added |= self._sampling.keys()
            changes["filled"] = request.filled - self._sampling.keys()
        if self._reasoning is not None:
            changes["reasoning"] = shown_as(self._reasoning, request.reasoning, exchange.session.values)
            added.add("reasoning")
        if request.gemini:
            changes["gemini"] = without(request.gemini, self._replaced)
        return msgspec.structs.replace(request, added=frozenset(added), **changes)

    def on_finish(self, exchange: ExchangeView) -> None:
        if exchange.side or not exchange.attempts or not self.strong_model(exchange.session):
            return
        # An answer that broke off is no turn; but a call that was complete before may have been carried out.
        turns = int(exchange.fault is None and not exchange.cancelled and exchange.attempts[-1].status == 200)
        writes = sum(_writes_a_file(name, arguments) for name, arguments in exchange.answer_calls())
        if turns or writes:
            self._advance(exchange.session, turns, writes)

    def _advance(self, session: Session, turns: int, writes: int) -> None:
        mark = _mark(session)
        turns, writes = _count(mark, "turns") + turns, _count(mark, "writes") + writes
        ended = self._reached(turns, writes)
        session.marks[self.name] = {"turns": turns, "writes": writes, "ended": ended}
        session.touch()
        if ended:
            _LOG.info("session %s: planning phase over: %d turns, %d file writes", session.id, turns, writes)

    def _reached(self, turns: int, writes: int) -> bool:
        return turns >= self._max_turns or writes >= self._max_writes


def _mark(session: Session) -> Mapping[str, Any]:
    mark = session.marks.get(PlanningPhase.name)
    return mark if isinstance(mark, dict) else {}


def _count(mark: Mapping[str, Any], name: str) -> int:
    value = mark.get(name)
    return value if type(value) is int else 0


def _writes_a_file(name: str, arguments: str) -> bool:
    """Arguments that begin as an object and do not end as one were cut by the model's limit: no client carries them out."""
    if kind_of(name, arguments) not in ("write", "edit"):
        return False
    return not arguments.lstrip().startswith("{") or parse_arguments(arguments) is not None
