"""One generating request's whole life: read, route, try, deliver, record.

The exchange owns the only cancel scope: whoever ends it (the client leaving, the process stopping) frees the upstream in every phase.
It decides nothing about protocols, providers or features; it calls those who do, in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_proxy.backends.base import Call
from llm_proxy.backends.transport import ConnectError
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.request import Message
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import ReadContext
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.features import AskAgain, Feature, Filter
from llm_proxy.features.exchange import AttemptRecord
from llm_proxy.log_context import SESSION
from llm_proxy.performance_tracker import REQUEST_BODY, track_request_performance
from llm_proxy.routing.attempt import Trail, verdict
from llm_proxy.routing.plan import Attempt
from llm_proxy.server import local_answers, preparing, response_cache, stored_responses, unserved
from llm_proxy.server.asked import Asked
from llm_proxy.server.capture import Recorder, recorder
from llm_proxy.server.clients import Client, session_headers
from llm_proxy.server.delivery import Delivery, shows_thinking
from llm_proxy.server.gateway import Gateway, new_id
from llm_proxy.server.http import JSON_TYPE, Disconnected, Incoming, Outgoing, Presence, encode_headers
from llm_proxy.server.paths import Route
from llm_proxy.server.preparing import Prepared
from llm_proxy.server.timing import TimedResponse
from llm_proxy.server.translation import RoomFilter
from llm_proxy.wire.headers import returnable_response_headers

if TYPE_CHECKING:
    from llm_proxy.backends.transport import Response

_LOG = logging.getLogger(__name__)


class Exchange(Asked):
    """See the module. Fulfils `features.exchange.ExchangeView`."""

    def __init__(
        self,
        gateway: Gateway,
        incoming: Incoming,
        outgoing: Outgoing,
        route: Route,
        *,
        request_id: str,
        caller: Client,
    ) -> None:
        super().__init__(gateway, incoming, outgoing, route, request_id=request_id, caller=caller)
        self.perf = track_request_performance()
        self._one_off = ""
        self.interrupted: Fault | None = None
        self.spent: Usage | None = None
        """What calls have used whose answer a room did not want."""
        self.more: tuple[Message, ...] = ()
        """What is asked beyond the client's request, since a room wanted another answer."""
        self._asked_again = 0
        self._calls = 0
        self._verbatim = False
        self._lookup: response_cache.Lookup | None = None
        self._delivery: Delivery | None = None
        self.losses: list[str] = []
        self.rate_headers: list[tuple[str, str]] = []
        self.message_begun = False
        """A keep-alive has sent Anthropic's `message_start`, though no attempt has answered yet."""
        self._clock = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._presence: Presence | None = None
        self._finishing = False
        self._answer_headers: list[tuple[str, str]] = []
        self._answered = 0

    @property
    def may_ask(self) -> bool:
        """May a room want another answer? Not once anything of this one was sent, not without end, and not of a request unread."""
        delivery = self._delivery
        if delivery is None or delivery.sent or delivery.several or self._asked_again >= _MOST_ASKED:
            return False
        return self.readable is not None

    @property
    def shows_reasoning(self) -> bool:
        """Can the client be shown the reasoning of this answer?"""
        return self._verbatim or shows_thinking(self)

    # The life

    async def run(self) -> None:
        """Serves the request. Raises FaultError when nothing was sent yet and the client shall get an error answer."""
        gateway = self.gateway
        self._task = asyncio.current_task()
        gateway.running.active.add(self)
        self.perf.turn_to(REQUEST_BODY)
        try:
            self.body = await self.incoming.body(gateway.limits.max_request_bytes)
            self.perf.turn_to("command_processing")
            self._read(self.body)
            self.head = self.client.read_head(self._document, self.route.name, self.route.stream)
            self.requested_model, self.stream, self.user = self.head.model, self.head.stream, self.head.user
            await self._meet()
            gateway.lines.came(self)
            with Presence(self.incoming, self.outgoing) as self._presence:
                await self._pass_rooms()
                if self.local_text is not None:
                    self.perf.turn_to("response_processing")
                    await local_answers.deliver(self, self.local_text)
                else:
                    await self._tries()
        except FaultError as error:
            await self._end_with(error.fault)
        except asyncio.CancelledError:
            if self.interrupted is None:
                raise
            if self._task is not None:
                self._task.uncancel()
            await self._end_with(self.interrupted)
        except Disconnected:
            self.cancelled = True
        finally:
            self._finishing = True
            gateway.running.active.discard(self)
            self.duration = time.monotonic() - self._clock
            self._settle_one_off()
            for room in gateway.on_finish:
                self.walled(room, "on_finish", self)
            if self.session.id:
                gateway.sessions.release(self.session)
            self.perf.finish()
            gateway.lines.ended(self)

    async def _meet(self) -> None:
        """Whose conversation this is, which client sent it, and whether it is a turn at all (SES-01, AGT-01, AGT-04)."""
        known = await self.caller.recognise(self.client, self._document, self.requested_model)
        self.opening, self.session, self.side = known.opening, known.session, known.side
        self.conversation = known.conversation
        SESSION.set(self.session.id)
        self._parameters = local_answers.parameters_of(self._document)
        if known.foreign:  # a body field that is the proxy's own, not the provider's
            self.client_body = self.body
            self._read(local_answers.without_session_id(self.body))

    async def _pass_rooms(self) -> None:
        """The rooms see the request, in order, until one answers it."""
        gateway = self.gateway
        if self.client.name == "openai-responses" and stored_responses.refers(self.body):
            await self._write_out()
        try:
            for room in gateway.on_request:
                self.walled(room, "on_request", self)
                if self.local_text is not None:
                    break
        finally:  # commands that have run hold, also when another room refuses the rest of the message
            await self._keep_changes()

    async def _keep_changes(self) -> None:
        """What commands of this message changed is saved, and for all put in force."""
        gateway = self.gateway
        if self._desk is not None and self.session.changed:
            gateway.sessions.save(self.session)  # what was set in the chat does not wait for the end of a long answer
        if self._desk is not None and self._desk.changes:
            await gateway.running.change(self._desk.changes)
            # What this very message changed for all holds for itself too.
            self.gateway = gateway.running.gateway

    async def _write_out(self) -> None:
        """A request that builds on kept responses is written out before rooms see it, so that they see the whole conversation."""
        body = await stored_responses.standing_alone(self.gateway.store, self.session.scope, self.body, native=True)
        if body is not self.body:
            self.client_body = self.client_body or self.body
            self._read(body)
            self.opening = self.client.read_opening(self._document)
            self.previous_id = stored_responses.previous_id(self.client_body)

    def _settle_one_off(self) -> None:
        """A one-off is spent when its request succeeded or could never have; else it waits for the next (RT-11)."""
        if not self._one_off:
            return
        session, taken, self._one_off = self.session, self._one_off, ""
        answered = self.fault is None and not (self.cancelled and self.time_to_first is None)
        if not answered and not (self.fault is not None and verdict(self.fault) != "next") and not session.one_off:
            session.one_off = taken
        session.touch()

    async def _end_with(self, fault: Fault) -> None:
        """The error answer; or, when keep-alives have already opened a stream, the error in the stream."""
        self.fault = fault
        if not self.outgoing.started:
            raise FaultError(fault) from None
        if not self.outgoing.ended:
            await self.outgoing.end(self.client.glancer().failure_frames(self.gateway.shown(fault)))

    @property
    def _gone(self) -> bool:
        return self._presence is not None and self._presence.gone

    def interrupt(self, fault: Fault) -> None:
        """Ends the exchange from outside: the client gets `fault` in its protocol."""
        if not self._finishing and self._task is not None:
            self.interrupted = fault
            self._task.cancel()

    def walled(self, room: Feature, hook: str, *arguments: object) -> object:
        """Calls a hook; what it raises ends at this wall, unless the room fails closed or says so with a FaultError.

        When all is over nothing passes: the other rooms finish too, and the session is released.
        """
        try:
            return getattr(room, hook)(*arguments)
        except FaultError:
            if not self._finishing:
                raise
            self._fell(room, hook)
            return None
        except Exception:
            self._fell(room, hook)
            return None

    def _fell(self, room: Feature, hook: str) -> None:
        """Notes the exception that was just caught at the wall of `room`. Raises FaultError where the room fails closed."""
        _LOG.exception("%s: room %s failed in %s", self.id, room.name, hook)
        if room.fails_closed and not self._finishing:
            raise FaultError(
                Fault(
                    kind="internal", message=f"the safeguard {room.name} failed; the proxy's log says why", side="proxy"
                )
            ) from None

    def _trail(self) -> Trail:
        """The attempts of this request. Raises FaultError when there can be none."""
        if self.session.one_off and not self.side:
            self._one_off, self.session.one_off = self.session.one_off, ""
        router, session = self.gateway.router, self.session
        decision = router.decide(self.requested_model, session, self._one_off, side=self.side)
        thread = router.thread(session, self.opening, self.side, self.conversation)
        self.conversation = thread.conversation
        normal = router.normal(decision, self.requested_model, session, self._one_off)
        plan = router.plan(decision, session, self.caller, thread=thread, normal=normal)
        return Trail(plan, self.gateway.keyring, thread=thread, window_of=router.window_of)

    async def _tries(self) -> None:
        self.perf.turn_to("backend_selection")
        trail = self._trail()
        left = self.gateway.max_wait
        while True:
            while (attempt := trail.next()) is not None:
                self._aim_at(attempt)
                if (refused := await self._refusal_of(attempt)) is not None:
                    trail.passed_over(attempt, refused)
                elif await self._try(attempt, trail):
                    return
            wait = trail.wait()
            if wait is None or wait > left:
                raise FaultError(await unserved.explained(trail))
            left -= wait
            await self._rest(wait)
            trail.again()

    def _aim_at(self, attempt: Attempt) -> None:
        self.perf.turn_to("backend_selection")
        if self.planned and not attempt.planned:
            self.gateway.running.warn_rarely(
                f"planning phase: {self.backend}:{self.model} failed, {attempt.backend.id}:{attempt.model} is asked instead"
            )
        self.backend, self.model, self.planned = attempt.backend.id, attempt.model, attempt.planned
        self.address = attempt.redirect.base_url if attempt.redirect is not None else ""

    async def _refusal_of(self, attempt: Attempt) -> Fault | None:
        """Why a room does not let this attempt be made."""
        candidate = self.gateway.router.candidate(attempt)
        for room in self.rooms.on_admit:
            try:
                fault = await room.admit(self, candidate)
            except FaultError:
                raise
            except Exception:
                self._fell(room, "admit")
                fault = None
            if fault is not None:
                return fault
        return None

    async def _rest(self, seconds: float) -> None:
        """Waits for a cooling key; the client is kept alive meanwhile, and its leaving ends the wait."""
        delivery = Delivery(self)
        self.perf.turn_to("backend_selection")
        try:
            await asyncio.sleep(seconds + _TICK)
        finally:
            delivery.close()

    async def _try(self, attempt: Attempt, trail: Trail) -> bool:
        """One attempt, in as many calls as rooms want; true when the client has its answer, false when the next one may be made."""
        self.more = ()  # what an earlier target was told of its answers is nothing to this one
        while True:
            self.perf.turn_to("backend_selection")  # what is written for this target is part of choosing it
            try:
                return await self._one_call(attempt, trail)
            except AskAgain as wish:
                _LOG.info("%s: %s:%s is asked again: %s", self.id, self.backend, self.model, wish.reason)
                self._asked_again += 1
                self.note("asked again")

    async def _one_call(self, attempt: Attempt, trail: Trail) -> bool:
        """One call; true when the client has its answer. Raises AskAgain when a room wants another one of the same target."""
        delivery = self._delivery = Delivery(self)
        self._answer_headers, self._answered = [], 0
        prepared: Prepared | None = None
        try:
            prepared = await preparing.prepare(self, attempt)
            self._lookup = response_cache.look_up(self, attempt, prepared)
            if self._lookup is not None and self._lookup.found is not None:
                await response_cache.deliver(self, self._lookup.found, prepared)
                return True
            await self._call(attempt, prepared, delivery)
        except FaultError as error:
            fault = error.fault
            if prepared is None and fault.kind == "bad_request":
                # What this target cannot take, such as a kind of media, another one may (FE-13).
                trail.passed_over(attempt, fault)
                return False
            if fault.side != "upstream" and not delivery.sent:
                if self._answered:  # a room lets no such answer pass: the call was made all the same
                    self._record(attempt, fault)
                raise
            self._record(attempt, fault)
            if delivery.sent:
                self.fault = fault
                if fault.side == "upstream":
                    trail.failed(attempt, fault, self._answer_headers, time.time(), answered=self._answered)
                await delivery.fail(fault)
                return True
            connecting = isinstance(error, ConnectError)
            trail.failed(
                attempt, fault, self._answer_headers, time.time(), connecting=connecting, answered=self._answered
            )
            return False
        except AskAgain as wish:
            self._record(attempt, None)
            self.more += delivery.with_thoughts(wish.messages)
            self.spent = delivery.used if self.spent is None else self.spent.plus(delivery.used)
            raise
        except asyncio.CancelledError:
            self._record(attempt, None)
            if self.interrupted is not None and delivery.sent and not self._gone:
                self.fault = self.interrupted
                if self._task is not None:
                    self._task.uncancel()
                await delivery.fail(self.interrupted)
                return True
            raise
        finally:
            delivery.close()
            self._delivery = None
        self._record(attempt, self.fault)
        if self.fault is None:
            trail.succeeded(attempt)
            if self._lookup is not None:
                self._lookup.keep(self)
        return True

    def _record(self, attempt: Attempt, fault: Fault | None) -> None:
        status = fault.status_code if fault else self._answered
        self.attempts.append(AttemptRecord(attempt.backend.id, attempt.model, attempt.key_name, status))

    async def _call(self, attempt: Attempt, prepared: Prepared, delivery: Delivery) -> None:
        self._verbatim = prepared.verbatim
        self.perf.turn_to("backend_call")
        if prepared.duties.copies > 1:
            responses: list[Response] = []
            try:
                await self._open_copies(attempt, prepared, responses)
                await delivery.copies(responses, prepared)
            finally:
                for response in responses:
                    response.close()
            return
        try:
            response = await self._open(attempt, prepared)
        except FaultError as error:
            # A 400 that names a parameter teaches what the model refuses; one repeat without it (translation.md section 12).
            fault = error.fault
            if fault.kind != "bad_request" or not attempt.backend.learn(
                attempt.model, prepared.dialect.name, fault, attempt.redirect
            ):
                raise
            refused, prepared = prepared.body, await preparing.prepare(self, attempt)
            if prepared.body == refused:
                raise  # the client's own bytes, which are not the proxy's to change
            response = await self._open(attempt, prepared)
        self.perf.turn_to("response_processing")
        try:
            await delivery.deliver(TimedResponse(response, self.perf), prepared)
        finally:
            response.close()

    async def _open(self, attempt: Attempt, prepared: Prepared) -> Response:
        """The upstream's answer once its headers are here and say success. Raises FaultError otherwise."""
        self.gateway.health.used(attempt.backend)
        response = await attempt.backend.open(
            Call(
                dialect=prepared.dialect.name,
                model=attempt.model,
                stream=self.stream,
                body=prepared.body,
                headers=prepared.headers,
                identity=self.gateway.identity(attempt.backend, self.incoming),
                key=attempt.key,
                request_id=self.id,
                loop_guard=self.gateway.hops(self.incoming),
                redirect=attempt.redirect,
                session=self.session.address,
                directory=str(self.session.values.get("project-dir") or ""),
                tap=self._tap(attempt),
            )
        )
        self._answer_headers, self._answered = response.headers, response.status
        self.losses += [loss for loss in getattr(response, "losses", ()) if loss not in self.losses]
        try:
            self.rate_headers = _returned(response.headers)
            if not 200 <= response.status < 300:
                body = await response.read(self.gateway.limits.max_answer_bytes)
                raise FaultError(prepared.dialect.read_error(response.status, response.headers, body))
        except BaseException:
            response.close()
            raise
        return response

    def _tap(self, attempt: Attempt) -> Recorder | None:
        """Who listens to the next call."""
        self._calls += 1
        return recorder(
            self.gateway.running.capture,
            self.incoming,
            attempt,
            session=self.session.id,
            request_id=self.id,
            number=len(self.attempts) + 1,
            call=self._calls,
            left=lambda: self._gone,
        )

    async def _open_copies(self, attempt: Attempt, prepared: Prepared, responses: list[Response]) -> None:
        """The same call several times at once. Whoever gave `responses` closes what is in it, whatever happens here."""

        async def one() -> None:
            responses.append(await self._open(attempt, prepared))

        calls = [asyncio.create_task(one()) for _ in range(prepared.duties.copies)]
        try:
            await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    # What a delivery needs

    async def answer_whole(self, body: bytes) -> None:
        """The whole answer to the client."""
        if self._lookup is not None:
            self._lookup.answer = body
        await self.outgoing.whole(200, [JSON_TYPE, *encode_headers(self.headers())], body)

    def read_context(self, prepared: Prepared) -> ReadContext:
        return ReadContext(maker=prepared.maker, new_call_id=self._new_call_id)

    def _new_call_id(self, response_id: str, ordinal: int) -> str:
        """An id for a call that has none; an answer without an id of its own is told apart by the exchange's."""
        return derived_call_id(response_id or self.id, ordinal)

    def filters(self) -> Sequence[RoomFilter]:
        """The rooms that want to see this answer."""
        found = ((room, self.walled(room, "watch", self)) for room in self.rooms.watching)
        return [RoomFilter(room, one) for room, one in found if isinstance(one, Filter)]

    def headers(self) -> list[tuple[str, str]]:
        """The proxy's own response headers (FE-12)."""
        pairs = [("x-request-id", self.id), *session_headers(self.session)]
        if self.backend:
            pairs += [("x-llm-proxy-backend", self.backend), ("x-llm-proxy-model", self.model)]
        if self.command_lines:
            pairs.append(("x-llm-proxy-commands", local_answers.header_text(self.command_lines)))
        if self.client.name == "anthropic-messages":
            pairs.append(("request-id", self.id))
        if len(self.attempts) > 0:
            pairs.append(("x-llm-proxy-attempts", str(len(self.attempts) + 1)))
        if self._lookup is not None:
            pairs.append(("x-cache", "hit" if self.cached else "miss"))
        if self.losses:
            pairs.append(("x-llm-proxy-warnings", "; ".join(self.losses)[:2000]))
        if self.gateway.lines.summary and not self.stream:
            pairs.append(("x-llm-proxy-overhead-ms", f"{self.perf.overhead_ms:.2f}"))
        return pairs + self.rate_headers

    def error_headers(self, fault: Fault) -> list[tuple[str, str]]:
        """As `headers`, for an error answer: names only what was really called."""
        pairs = [("x-request-id", self.id), *session_headers(self.session)]
        if self.attempts:
            pairs += [
                ("x-llm-proxy-backend", self.backend),
                ("x-llm-proxy-model", self.model),
                ("x-llm-proxy-attempts", str(len(self.attempts))),
            ]
        return pairs + (self.rate_headers if fault.side == "upstream" else [])

    def first_content(self) -> None:
        if self.time_to_first is None:
            self.time_to_first = time.monotonic() - self._clock
            self.perf.answered()

    def fresh_id(self, prefix: str) -> str:
        return new_id(prefix)


_MOST_ASKED = 8  # calls that rooms may want beyond the first, for one request
_TICK = 0.002  # seconds by which a timer of the event loop may come too early


def _returned(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a client gets of the provider's headers: rate limits, when to retry, the provider's own request id."""
    pairs = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in returnable_response_headers(pairs)]
