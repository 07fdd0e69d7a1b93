"""How captured calls look on a terminal, and as JSON for other programs. Colour only where a person sees it.

Texts of users and models are printed without what a terminal would take for orders, and once more without anything shaped like a key:
a stream that is put together may show what none of its pieces did.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from llm_proxy.cli import client
from llm_proxy.cli.capture import meaning
from llm_proxy.cli.capture.exchanges import Exchange
from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.parts import Media, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import Message, Request, ServerTool
from llm_proxy.conversation.usage import Usage
from llm_proxy.wire.redaction import Redactor

_MOST_TEXT = 600  # characters of a message of the request that are shown
_MOST_BODY = 4000
_FIRST_CHUNKS, _LAST_CHUNKS = 10, 3
_RED, _YELLOW, _DIM, _BOLD = "31", "33", "2", "1"
_HEADINGS = ("#", "time", "session", "model", "status", "ms", "tokens", "sent", "received")
_RIGHT = frozenset(("#", "ms", "tokens", "sent", "received"))
_REDACTOR = Redactor()


def list_of(exchanges: Sequence[Exchange], *, as_json: bool) -> None:
    """One line for each."""
    if as_json:
        print(_json([_facts(exchange) for exchange in exchanges]))
        return
    if not exchanges:
        print("no calls", file=sys.stderr)
        return
    rows = [_row(exchange) for exchange in exchanges]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    _narrow(widths)
    print(client.emphasised(_aligned(_HEADINGS, widths), _BOLD))
    for exchange, row in zip(exchanges, rows, strict=True):
        print(_coloured(exchange, _aligned(row, widths)))


def followed(exchange: Exchange) -> None:
    """One line, whenever a call ends; the widths are those of most calls."""
    row = _aligned(_row(exchange), (4, 19, 26, 30, 8, 8, 13, 8, 8))
    failure = f"  {client.printable(exchange.failure)[:200]}" if exchange.failure else ""
    print(_coloured(exchange, row + failure), flush=True)


def one(exchange: Exchange, *, as_json: bool, all_chunks: bool) -> None:
    """All there is to say of a call."""
    request, body = _request(exchange)
    answer, failure = _answer(exchange)
    if as_json:
        facts = _facts(exchange)
        facts["answer"] = _answer_facts(answer) if answer is not None else None
        facts["chunk_times"] = [[number, _rounded(ms), size] for number, ms, size in _chunks(exchange)]
        print(_json(facts))
        return
    print(client.emphasised(f"call {exchange.number}  {exchange.target}  {exchange.outcome}", _BOLD))
    for name, value in _head(exchange):
        print(f"  {name:<11}{client.printable(value)}")
    _heading("request")
    for line in _request_lines(request, body):
        print(line)
    _heading("answer")
    for line in _answer_lines(exchange, answer):
        print(line)
    if failure := exchange.failure or failure:
        print(client.emphasised(f"  {client.printable(failure)}", _RED))
    if exchange.streamed:
        _heading("pieces")
        for line in _chunk_lines(_chunks(exchange), all_chunks):
            print(line)
    print()


# Lists


def _row(exchange: Exchange) -> tuple[str, ...]:
    when = datetime.fromtimestamp(exchange.time).strftime("%Y-%m-%d %H:%M:%S")
    return (
        str(exchange.number),
        when,
        client.printable(exchange.session) or "-",
        client.printable(exchange.target),
        exchange.outcome,
        f"{exchange.duration:.0f}" if exchange.duration is not None else "-",
        _tokens(exchange.usage),
        _size(exchange.sent),
        _size(exchange.received),
    )


def _tokens(usage: Usage | None) -> str:
    """In and out."""
    if usage is None or (usage.input is None and usage.output is None):
        return "-"
    return f"{usage.input or 0}+{usage.output or 0}"


def _size(number: float) -> str:
    for unit in ("", "k", "M"):
        if number < 1000:
            return f"{number:.0f}{unit}" if not unit or number >= 10 else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def _narrow(widths: list[int]) -> None:
    """The texts give way when a terminal is too small for all."""
    if not sys.stdout.isatty():
        return
    over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
    for column, least in ((2, 8), (3, 12)):
        taken = max(0, min(over, widths[column] - least))
        widths[column] -= taken
        over -= taken


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for name, cell, width in zip(_HEADINGS, row, widths, strict=True):
        cell = cell if len(cell) <= width or name in _RIGHT else cell[: width - 1] + "…"
        cells.append(cell.rjust(width) if name in _RIGHT else cell.ljust(width))
    return "  ".join(cells).rstrip()


def _coloured(exchange: Exchange, text: str) -> str:
    if exchange.failed:
        return client.emphasised(text, _RED)
    return text if exchange.ended else client.emphasised(text, _YELLOW)


def _facts(exchange: Exchange) -> dict[str, Any]:
    usage = exchange.usage
    return {
        "number": exchange.number,
        "time": exchange.time,
        "request_id": exchange.request_id,
        "attempt": exchange.attempt,
        "call": exchange.call,
        "session": exchange.session,
        "backend": exchange.backend,
        "model": exchange.model,
        "key_name": exchange.key_name,
        "source": exchange.source,
        "destination": exchange.destination,
        "status": exchange.status,
        "stream": exchange.streamed,
        "complete": exchange.ended and not exchange.failure,
        "failure": exchange.failure or None,
        "duration_ms": exchange.duration,
        "first_chunk_ms": exchange.first,
        "bytes_sent": exchange.sent,
        "bytes_received": exchange.received,
        "chunks": exchange.chunks,
        "input_tokens": usage.input if usage is not None else None,
        "output_tokens": usage.output if usage is not None else None,
    }


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


# One call


def _heading(text: str) -> None:
    print(client.emphasised(f"\n{text}", _BOLD))


def _head(exchange: Exchange) -> Iterator[tuple[str, str]]:
    yield "time", datetime.fromtimestamp(exchange.time).astimezone().isoformat(timespec="milliseconds")
    yield "from", exchange.source
    yield "to", exchange.destination or "?"
    yield "session", exchange.session or "-"
    yield "request", f"{exchange.request_id}, attempt {exchange.attempt}, call {exchange.call}"
    yield "key", exchange.key_name or "-"
    first = f", first piece after {exchange.first:.0f} ms" if exchange.first is not None else ""
    if exchange.duration is not None:
        yield "took", f"{exchange.duration:.0f} ms{first}"
    yield "bytes", f"{exchange.sent} sent, {exchange.received} received"
    if exchange.usage is not None:
        yield "tokens", f"{exchange.usage.input or 0} in, {exchange.usage.output or 0} out"


def _request(exchange: Exchange) -> tuple[Request | None, bytes]:
    line = next((line for line in exchange.lines if line.direction == "outbound_request"), None)
    if line is None:
        return None, b""
    body = meaning.data_of(line)
    return meaning.request_of(line.destination, body), body


def _request_lines(request: Request | None, body: bytes) -> Iterator[str]:
    if request is None:
        yield _indented(body.decode(errors="replace") or "its line is not in the capture", _MOST_BODY)
        return
    for message in request.messages:
        yield from _message_lines(message)
    if request.tools:
        names = (tool.type if isinstance(tool, ServerTool) else tool.name for tool in request.tools)
        yield f"  {client.emphasised('tools', _DIM)} {client.printable(', '.join(names))}"


def _message_lines(message: Message) -> Iterator[str]:
    yield f"  {client.emphasised(message.role, _DIM)}"
    for part in message.parts:
        yield from _part_lines(part, _MOST_TEXT)


def _part_lines(part: Part, most: int | None) -> Iterator[str]:
    match part:
        case Text(text=text) | Refusal(text=text):
            yield _indented(text, most)
        case Thinking(text=text):
            yield client.emphasised(_indented(f"(thinks) {text}" if text else "(sealed reasoning)", most), _DIM)
        case ToolCall(name=name, arguments=arguments, id=id):
            yield _indented(f"-> {name} {arguments}   [{id}]", most)
        case ToolResult(parts=parts, call_id=id):
            yield _indented(f"<- result of [{id}]", most)
            for inner in parts:
                yield from _part_lines(inner, most)
        case Media(kind=kind, mime=mime, data=data, url=url):
            yield _indented(f"({kind} {mime} {url or f'{len(data) * 3 // 4} bytes'})", most)
        case Opaque(type=type_):
            yield _indented(f"({type_})", most)


def _answer(exchange: Exchange) -> tuple[Answer | None, str]:
    """The answer put together, and the error that a stream told."""
    if exchange.streamed:
        rest = [line.value.get("rest", "") for line in exchange.lines if line.direction == "stream_end"]
        pieces = [meaning.data_of(line) for line in exchange.lines if line.direction == "stream_chunk"]
        return meaning.streamed_answer(exchange.destination, b"".join(pieces) + "".join(rest).encode())
    line = next((line for line in exchange.lines if line.direction == "inbound_response"), None)
    if line is None or exchange.status != 200:
        return None, ""
    return meaning.answer_of(exchange.destination, meaning.data_of(line)), ""


def _answer_lines(exchange: Exchange, answer: Answer | None) -> Iterator[str]:
    if answer is None or not answer.choices:
        line = next((line for line in exchange.lines if line.direction == "inbound_response"), None)
        if line is not None and exchange.status:
            yield _indented(meaning.data_of(line).decode(errors="replace"), _MOST_BODY)
        elif line is None and not exchange.streamed:
            yield "  its line is not in the capture"
        return
    for choice in answer.choices:
        if len(answer.choices) > 1:
            yield f"  {client.emphasised(f'choice {choice.index}', _DIM)}"
        for part in choice.parts:
            yield from _part_lines(part, None)
        yield f"  {client.emphasised(f'stops: {client.printable(choice.stop.raw or choice.stop.kind)}', _DIM)}"


def _answer_facts(answer: Answer) -> dict[str, Any]:
    parts = [part for choice in answer.choices for part in choice.parts]
    return {
        "text": _REDACTOR.clean("".join(part.text for part in parts if isinstance(part, Text))),
        "thinking": _REDACTOR.clean("".join(part.text for part in parts if isinstance(part, Thinking))),
        "tool_calls": [
            {"id": part.id, "name": part.name, "arguments": _REDACTOR.clean(part.arguments)}
            for part in parts
            if isinstance(part, ToolCall)
        ],
        "stop": [choice.stop.raw or choice.stop.kind for choice in answer.choices],
    }


def _chunks(exchange: Exchange) -> list[tuple[int, float, int]]:
    """Number, milliseconds after the request, bytes."""
    return [
        (line.metadata.get("chunk_number", 0), (line.timestamp_unix - exchange.time) * 1000, line.content_length)
        for line in exchange.lines
        if line.direction == "stream_chunk"
    ]


def _chunk_lines(chunks: Sequence[tuple[int, float, int]], every: bool) -> Iterator[str]:
    left_out = len(chunks) - _FIRST_CHUNKS - _LAST_CHUNKS
    before = 0.0
    for at, (number, ms, size) in enumerate(chunks):
        if every or left_out <= 1 or at < _FIRST_CHUNKS or at >= len(chunks) - _LAST_CHUNKS:
            yield f"  {number:>6}  {ms:>10.1f} ms  {ms - before:>+9.1f}  {size:>8} bytes"
        elif at == _FIRST_CHUNKS:
            yield f"          … {left_out} more; --chunks shows them"
        before = ms


def _indented(text: str, most: int | None) -> str:
    text = _REDACTOR.clean(text)
    if most is not None and len(text) > most:
        text = f"{text[:most]}… ({len(text) - most} more characters)"
    return "\n".join(f"    {client.printable(line)}" for line in text.split("\n"))


def _rounded(ms: float) -> float:
    return round(ms, 3)
