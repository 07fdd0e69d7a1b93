"""What a provider of this dialect answers, as events: one decoding for chunks of a stream and for whole
answers.

`Decoder` takes decoded chunks and keeps what a choice is doing; a whole answer is one big chunk. Tolerates
the quirks of the dialect's many servers (second finish reasons, calls without index, id or name, usage
anywhere, content as a list). Knows no bytes.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from llm_proxy.conversation.answer import Answer, Stop, StopKind
from llm_proxy.conversation.events import (
    Cited,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    Logprobs,
    Note,
    PartEnd,
    PartStart,
    Sealed,
    Start,
    UsageSeen,
    Whole,
)  # fmt: skip
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import OpenPart, fold
from llm_proxy.conversation.parts import (
    Citation,
    Media,
    Opaque,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
)  # fmt: skip
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import ReadContext
from llm_proxy.dialects.media_types import split_data_url
from llm_proxy.dialects.openai_chat.details import entry_parts, entry_seal, entry_text, text_of_field
from llm_proxy.dialects.openai_chat.errors import error_in_answer, fault_in, fault_of
from llm_proxy.dialects.openai_chat.fields import NAME
from llm_proxy.dialects.openai_chat.usage import usage_in
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import decode_answer

_STOPS: dict[str, StopKind] = {
    "stop": "end", "eos": "end", "eos_token": "end", "end_turn": "end", "": "end", "length": "length",
    "max_tokens": "length", "model_length": "length", "tool_calls": "tool_use", "function_call": "tool_use",
    "content_filter": "content_filter", "stop_sequence": "stop_sequence",
}  # fmt: skip
# Words by which a provider says that it gave up: DeepSeek's shortage, OpenRouter's and Mistral's plain error.
_BROKEN = ("error", "insufficient_system_resource", "abort")
_MAX_CHOICES = 1024


def loads(data: bytes) -> Any:
    """The value of a frame or body, None when it is no JSON. Lone surrogates are mended."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        try:
            return decode_answer(data)
        except JsonFault:
            return None


def read_answer(body: bytes, context: ReadContext) -> Answer:
    """A whole answer. Raises FaultError for an error inside it or an unreadable body."""
    value = loads(body)
    if value is None:
        raise FaultError(error_in_answer(body) or _unreadable("the provider's answer is no JSON"))
    fault = fault_in(value)
    if fault is not None:
        raise FaultError(fault)
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list) or not value["choices"]:
        raise FaultError(_unreadable("the provider's answer has no choices"))
    decoder = Decoder(context, whole=True)
    events = decoder.take(value)
    if not (events and isinstance(events[-1], Failed)):
        events += decoder.finish()
    return fold(events)


def _unreadable(message: str) -> Fault:
    return Fault(kind="upstream", message=message, origin=NAME)


class _Call:
    """A tool call in the making. It opens once its name is known."""

    __slots__ = ("id", "kind", "legacy", "name", "number", "part", "pending", "seal")

    def __init__(self, legacy: bool = False) -> None:
        self.id = ""
        self.name = ""
        self.kind = "function"
        self.legacy = legacy
        self.pending: list[str] = []
        self.seal: Seal | None = None
        self.number = -1
        self.part: OpenPart | None = None


class _Audio:
    """Generated audio: data and transcript come in pieces, the part is given at the end."""

    __slots__ = ("data", "id", "transcript")

    def __init__(self) -> None:
        self.id = ""
        self.data: list[str] = []
        self.transcript: list[str] = []

    def take(self, raw: dict[str, Any]) -> None:
        for name, pieces in (("data", self.data), ("transcript", self.transcript)):
            value = raw.get(name)
            if isinstance(value, str) and value:
                pieces.append(value)
        self.id = self.id or str(raw.get("id") or "")

    def media(self) -> Media | None:
        if not self.data and not self.transcript:
            return None
        data = self.data[0] if len(self.data) == 1 else _joined_base64(self.data)
        return Media(
            "audio",
            data=data,
            file_id=self.id if not data else "",
            origin=NAME,
            transcript="".join(self.transcript),
        )


def _joined_base64(pieces: list[str]) -> str:
    """Each piece is base64 of its own; where one ends in padding they cannot simply be joined."""
    if not any(piece.endswith("=") or len(piece) % 4 for piece in pieces[:-1]):
        return "".join(pieces)
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)


class _Shared:
    """What the choices of one answer share: the numbers of parts, the ids of calls, the sources. It knows no choice: what refers to each
    other stays in memory until the interpreter looks for it."""

    def __init__(self, context: ReadContext, whole: bool) -> None:
        self.context = context
        self.whole = whole
        self.seed = ""
        self.listed: list[Any] = []
        self._parts = 0
        self._calls: set[str] = set()

    def number(self) -> int:
        number = self._parts
        self._parts = number + 1
        return number

    def call_id(self, given: str, name: str, arguments: list[str]) -> tuple[str, bool]:
        """(id, is it the provider's own). An empty or repeated id is replaced, the same way for the same
        answer.
        """
        call_id, native = given, True
        ordinal = len(self._calls)
        if not call_id or call_id in self._calls:
            call_id, native = (
                self.context.new_call_id(self.seed or f"{name}{''.join(arguments)}", ordinal),
                False,
            )
        self._calls.add(call_id)
        return call_id, native

    def sources(self) -> list[Citation]:
        found = []
        for source in self.listed:
            if isinstance(source, str):
                found.append(Citation(url=source, origin=NAME))
            elif isinstance(source, dict) and isinstance(source.get("url"), str):
                found.append(Citation(url=source["url"], title=_word(source.get("title")), origin=NAME))
        return found


class _Choice:
    """One choice: the part that flows now (text, refusal or reasoning) and its calls, which stay open until
    the end.
    """

    def __init__(self, shared: _Shared, index: int) -> None:
        self.shared = shared
        self.index = index
        self.finish: str | None = None
        self.stop_text = ""
        self.calls: dict[object, _Call] = {}
        self.last_call: _Call | None = None
        self.called = False
        self.parts = 0
        self.cited = False
        self.audio: _Audio | None = None
        self._flow: OpenPart | None = None
        self._number = -1
        self._kind = ""
        self._entry: dict[str, Any] = {}
        self._entry_key: object = None
        self._text_before = 0  # code points of the text parts that are closed
        self._text_here = 0  # code points of the one that is open

    # ---- the flowing part

    def _open(self, kind: str, skeleton: Text | Refusal | Thinking, out: list[Event]) -> None:
        self._close_flow(out)
        self._kind = kind
        self._flow = OpenPart(skeleton, self.index)
        self._number = self.shared.number()
        self.parts += 1
        out.append(PartStart(self._number, skeleton, self.index))

    def _close_flow(self, out: list[Event]) -> None:
        flow = self._flow
        if flow is None:
            return
        if self._kind == "details":
            self._seal(self._whole_entry(flow), out)
        elif self._kind == "listed":
            self._seal({"type": "thinking"}, out)
        elif self._kind == "text":
            if not self.cited and self.index == 0:
                self._cite_sources(out)
            self._text_before += self._text_here
            self._text_here = 0
        out.append(PartEnd(self._number, flow.whole()))
        self._flow = None
        self._kind = ""

    def _seal(self, entry: dict[str, Any], out: list[Event]) -> None:
        assert self._flow is not None
        seal = entry_seal(entry, self.shared.context.maker)
        self._flow.seal = seal
        out.append(Sealed(self._number, seal))

    def _whole_entry(self, flow: OpenPart) -> dict[str, Any]:
        texts = "".join("".join(piece) for piece in flow.pieces)
        if not texts:
            return self._entry
        return {**self._entry, "summary" if self._entry.get("type") == "reasoning.summary" else "text": texts}

    def _add(self, kind: str, text: str, out: list[Event]) -> None:
        if self._kind != kind:
            skeleton = Text("") if kind == "text" else Refusal("") if kind == "refusal" else Thinking()
            self._open(kind, skeleton, out)
        assert self._flow is not None
        self._flow.add(text)
        if kind == "text":
            self._text_here += len(text)
        out.append(Delta(self._number, text))

    # ---- what a delta or message holds

    def take(self, delta: dict[str, Any], out: list[Event]) -> None:
        content = delta.get("content")
        if len(delta) == 1 and content and type(content) is str:
            self._add("text", content, out)
            return
        if "reasoning_content" in delta or "reasoning" in delta or "reasoning_details" in delta:
            self._take_thinking(delta, out)
        if type(content) is str:
            if content:
                self._add("text", content, out)
        elif type(content) is list:
            self._take_list(content, out)
        refusal = delta.get("refusal")
        if type(refusal) is str and refusal:
            self._add("refusal", refusal, out)
        if len(delta) > 1 or content is None:
            self._take_rare(delta, out)

    def _take_rare(self, delta: dict[str, Any], out: list[Event]) -> None:
        annotations = delta.get("annotations")
        if annotations and type(annotations) is list:
            self._take_annotations(annotations, out)
        calls = delta.get("tool_calls")
        for position, entry in enumerate(calls if type(calls) is list else ()):
            if type(entry) is dict:
                self._take_call(entry, position, out)
        legacy = delta.get("function_call")
        if type(legacy) is dict:
            self._take_legacy(legacy, out)
        audio = delta.get("audio")
        if type(audio) is dict:
            self.audio = self.audio or _Audio()
            self.audio.take(audio)
            if not self.shared.whole:
                out.append(Note(NAME, "audio.delta", {}))
        images = delta.get("images")
        for image in images if type(images) is list else ():
            self._take_image(image, out)

    def _take_list(self, content: list[Any], out: list[Event]) -> None:
        """Content as a list of parts: Mistral's thinking, and texts and images of others."""
        for item in content:
            if type(item) is str:
                item = {"type": "text", "text": item}
            if type(item) is not dict:
                continue
            match item.get("type"):
                case "text" | "output_text":
                    if isinstance(text := item.get("text"), str) and text:
                        self._add("text", text, out)
                case "thinking":
                    for text in entry_parts(item):
                        if text:
                            self._add("listed", text, out)
                case "refusal":
                    if isinstance(text := item.get("refusal"), str) and text:
                        self._add("refusal", text, out)
                case "image_url":
                    self._take_image(item, out)
                case str(kind):
                    self._whole(Opaque(NAME, kind, item), out)

    def _whole(self, content: Media | Opaque, out: list[Event]) -> None:
        self._close_flow(out)
        self.parts += 1
        out.append(Whole(self.shared.number(), content, self.index))

    def _take_image(self, raw: Any, out: list[Event]) -> None:
        link = raw.get("image_url") if isinstance(raw, dict) else None
        url = link.get("url") if isinstance(link, dict) else link
        if not isinstance(url, str) or not url:
            return
        if url[:5].lower() == "data:":
            try:
                mime, data = split_data_url(url)
            except FaultError:
                return
            self._whole(Media("image", data=data, mime=mime, origin=NAME), out)
        else:
            self._whole(Media("image", url=url, origin=NAME), out)

    # ---- reasoning

    def _take_thinking(self, delta: dict[str, Any], out: list[Event]) -> None:
        details = delta.get("reasoning_details")
        entries = [entry for entry in details if type(entry) is dict] if type(details) is list else []
        if not any(entry_text(entry) for entry in entries):
            text = text_of_field(delta)
            if text:
                self._add("thinking", text, out)
        for entry in entries:
            self._take_entry(entry, out)

    def _take_entry(self, entry: dict[str, Any], out: list[Event]) -> None:
        key = (entry.get("index"), entry.get("type"))
        if self._completes_thinking(entry):
            self._kind, self._entry, self._entry_key = "details", {}, key
            entry = {**entry, "text": None, "summary": None}
        elif self.shared.whole or self._kind != "details" or key != self._entry_key:
            self._open("details", Thinking(summary=entry.get("type") == "reasoning.summary"), out)
            self._entry, self._entry_key = {}, key
        self._entry.update(
            (name, value) for name, value in entry.items() if name not in ("text", "summary") and value is not None
        )
        text = entry_text(entry)
        if text:
            self._add("details", text, out)

    def _completes_thinking(self, entry: dict[str, Any]) -> bool:
        """Is this the seal of the plain reasoning text that has just been streamed? (This proxy writes it
        so.)
        """
        if self._kind != "thinking" or self._flow is None or entry.get("type") == "reasoning.encrypted":
            return False
        text = entry_text(entry)
        return not text or text == "".join("".join(piece) for piece in self._flow.pieces)

    # ---- citations

    def _take_annotations(self, annotations: list[Any], out: list[Event]) -> None:
        for annotation in annotations:
            source = annotation.get("url_citation") if isinstance(annotation, dict) else None
            if not isinstance(source, dict):
                continue
            here = self._kind == "text"
            if not here:
                self._open("text", Text(""), out)
            assert self._flow is not None
            citation = Citation(
                url=_word(source.get("url")),
                title=_word(source.get("title")),
                start=self._offset(source.get("start_index")) if here else -1,
                end=self._offset(source.get("end_index")) if here else -1,
                cited_text=_word(source.get("content")),
                origin=NAME,
                raw=annotation,
            )
            self.cited = True
            self._flow.citations.append(citation)
            out.append(Cited(self._number, citation))

    def _offset(self, value: Any) -> int:
        """Offsets count in the whole content; parts count for themselves."""
        return value - self._text_before if type(value) is int and value >= self._text_before else -1

    def _cite_sources(self, out: list[Event]) -> None:
        """Perplexity names its sources beside the choices."""
        assert self._flow is not None
        for citation in self.shared.sources():
            self._flow.citations.append(citation)
            out.append(Cited(self._number, citation))
            self.cited = True

    # ---- calls

    def _take_call(self, entry: dict[str, Any], position: int, out: list[Event]) -> None:
        # The type stands only in the first piece of a call.
        custom = entry.get("type") == "custom" or ("custom" in entry and "function" not in entry)
        given = entry.get("custom" if custom else "function")
        function = given if type(given) is dict else {}
        call_id, name = _word(entry.get("id")), _word(function.get("name"))
        call = self._call_of(entry.get("index"), call_id, name, position)
        if custom:
            call.kind = "custom"
        call.id = call.id or call_id
        call.name = call.name or name
        seal = self._call_seal(entry)
        arguments = function.get("input" if call.kind == "custom" else "arguments")
        self._extend(call, arguments, seal, out)

    def _call_of(self, index: Any, call_id: str, name: str, position: int) -> _Call:
        """The call that a delta belongs to. Some servers give no index, or the same index to every call."""
        key: object
        if self.shared.whole:  # in a whole message every entry is a call of its own
            call = self.calls[(len(self.calls), position)] = _Call()
            return call
        if type(index) is int:
            key = index
            known = self.calls.get(key)
            if known is not None and call_id and name and known.id and known.id != call_id:
                key = call_id
        elif call_id:
            key = call_id
        elif name or self.last_call is None:
            key = (len(self.calls), position)
        else:
            return self.last_call
        found = self.calls.get(key)
        call = _Call() if found is None else found
        if found is None:
            self.calls[key] = call
            if type(index) is int and key != index:
                self.calls[("closed", len(self.calls))] = self.calls[index]
                self.calls[index] = call  # what follows under this index belongs to the newer call
        self.last_call = call
        return call

    def _call_seal(self, entry: dict[str, Any]) -> Seal | None:
        extra = entry.get("extra_content")
        google = extra.get("google") if type(extra) is dict else None
        value = google.get("thought_signature") if type(google) is dict else None
        return Seal(NAME, "thought", value, self.shared.context.maker) if type(value) is str and value else None

    def _take_legacy(self, raw: dict[str, Any], out: list[Event]) -> None:
        call = self.calls.setdefault("function_call", _Call(legacy=True))
        call.name = call.name or _word(raw.get("name"))
        self._extend(call, raw.get("arguments"), None, out)

    def _extend(self, call: _Call, arguments: Any, seal: Seal | None, out: list[Event]) -> None:
        text = arguments if type(arguments) is str else _encoded(arguments)
        if call.part is None:
            call.seal = seal or call.seal
            if text:
                call.pending.append(text)
            if call.name:
                self._open_call(call, out)
            return
        if seal is not None and call.part.seal != seal:
            call.part.seal = seal
            out.append(Sealed(call.number, seal))
        if text:
            call.part.add(text)
            out.append(Delta(call.number, text))

    def _open_call(self, call: _Call, out: list[Event]) -> None:
        self._close_flow(out)
        call_id, native = self.shared.call_id(call.id, call.name, call.pending)
        skeleton = ToolCall(
            call_id,
            call.name,
            kind="custom" if call.kind == "custom" else "function",
            native_id=native,
            legacy=call.legacy,
            seal=call.seal,
        )
        call.number = self.shared.number()
        call.part = OpenPart(skeleton, self.index)
        self.called = True
        self.parts += 1
        out.append(PartStart(call.number, skeleton, self.index))
        text = "".join(call.pending)
        if text:
            call.part.add(text)
            out.append(Delta(call.number, text))

    # ---- end

    def close(self, out: list[Event]) -> None:
        """End everything that is open. More may follow all the same: some servers go on after a finish
        reason.
        """
        self._close_flow(out)
        media = self.audio.media() if self.audio else None
        if media is not None:
            self._whole(media, out)
        self.audio = None
        for call in dict.fromkeys(self.calls.values()):
            if call.part is None and call.pending:
                self._open_call(call, out)
            if call.part is not None:
                out.append(PartEnd(call.number, call.part.whole()))
        self.calls = {}
        self.last_call = None

    def stop(self) -> Stop:
        raw = self.finish or ""
        kind = _STOPS.get(raw.lower(), "unknown")
        if kind in ("end", "tool_use", "unknown"):
            if self.called:
                kind = "tool_use"
            elif kind == "tool_use":
                kind = "end"
            elif kind == "end" and self.stop_text:
                kind = "stop_sequence"
        return Stop(kind, raw=raw, sequence=self.stop_text if kind == "stop_sequence" else "")


class Decoder:
    """One answer: chunks in, events out, numbered over all choices."""

    def __init__(self, context: ReadContext, whole: bool = False) -> None:
        self.whole = whole
        self.started = False
        self._shared = _Shared(context, whole)
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        # What a finish reason ends is told when more content or the end comes: the stop itself is known only then, and a chunk with
        # a finish reason must not be sent on before that.
        self._late: list[Event] = []

    # ---- chunks

    def take(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one chunk. Ends in `Failed` when it says that the answer broke."""
        out: list[Event] = []
        late, self._late = self._late, []
        choices = chunk.get("choices")
        choices = choices if type(choices) is list else []
        if not self.started and choices:
            self._start(chunk, out)
        if chunk.get("usage") or "x_groq" in chunk:
            usage = usage_in(chunk)
            if usage is not None:
                self._usage = usage if self._usage is None else self._usage.merged(usage)
        sources = chunk.get("search_results") or chunk.get("citations")
        if sources and type(sources) is list:
            self._shared.listed = sources
        for position, choice in enumerate(choices):
            if type(choice) is not dict:
                continue
            fault = self._take_choice(choice, position, out)
            if fault is not None:
                return late + out + self.failed(fault)
        if late and not out:
            self._late = late + self._late
        return late + out if late and out else out

    def _start(self, chunk: dict[str, Any], out: list[Event]) -> None:
        self.started = True
        created = chunk.get("created")
        created = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
        answer_id = _word(chunk.get("id"))
        self._shared.seed = answer_id or (f"{created}" if created else "")
        out.append(
            Start(
                id=answer_id,
                model=_word(chunk.get("model")),
                created=created,
                tier=_word(chunk.get("service_tier")),
                fingerprint=_word(chunk.get("system_fingerprint")),
            )
        )

    def _take_choice(self, raw: dict[str, Any], position: int, out: list[Event]) -> Fault | None:
        index = raw.get("index")
        if type(index) is not int or not 0 <= index < _MAX_CHOICES:
            index = position
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(self._shared, index)
        delta = raw.get("delta")
        if type(delta) is not dict:
            # A whole message in place of a delta: a plain answer, or a server that does not really stream.
            # Perplexity repeats the message so far beside each delta; that one is not read.
            message = raw.get("message")
            text = raw.get("text")
            delta = message if type(message) is dict and not choice.parts else {}
            if not delta and type(text) is str:
                delta = {"content": text}
        if delta:
            choice.take(delta, out)
        logprobs = raw.get("logprobs")
        if logprobs:
            _take_logprobs(choice, logprobs, out)
        if raw.get("error"):
            return fault_of({"error": raw["error"]})
        return self._take_finish(choice, raw, out)

    def _take_finish(self, choice: _Choice, raw: dict[str, Any], out: list[Event]) -> Fault | None:
        reason = raw.get("finish_reason")
        if type(reason) is not str or (not reason and not self.whole):
            return None
        if reason in _BROKEN:
            kind = "overloaded" if reason == "insufficient_system_resource" else "upstream"
            message = f"the provider broke the answer off: {reason}"
            return Fault(kind=kind, message=message, origin=NAME, upstream_code=reason)  # type: ignore[arg-type]
        choice.finish = choice.finish or reason
        matched = raw.get("stop_reason")  # vLLM: the stop text that matched
        if type(matched) is str and reason == "stop":
            choice.stop_text = matched
        choice.close(out if self.whole else self._late)
        return None

    # ---- end

    @property
    def finished(self) -> bool:
        """Has every choice that appeared come to its finish reason?"""
        return bool(self._choices) and all(choice.finish is not None for choice in self._choices.values())

    def finish(self) -> list[Event]:
        """The proper end: what is open is closed, every choice gets its stop."""
        out, self._late = self._late, []
        if not self.started:
            self._start({}, out)
        choices = [self._choices[index] for index in sorted(self._choices)] or [_Choice(self._shared, 0)]
        for choice in choices:
            choice.close(out)
        out += [Finish(choice.stop(), choice.index) for choice in choices]
        if self._usage is not None:
            out.append(UsageSeen(self._usage))
        out.append(End())
        return out

    def failed(self, fault: Fault) -> list[Event]:
        """The end by a failure; what was counted until then is told first."""
        out, self._late = self._late, []
        if self._usage is not None and self.started:
            out.append(UsageSeen(self._usage))
        return [*out, Failed(fault)]


def _take_logprobs(choice: _Choice, logprobs: Any, out: list[Event]) -> None:
    if type(logprobs) is not dict:
        return
    tokens: list[dict[str, Any]] = []
    for name in ("content", "refusal"):
        entries = logprobs.get(name)
        if type(entries) is list:
            tokens += [entry for entry in entries if type(entry) is dict]
    if tokens:
        out.append(Logprobs(choice.index, tuple(tokens)))


def _word(value: Any) -> str:
    return value if type(value) is str else ""


def _encoded(arguments: Any) -> str:
    """Arguments as text; Ollama gives the object itself."""
    if type(arguments) is not dict and type(arguments) is not list:
        return ""
    return msgspec.json.encode(arguments).decode()
