"""What each part costs alone, without sockets: each dialect's readers and writers, the SSE reader, each room.

A figure is the smallest of several repetitions: what disturbs a measurement only ever adds to it. Bodies and
streams of all four protocols hold the same content; they are written by the dialects from one conversation.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import msgspec

from benchmarks import answers
from benchmarks.bodies import Size, request_body
from llm_proxy import dialects
from llm_proxy.config import load_settings
from llm_proxy.conversation.events import Event
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects import capabilities
from llm_proxy.dialects.base import Dialect, ReadContext, ReplyContext, Target
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.features.edit_precision import EditPrecision, EditPrecisionOptions, Patterns
from llm_proxy.features.exchange import AttemptRecord, ExchangeView
from llm_proxy.features.order import Needs, rooms
from llm_proxy.features.rate_limits import Counts
from llm_proxy.option_groups import GROUPS
from llm_proxy.server.capture import Recorder
from llm_proxy.sessions.session import Session
from llm_proxy.store.capture.capture import Capture, CaptureSettings
from llm_proxy.store.capture.heard import Caller, Heard, Piece, Sent
from llm_proxy.store.capture.lines import Lines
from llm_proxy.store.capture.waiting import Waiting
from llm_proxy.store.usage import MemoryUsage
from llm_proxy.tokens import tokenizer
from llm_proxy.tokens.content import content_of
from llm_proxy.tokens.families import family_of
from llm_proxy.tokens.meter import Meter
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.sse import Frame, SseReader

_CHUNKS = 300
_SIZES: tuple[tuple[Size, str], ...] = (("small", "2 kB"), ("agent", "100 kB"))
_MODELS = {
    "openai-chat": "gpt-4.1",
    "openai-responses": "gpt-4.1",
    "anthropic-messages": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
}


class MicroFigure(msgspec.Struct, frozen=True):
    """One line of the table. `unit`: what the microseconds are for."""

    part: str
    operation: str
    unit: str
    micros: float


class Stopwatch:
    """Times calls, each for about `seconds` in all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def micros(self, call: Callable[[], object], per: int = 1) -> float:
        """The smallest time of one call in µs, divided by `per`."""
        call()
        begin = time.perf_counter()
        call()
        once = max(time.perf_counter() - begin, 1e-7)
        inner = max(1, int(0.002 / once))
        best = float("inf")
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            for _ in range(inner):
                call()
            best = min(best, (time.perf_counter() - begin) / inner)
        return best * 1e6 / per


class _Samples:
    """The same conversation in one dialect: bodies, an answer, a stream."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        model = _MODELS[dialect.name]
        self.target = Target(model=model, capabilities=capabilities.lookup(dialect.name, model), stream=True)
        chat = dialects.get("openai-chat")
        self.read_context = ReadContext(maker="", new_call_id=derived_call_id)
        self.foreign = {
            size: chat.read_request(request_body("openai-chat", size, "gpt-4.1", True)) for size, _ in _SIZES
        }
        self.bodies = {
            size: wire_json.encode(dialect.write_request(request, self.target).body)
            for size, request in self.foreign.items()
        }
        self.path_model = model if dialect.name == "gemini" else ""
        whole = answers.whole(False).partition(b"\r\n\r\n")[2]
        self.answer = chat.read_answer(whole, self.read_context)
        self.answer_body = dialect.write_answer(self.answer, self.reply_context())
        self.events = _events()
        writer = dialect.stream_writer(self.reply_context())
        self.stream = b"".join(writer.write([event]) for event in self.events)
        reader = SseReader()
        self.frames: list[Frame] = [*reader.feed(self.stream), *reader.close()]

    def reply_context(self) -> ReplyContext:
        return ReplyContext(
            model=_MODELS[self.dialect.name],
            new_id=lambda prefix: prefix + "0" * 24,
            packer=Envelope(b"benchmark"),
            now=1_760_000_000,
            request=self.foreign["small"],
            include_usage=True,
        )

    def read(self, size: Size) -> object:
        return self.dialect.read_request(self.bodies[size], self.path_model, True)


def _events() -> list[Event]:
    """The events of a stream of `_CHUNKS` text chunks, as the Chat reader gives them."""
    dialect = dialects.get("openai-chat")
    stream = dialect.stream_reader(ReadContext(maker="", new_call_id=derived_call_id))
    parts = answers.pieces(False)
    framed = parts.start + b"".join(map(parts.text, range(_CHUNKS))) + parts.end
    lines = [line for line in framed.split(b"\r\n") if line.startswith(b"data:")]
    found: list[Event] = []
    for frame in SseReader().feed(b"".join(lines)):
        found += stream.feed(frame)
    return [*found, *stream.close()]


def _dialect_figures(dialect: Dialect, watch: Stopwatch) -> list[MicroFigure]:
    samples = _Samples(dialect)
    name = dialect.name
    found: list[MicroFigure] = []

    def add(operation: str, unit: str, call: Callable[[], object], per: int = 1) -> None:
        found.append(MicroFigure(name, operation, unit, watch.micros(call, per)))

    def write_request(request: Request) -> bytes:
        return wire_json.encode(dialect.write_request(request, samples.target).body)

    for size, label in _SIZES:
        body, unit = samples.bodies[size], f"{label} request"
        add("read_head", unit, partial(dialect.read_head, body, samples.path_model, True))
        add("read_request", unit, partial(samples.read, size))
        add("write_request", unit, partial(write_request, samples.foreign[size]))
        add("retarget", unit, partial(dialect.retarget, body, samples.target))
    answer_body = samples.answer_body
    add("read_answer", "2 kB answer", lambda: dialect.read_answer(answer_body, samples.read_context))
    add("write_answer", "2 kB answer", lambda: dialect.write_answer(samples.answer, samples.reply_context()))
    add("read_usage", "2 kB answer", lambda: dialect.read_usage(answer_body))
    frames, events = samples.frames, samples.events

    def read_stream() -> None:
        reader = dialect.stream_reader(samples.read_context)
        for frame in frames:
            reader.feed(frame)

    def write_stream() -> None:
        writer = dialect.stream_writer(samples.reply_context())
        for event in events:
            writer.write([event])

    def glance() -> None:
        glancer = dialect.glancer()
        for frame in frames:
            glancer.look([frame])

    add("stream reader", "event", read_stream, len(events))
    add("stream writer", "event", write_stream, len(events))
    add("glancer", "frame", glance, len(frames))

    def frame_each() -> None:
        reader = SseReader()
        for frame in frames:
            reader.feed(frame.raw)

    add("SSE reader, one frame per read", "frame", frame_each, len(frames))
    add("SSE reader, all frames in one read", "frame", lambda: SseReader().feed(samples.stream), len(frames))
    return found


class _Finished:
    """An exchange as rooms see it when it is over."""

    def __init__(self) -> None:
        self.id, self.surface, self.session, self.key_name = (
            "req-bench",
            "openai-chat",
            Session(id="bench", scope="bench", created=0.0, last_used=0.0),
            "bench",
        )
        self.client_agent, self.user, self.requested_model = "bench/1.0", "", "gpt-4.1"
        self.backend, self.model, self.stream, self.status = "openai", "gpt-4.1", True, 200
        self.cancelled, self.fault, self.usage = False, None, Usage(input=480, output=340)
        self.attempts = [AttemptRecord("openai", "gpt-4.1", "openai#1", 200)]
        self.started, self.duration, self.time_to_first = 1_760_000_000.0, 1.0, 0.2
        self.local = self.side = self.planned = False
        self.project, self.size, self.address = "", 100_000, ""
        self.notes: list[str] = []
        self.cached, self.billed = False, None

    def prompt_text(self) -> str:
        return "Please fix the failing test."

    def answer_text(self) -> str:
        return "The test fails because the total is wrong. " * 20

    def answer_length(self) -> int:
        return len(self.answer_text())

    def answer_calls(self) -> Sequence[tuple[str, str]]:
        return ()

    def parameters(self) -> dict[str, object]:
        return {}


def _needs() -> Needs:
    settings = load_settings((), {}, Path("/nonexistent"), GROUPS)
    clean = Redactor(Secret(f"sk-proj-{n:040d}") for n in range(20)).clean
    return Needs(settings=settings, usage=MemoryUsage(), log=None, clean=clean, counts=Counts(time.monotonic))


def _room_figures(watch: Stopwatch) -> list[MicroFigure]:
    exchange = cast("ExchangeView", _Finished())
    found = []
    for room in rooms(_needs()):
        micros = watch.micros(partial(room.on_finish, exchange))
        found.append(MicroFigure(f"room {room.name}", "on_finish", "request", micros))
    return found


class _Asked(_Finished):
    """An exchange as edit precision sees it when it begins: one tool result of `characters` came in."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        line = "    total = sum(row.amount for row in rows)  # the search of old strings matches\n"
        self.side = self.local = False
        self._recent = (line * (characters // len(line)),) if characters else ()

    def keep_answer(self) -> None:
        return None

    def recent_texts(self) -> Sequence[str]:
        return self._recent


def _edit_precision_figures(watch: Stopwatch) -> list[MicroFigure]:
    room = EditPrecision(EditPrecisionOptions(), Patterns())
    found = []
    for kilobytes in (0, 1, 100, 400):
        exchange = cast("ExchangeView", _Asked(kilobytes * 1000))
        micros = watch.micros(partial(room.on_request, exchange))
        found.append(MicroFigure(f"room {room.name}", f"on_request, {kilobytes} kB of results", "request", micros))
    return found


def _token_figures(watch: Stopwatch) -> list[MicroFigure]:
    """Counting 400 kB of conversation: by bytes, by the estimate, by a tokenizer that has seen nothing yet, and once it has."""
    chat = dialects.get("openai-chat")
    body = request_body("openai-chat", "agent", "gpt-4.1", True)
    request = chat.read_request(body)
    request = msgspec.structs.replace(request, messages=request.messages * (1 + 400_000 // len(body)))
    size = len(body)
    part, unit = "tokens", "400 kB request"

    def counted(meter: Meter) -> None:
        for _ in meter.steps(request, "b", "gpt-4.1"):
            pass

    quick = Meter(tokenize=False)
    found = [
        MicroFigure(part, "bound", unit, watch.micros(lambda: size <= 400_000)),
        MicroFigure(part, "estimate", unit, watch.micros(lambda: quick.quick(request, "b", "gpt-4.1"))),
    ]
    if tokenizer.installed():
        encoding = tokenizer.load("o200k_base")
        texts = [f"{number} {text}" for number, text in enumerate(content_of(request, family_of("gpt-4.1")).texts)]

        def fresh() -> None:
            for _ in tokenizer.Tokenizer(encoding).steps(texts):
                pass

        found.append(MicroFigure(part, "tokenizer, all texts new", unit, watch.micros(fresh)))
        known = Meter()
        known.load("o200k_base")
        found.append(MicroFigure(part, "tokenizer, all texts known", unit, watch.micros(partial(counted, known))))
    return found


def _capture_figures(watch: Stopwatch) -> list[MicroFigure]:
    """What the wire capture costs: on the event loop for each event, and in its thread for each line."""
    redactor = Redactor([Secret(f"secret-number-{number:04}") for number in range(50)])
    capture = Capture(redactor.clean_bytes, waiting=Waiting(1000))
    scratch = tempfile.TemporaryDirectory()
    capture.configure(CaptureSettings(Path(scratch.name) / "capture.jsonl", interval=3600.0, buffer=1 << 40))
    caller = Caller(
        client_host="127.0.0.1", user_agent="bench/1.0", session_id="bench", backend="openai", model="gpt-4.1"
    )
    recorder = Recorder(capture, caller, lambda: False)
    recorder.response(200, [("content-type", "text/event-stream")])
    chunk = answers.pieces(False).text(1)
    body = request_body("openai-chat", "agent", "gpt-4.1", True)
    lines = Lines(redactor.clean_bytes)
    piece = Heard(0.0, caller, Piece(1, chunk), len(chunk))
    sent = Heard(0.0, caller, Sent("https://api.openai.com/v1/chat/completions", body), len(body))
    found = [
        MicroFigure("capture", "on the loop, one chunk", "event", watch.micros(lambda: recorder.chunk(chunk))),
        MicroFigure("capture", "in the thread, one chunk", "event", watch.micros(lambda: lines.line(piece))),
        MicroFigure("capture", "in the thread, a body of 100 kB", "request", watch.micros(lambda: lines.line(sent))),
    ]
    capture.configure(None)
    capture.finish()
    scratch.cleanup()
    return found


def run(seconds: float) -> Sequence[MicroFigure]:
    """All figures; `seconds` is spent on each."""
    watch = Stopwatch(seconds)
    found: list[MicroFigure] = []
    for name in dialects.NAMES:
        found += _dialect_figures(dialects.get(name), watch)
    return found + _edit_precision_figures(watch) + _room_figures(watch) + _capture_figures(watch)
