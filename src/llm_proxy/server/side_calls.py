"""Embeddings and legacy completions (FE-09): routed and keyed like a generation, their bodies kept but for the model's name.

No room sees them. The client leaving frees the upstream, and the usage page lists them.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from llm_proxy import dialects
from llm_proxy.backends.base import Action, Call
from llm_proxy.backends.transport import ConnectError, Response
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.openai_chat import legacy
from llm_proxy.features import audit
from llm_proxy.features.exchange import AttemptRecord
from llm_proxy.features.rate_limits import RateLimits
from llm_proxy.features.usage import About
from llm_proxy.routing.attempt import Trail
from llm_proxy.routing.plan import Attempt
from llm_proxy.server import refusing, unserved
from llm_proxy.server.capture import recorder
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing, Presence, read_members
from llm_proxy.server.paths import Route
from llm_proxy.server.router import Purpose
from llm_proxy.server.translation import FrameSource
from llm_proxy.wire import json as wire_json

_MOST_BYTES = 64 * 1024 * 1024


async def embeddings(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await SideCall(gateway, incoming, outgoing, headers, key, "embeddings").run()


async def completions(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await SideCall(gateway, incoming, outgoing, headers, key, "completions").run()


class SideCall:
    """One request, from its body to its row on the usage page. Fulfils `features.exchange.CallView`."""

    def __init__(
        self, gateway: Gateway, incoming: Incoming, outgoing: Outgoing, headers: Headers, key: str, action: Action
    ) -> None:
        self._gateway = gateway
        self._incoming = incoming
        self._outgoing = outgoing
        self._headers = headers
        self.key_name = key
        self.cancelled = False
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self.attempts: list[AttemptRecord] = []
        self.time_to_first: float | None = None
        self._body = b""
        self._action = action
        self._chat = dialects.get("openai-chat")
        self._caller = Client(gateway, incoming, key)
        self._session = self._caller.named_session()
        self._began = time.time()
        self._model, self._user = "", ""
        self._audit = gateway.audit_room if action == "completions" else None
        self._said = ""
        self._answer_id = ""

    @property
    def size(self) -> int:
        return len(self._body)

    def parameters(self) -> dict[str, Any]:
        members = read_members(self._body)
        return {"max_tokens": members.get("max_tokens")} if self._action == "completions" else {"max_tokens": 1}

    async def run(self) -> None:
        """Raises FaultError while nothing was sent."""
        self._body = await self._incoming.body(self._gateway.limits.max_request_bytes)
        embedding = self._action == "embeddings"
        head = (legacy.read_embedding_head if embedding else legacy.read_completion_head)(self._body)
        self._model, self._user = head.model, head.user
        self._stream = head.stream and not embedding
        router = self._gateway.router
        purpose: Purpose = "embed" if embedding else "generate"
        decision = router.decide(self._model, self._session, side=True, purpose=purpose)
        self._trail = Trail(router.plan(decision, self._session, self._caller), self._gateway.keyring)
        limits = self._gateway.rate_limits
        try:
            with Presence(self._incoming, self._outgoing) as self._presence:
                await self._tries(limits)
        except FaultError as error:
            self.fault = error.fault
            if self._outgoing.started or not self.attempts:
                raise
            await refusing.send_fault(
                self._gateway, self._outgoing, "openai-chat", error.fault, "", self._own_headers(len(self.attempts))
            )
        except BaseException:
            self.cancelled = True
            raise
        finally:
            if limits is not None:
                limits.on_finish(self)
            self._note_usage()
            self._note_texts()

    async def _tries(self, limits: RateLimits | None) -> None:
        while (attempt := self._trail.next()) is not None:
            if not attempt.backend.supports(self._action):
                self._trail.passed_over(attempt, self._unsupported(attempt))
                continue
            candidate = self._gateway.router.candidate(attempt)
            refused = await limits.admit(self, candidate) if limits is not None else None
            if refused is not None:
                self._trail.passed_over(attempt, refused)
            elif await self._try(attempt):
                return
        raise FaultError(await unserved.explained(self._trail))

    def _own_headers(self, calls: int, attempt: Attempt | None = None) -> Headers:
        """The proxy's response headers (FE-12): who answered, or was called last, and the number of calls when there were several."""
        backend = attempt.backend.id if attempt is not None else self.attempts[-1].backend
        model = attempt.model if attempt is not None else self.attempts[-1].model
        headers = [
            *self._headers,
            (b"x-llm-proxy-backend", backend.encode()),
            (b"x-llm-proxy-model", model.encode("latin-1", "replace")),
        ]
        if calls > 1 or attempt is None:
            headers.append((b"x-llm-proxy-attempts", str(calls).encode()))
        return headers

    def _unsupported(self, attempt: Attempt) -> Fault:
        return bad_request(
            f"back end {attempt.backend.id} has no {self._action}; "
            "back ends of the types openai, openrouter, zai and demo have",
            "model",
        ).fault

    async def _try(self, attempt: Attempt) -> bool:
        answer_headers: list[tuple[str, str]] = []
        status = 0
        try:
            response = await self._open(attempt)
            try:
                answer_headers = response.headers
                await self._deliver(response, attempt)
            finally:
                response.close()
            status = 200
        except FaultError as error:
            status = error.fault.status_code
            connecting = isinstance(error, ConnectError)
            self._trail.failed(attempt, error.fault, answer_headers, time.time(), connecting=connecting)
            if not self._outgoing.started:
                return False
            self.fault = error.fault
            await self._break_off(error.fault)
            return True
        finally:
            self.attempts.append(AttemptRecord(attempt.backend.id, attempt.model, attempt.key_name, status))
        self._trail.succeeded(attempt)
        return True

    async def _open(self, attempt: Attempt) -> Response:
        return await attempt.backend.open(
            Call(
                dialect="openai-chat",
                model=attempt.model,
                action=self._action,
                stream=self._stream,
                body=self._gateway.outgoing(
                    wire_json.replace_member(self._body, "model", wire_json.encode(attempt.model))
                ),
                identity=self._gateway.identity(attempt.backend, self._incoming),
                key=attempt.key,
                redirect=attempt.redirect,
                loop_guard=self._gateway.hops(self._incoming),
                tap=recorder(
                    self._gateway.running.capture,
                    self._incoming,
                    attempt,
                    session=self._session.id,
                    request_id=next((v.decode("latin-1") for name, v in self._headers if name == b"x-request-id"), ""),
                    number=len(self.attempts) + 1,
                    call=len(self.attempts) + 1,
                    left=lambda: self._presence.gone,
                ),
            )
        )

    async def _deliver(self, response: Response, attempt: Attempt) -> None:
        if response.status != 200:
            body = await response.read(_MOST_BYTES)
            raise FaultError(self._chat.read_error(response.status, response.headers, body))
        headers = self._own_headers(len(self.attempts) + 1, attempt)
        if self._stream:
            await self._stream_on(response, headers)
            return
        answer = await response.read(self._gateway.limits.max_answer_bytes)
        self.usage = self._chat.read_usage(answer)
        self.time_to_first = time.time() - self._began
        self._keep(answer)
        await self._outgoing.whole(200, [JSON_TYPE, *headers], answer)

    async def _stream_on(self, response: Response, headers: Headers) -> None:
        """Hands a stream on as it comes and notes the usage that it tells."""
        glancer, frames = self._chat.glancer(), FrameSource()
        stream_type = (b"content-type", b"text/event-stream; charset=utf-8")
        await self._outgoing.start(200, [stream_type, (b"cache-control", b"no-cache"), *headers])
        async for chunk in response.chunks():
            if found := frames.feed(chunk):
                self.usage = glancer.look(found).usage or self.usage
                for frame in found:
                    self._keep(frame.data)
            self.time_to_first = self.time_to_first or time.time() - self._began
            await self._outgoing.write(chunk)
        await self._outgoing.end()

    async def _break_off(self, fault: Fault) -> None:
        """A stream that broke says so; it never just stops."""
        if not self._outgoing.ended:
            await self._outgoing.end(self._chat.glancer().failure_frames(self._gateway.shown(fault)))

    def _keep(self, data: bytes | memoryview | None) -> None:
        """The text of an answer, or of a piece of one, for the audit log."""
        if self._audit is None or data is None or len(self._said) >= audit.MOST_KEPT:
            return
        try:
            piece = _PIECE.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # the end of a stream, or nothing that has a text
        self._answer_id = self._answer_id or piece.id
        text = "".join(choice.text for choice in piece.choices if choice.index == 0)
        self._said += text[: audit.MOST_KEPT]

    def _note_texts(self) -> None:
        """The entry of the audit log."""
        if self._audit is None:
            return
        prompt = read_members(self._body).get("prompt")
        texts = prompt if isinstance(prompt, list) else [prompt]
        last, session = self.attempts[-1] if self.attempts else None, self._session
        self._audit.add(
            audit.Told(
                id=next((value.decode("latin-1") for name, value in self._headers if name == b"x-request-id"), ""),
                time=self._began,
                agent=self._incoming.header(b"user-agent"),
                user=self._user,
                model=f"{last.backend}:{last.model}" if last is not None else self._model,
                prompt="\n".join(text for text in texts if isinstance(text, str)),
                answer=self._said,
                completion_id=self._answer_id,
                project=str(session.values.get("project") or ""),
                session=session.id,
                key_name=self.key_name,
                fault=None if self.cancelled else self.fault,
            )
        )

    def _note_usage(self) -> None:
        """One row, however many attempts it took; none when nothing was called."""
        recording = self._gateway.usage_recording
        if recording is None or not self.attempts:
            return
        last, session = self.attempts[-1], self._session
        answered = self.time_to_first is not None
        estimate = Usage(input=max(1, self.size // 4), output=0, source="estimated")
        about = About(
            id=next((value.decode("latin-1") for name, value in self._headers if name == b"x-request-id"), ""),
            started=self._began,
            duration=time.time() - self._began,
            surface=self._action,
            kind="embeddings" if self._action == "embeddings" else "completions",
            requested_model=self._model,
            backend=last.backend,
            model=last.model,
            status=last.status,
            stream=self._stream,
            session=session.id,
            user=self._user,
            agent=session.agent or self._incoming.header(b"user-agent")[:200],
            project=str(session.values.get("project") or ""),
            estimate=estimate if answered or self.cancelled else None,
        )
        recording.add(self, about)


class _Choice(msgspec.Struct):
    text: str = ""
    index: int = 0


class _Piece(msgspec.Struct):
    id: str = ""
    choices: list[_Choice] = []


_PIECE = msgspec.json.Decoder(_Piece)
