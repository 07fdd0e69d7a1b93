"""From a model name to the attempts of a request, under one configuration: the decision, the plan, and a look ahead for people.

Owns how the pure rules of `routing/` meet what this proxy knows: its back ends, the session, the rooms that admit tries. Makes no call;
a look ahead changes nothing, not even whose turn it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from llm_proxy.backends.base import Backend
from llm_proxy.config.kinds import RouteSettings
from llm_proxy.config.model_defaults import model_defaults_for
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.features.exchange import Candidate
from llm_proxy.routing.aliases import Aliases
from llm_proxy.routing.choice import Choices, Decision, decide, refusal
from llm_proxy.routing.keyring import NO_THREAD, Thread
from llm_proxy.routing.options import ChoiceOptions
from llm_proxy.routing.plan import Attempt, Element, Plan, Skipped, plan_route, plan_target
from llm_proxy.routing.targets import check_name, parse
from llm_proxy.server.redirects import redirect_of
from llm_proxy.sessions.session import Session

if TYPE_CHECKING:
    from llm_proxy.dialects.base import Opening
    from llm_proxy.features.planning_phase import PlanningPhase
    from llm_proxy.server.clients import Client
    from llm_proxy.server.gateway import Gateway

_LOG = logging.getLogger(__name__)

Purpose = Literal["generate", "embed"]
_MOST_NAMED = 10


class LeftOut(msgspec.Struct, frozen=True):
    """A call that would not be made now. `state`: cooling, disabled, unusable, surplus (beyond the 32nd), or `refused` by a limit;
    `seconds` until that changes by itself, 0 = unknown.
    """

    backend: str
    model: str
    key: str
    state: str
    reason: str
    seconds: float = 0.0

    @property
    def why(self) -> str:
        """State and reason as a phrase."""
        wait = f" for {math.ceil(self.seconds)} s" if self.seconds else ""
        return f"{self.state}{wait}, {self.reason.rstrip('.')}"


class Outlook(msgspec.Struct, frozen=True):
    """What would be attempted now for a name, in order, and what would not."""

    decision: Decision
    attempts: tuple[Attempt, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    policy: str = ""


class Router:
    """See the module. One for each configuration."""

    def __init__(self, gateway: Gateway, planning: PlanningPhase | None) -> None:
        options = gateway.settings.get(ChoiceOptions)
        self._gateway = gateway
        self._planning = planning
        self.routes = options.failover_routes
        self.choices = Choices(
            static_route=(options.static_route or "").strip(),
            force_model=(options.force_model or "").strip(),
            aliases=Aliases(options.model_aliases),
            known=gateway.backends,
            routes=self.routes,
            default=gateway.settings.default_backend,
        )
        # What reaches an embedding model must not be answered by the chat model that is pinned or chosen for generations.
        self._for_embeddings = msgspec.structs.replace(self.choices, static_route="", force_model="")

    # Deciding

    def decide(
        self, requested: str, session: Session, one_off: str = "", *, side: bool = False, purpose: Purpose = "generate"
    ) -> Decision:
        """Where a request for `requested` goes in this session (RT-02). Raises FaultError for a name that is none."""
        check_name(requested)
        chosen = str(session.values.get("backend") or "")
        if chosen and chosen not in self._gateway.backends:
            session.choose("backend", None)
            _LOG.warning("session %s: back end %s is no longer configured; the choice is dropped", session.id, chosen)
        if purpose == "embed":
            kept = {"backend": session.values.get("backend")}
            return decide(self._for_embeddings, requested, kept)
        strong = "" if self._planning is None or side else self._planning.strong_model(session)
        decision = decide(self.choices, requested, session.values, one_off, strong)
        _LOG.debug("session %s: %r goes to %s (%s)", session.id, requested, named(decision), decision.rule)
        return decision

    def refusal(self, what: Literal["model", "backend", "one-off"]) -> str:
        """Why an operator's lock forbids to choose it (RT-04, RT-05), or ""."""
        return refusal(self.choices, what)

    def backend_of(self, decision: Decision) -> Backend:
        """The back end of a decision that names no route (RT-03)."""
        backends = self._gateway.backends
        named_one = backends.get(decision.backend) if decision.backend else None
        return named_one or backends.default

    # Planning

    def thread(self, session: Session, opening: Opening, side: bool, continued: str = "") -> Thread:
        """What keeps this conversation at the key that holds its prompt cache. Errands beside it move nothing.

        Agents run several conversations in one session; they are told apart by how they begin, or, where the provider keeps the turns,
        by the one that the request continues: `continued` is its name.
        """
        if side:
            return NO_THREAD
        name = name_of_session(session)
        return Thread(name, continued or f"{name}\n{hash(opening.first_user)}", opening.answered)

    def plan(
        self,
        decision: Decision,
        session: Session,
        caller: Client,
        *,
        thread: Thread = NO_THREAD,
        looking: bool = False,
        normal: Decision | None = None,
    ) -> Plan:
        """The attempts for a decision (RT-03, RT-07, RT-08). Raises FaultError when there is no usable target.

        `normal` is the decision behind that of the planning phase: what is attempted when the strong model fails (REQ-05).
        """
        if normal is None:
            return self._plan(decision, session, caller, thread, looking)
        # A request deals one key of a back end: what stands behind at the same one begins where the strong model does.
        dealt = self._deals(decision) is not None and self._deals(decision) is self._deals(normal)
        refusal: FaultError | None = None
        try:
            behind = self._plan(normal, session, caller, thread, looking or dealt)
        except FaultError as error:
            refusal, behind = error, self._none(normal, error.fault.message)
        try:
            plan = self._plan(decision, session, caller, thread, looking)
        except FaultError as error:
            if refusal is not None:
                raise refusal from None
            reason = f"the strong model of the planning phase cannot be used: {error.fault.message}"
            self._gateway.running.warn_rarely(reason)
            plan = self._none(decision, reason)
        strong = tuple(msgspec.structs.replace(attempt, planned=True) for attempt in plan.attempts)
        # What only cools is for the strong model too, when it was waited for.
        cooling = tuple(msgspec.structs.replace(attempt, planned=True) for attempt in plan.cooling)
        return Plan(strong, plan.skipped, cooling).followed_by(behind)

    def _none(self, decision: Decision, reason: str) -> Plan:
        """No attempt, and why."""
        return Plan((), (Skipped(self.backend_of(decision).id, decision.model, "", "unusable", reason=reason),))

    def _deals(self, decision: Decision) -> Backend | None:
        """The back end whose rotation a plan for this decision advances."""
        backend = None if decision.route else self.backend_of(decision)
        return None if backend is None or backend.settings.fallback is not None else backend

    def _plan(self, decision: Decision, session: Session, caller: Client, thread: Thread, looking: bool) -> Plan:
        keyring = self._gateway.keyring
        if decision.route:
            route = self._route(decision)
            plan = plan_route(list(self._elements(route.elements, session, caller)), route.policy, keyring)
            if not looking:
                self._warn_of_unusable(f"route {decision.route}", plan.skipped)
            return plan
        backend = self.backend_of(decision)
        fallback = backend.settings.fallback
        if fallback is not None and (other := self._gateway.backends.get(fallback.backend)) is not None:
            elements = [
                Element(one, model, redirect_of(session, caller, self._gateway, one))
                for one, model in ((backend, decision.model), (other, fallback.model))
            ]
            plan = plan_route(elements, "m", keyring)
            if not looking:
                self._warn_of_unusable(f"back end {backend.id} with its fallback", plan.skipped)
            return plan
        redirect = redirect_of(session, caller, self._gateway, backend)
        return plan_target(backend, decision.model, keyring, thread=thread, redirect=redirect, looking=looking)

    def _route(self, decision: Decision) -> RouteSettings:
        """Raises FaultError for a name that no route has."""
        if (route := self.routes.get(decision.route)) is not None:
            return route
        there = ", ".join(sorted(self.routes)[:_MOST_NAMED])
        advice = (
            f"there are: {there}."
            if there
            else "none is configured; write one under failover_routes, or make one in the chat."
        )
        message = f"There is no {decision.rule[:300]}; {advice}"
        raise FaultError(Fault(kind="not_found", message=message, param="model", side="client"))

    def _elements(self, names: Sequence[str], session: Session, caller: Client) -> Iterator[Element]:
        for name in names:
            target = parse(name, self._gateway.backends)
            if target.backend and (backend := self._gateway.backends.get(target.backend)) is not None:
                yield Element(backend, target.model, redirect_of(session, caller, self._gateway, backend))

    def _warn_of_unusable(self, where: str, skipped: Sequence[Skipped]) -> None:
        for skip in skipped:
            if skip.state == "unusable":
                self._gateway.running.warn_rarely(f"{where}: {skip.backend}:{skip.model} is passed over: {skip.reason}")

    # What is known of an attempt

    def window_of(self, attempt: Attempt) -> int:
        """The known context window in tokens: the configured one, else the catalogue's; 0 = unknown."""
        limits = model_defaults_for(self._gateway.settings, attempt.backend.id, attempt.model).limits
        return limits.context_window or attempt.backend.limits(attempt.model).context_window

    def candidate(self, attempt: Attempt) -> Candidate:
        """The attempt as rooms see it."""
        known = attempt.backend.limits(attempt.model)
        return Candidate(attempt.backend.id, attempt.model, known.context_window, known.max_input, known.max_output)

    # Looking ahead

    def outlook(self, requested: str, session: Session, caller: Client, one_off: str = "") -> Outlook:
        """What would be attempted now for `requested`, and what would not. Raises FaultError for a name that is none."""
        decision = self.decide(requested, session, one_off)
        return self._outlook(decision, session, caller, self.normal(decision, requested, session, one_off))

    def outlook_of_route(self, name: str, session: Session, caller: Client) -> Outlook:
        """The same for a failover route, whatever else would decide before it."""
        return self._outlook(Decision("", "", "failover route", name), session, caller, None)

    def _outlook(self, decision: Decision, session: Session, caller: Client, normal: Decision | None) -> Outlook:
        # Who looks with a session means that its conversation goes on: with the key that holds it.
        thread = Thread(name_of_session(session), continues=True) if session.id else NO_THREAD
        try:
            plan = self.plan(decision, session, caller, thread=thread, looking=True, normal=normal)
        except FaultError as error:
            place = ("route", decision.route) if decision.route else (self.backend_of(decision).id, decision.model)
            return Outlook(decision, (), (LeftOut(*place, "", "unusable", error.fault.message),))
        attempts: list[Attempt] = []
        left_out = [_left_out(skip) for skip in plan.skipped]
        for attempt in plan.attempts:
            reason = self._refused(attempt, caller.key_name)
            if reason:
                left_out.append(LeftOut(attempt.backend.id, attempt.model, attempt.key_name, "refused", reason))
            else:
                attempts.append(attempt)
        fallback = None if decision.route else self.backend_of(decision).settings.fallback
        policy = self.routes[decision.route].policy if decision.route else "k" if fallback is None else "m"
        return Outlook(decision, tuple(attempts), tuple(left_out), policy)

    def normal(self, decision: Decision, requested: str, session: Session, one_off: str) -> Decision | None:
        """The decision without the planning phase, where it was that phase that decided."""
        return decide(self.choices, requested, session.values, one_off) if decision.planned else None

    def _refused(self, attempt: Attempt, key_name: str) -> str:
        candidate = self.candidate(attempt)
        for room in self._gateway.on_outlook:
            try:
                reason = room.outlook(candidate, key_name)
            except Exception:
                _LOG.exception("room %s failed in outlook", room.name)
                continue
            if reason:
                return reason
        return ""


def name_of_session(session: Session) -> str:
    """The session among those of all clients."""
    return f"{session.scope}\n{session.id}"


def named(decision: Decision) -> str:
    """Back end and model in words."""
    if decision.route:
        return f"route {decision.route}"
    return f"{decision.backend or 'the default back end'}:{decision.model or 'its default model'}"


def _left_out(skip: Skipped) -> LeftOut:
    match skip.state:
        case "cooling":
            reason = f"the provider answered {skip.status} and asked for a pause"
        case "disabled":
            reason = f"the provider refused this key with {skip.status}"
        case "surplus":
            reason = "a request makes at most 32 attempts"
        case _:
            reason = skip.reason
    return LeftOut(skip.backend, skip.model, skip.key, skip.state, reason, skip.seconds)
