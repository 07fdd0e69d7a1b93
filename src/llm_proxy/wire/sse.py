"""Event streams as bytes: an incremental reader, the writers, and a reader for progressively sent JSON
arrays.

Lines end at LF, CR or CRLF and nowhere else; frames end at a blank line. The raw bytes of all frames
together are exactly the input, so that a stream can be relayed verbatim. What the data means is not known
here.
"""

import re
from typing import NamedTuple

from llm_proxy.wire.faults import FrameTooLong, WireFault

# Eight MiB holds the largest single event seen in practice (an image in base64 inside one JSON chunk).
MAX_FRAME = 8 * 1024 * 1024
DONE = b"data: [DONE]\n\n"

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LF, _CR = 10, 13


class Frame(NamedTuple):
    """One frame: its exact bytes, its event name ("" if none) and its data (None if it has no data line)."""

    raw: bytes
    event: str
    data: bytes | None


# The constructor of a named tuple is a Python function; the one of tuple saves a tenth of a frame's cost.
_new = tuple.__new__


def _read_fields(raw: bytes) -> tuple[str, bytes | None]:
    """Read the fields of one frame line by line, as the event stream standard says."""
    event = ""
    data: list[bytes] = []
    for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
        elif name == b"event":
            event = str(value[1:] if value[:1] == b" " else value, "utf-8", "replace")
    return event, b"\n".join(data) if data else None


def _read_frame(content: bytes, end: bytes, mark: bytes) -> Frame:
    """Make a frame of its lines without the ending; ``mark`` is the byte that begins each line end in it."""
    if content.startswith(b"data: "):
        if mark not in content:
            return _new(Frame, (content + end, "", content[6:]))
    elif content.startswith(b"event: "):
        first, _, rest = content.partition(end[: len(end) // 2])
        if rest.startswith(b"data: ") and mark not in rest:
            return _new(Frame, (content + end, str(first[7:], "utf-8", "replace"), rest[6:]))
    event, data = _read_fields(content)
    return Frame(content + end, event, data)


class SseReader:
    """Cuts a byte stream into frames; every split of the same input gives the same frames.

    ``feed`` and ``close`` raise ``FrameTooLong`` once a frame passes ``max_frame`` bytes. When good frames
    came before it in the same chunk they are returned first, and the next call raises.
    """

    __slots__ = (
        "_bare_cr",
        "_bom",
        "_crlf_only",
        "_head",
        "_held",
        "_lf_only",
        "_max",
        "_pending",
        "_skip_lf",
        "_too_long",
    )

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max = max_frame
        self._pending = bytearray()  # the bytes of the frame that is not complete yet
        self._lf_only = True  # pending holds no CR
        self._crlf_only = True  # pending holds no LF and CR but in pairs
        self._held = False  # a CR was the last byte: its LF may follow
        self._bare_cr = False  # the last complete line ended with a CR alone
        self._skip_lf = False  # a frame was ended early at such a CR; an LF right behind is part of it
        self._head: bytes | None = b""  # the first bytes, until a byte order mark is found or ruled out
        self._bom = b""
        self._too_long = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that ``chunk`` completes."""
        if self._too_long:
            raise self._fault()
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < 3 and _BOM.startswith(chunk):
                self._head = chunk
                return []
            self._head = None
            if chunk.startswith(_BOM):
                self._bom = _BOM
                chunk = chunk[3:]
        if not chunk:
            return []
        frames = self._scan(chunk)
        if self._bom and frames:
            frames[0] = self._restore_bom(frames[0])
        if len(chunk) > self._max or (frames and len(frames[0].raw) > self._max):
            frames = self._cut_at_cap(frames)
        if len(self._pending) + self._held + len(self._bom) > self._max:
            self._too_long = True
        if self._too_long:
            self._pending.clear()
            if not frames:
                raise self._fault()
        return frames

    def close(self) -> list[Frame]:
        """Return what is left: providers do end their last frame without a blank line."""
        if self._too_long:
            raise self._fault()
        rest = (self._head or b"") + bytes(self._pending) + (b"\r" if self._held else b"")
        self._head = None
        self._pending.clear()
        self._held = False
        if not rest and not self._bom:
            return []
        event, data = _read_fields(rest)
        raw = self._bom + rest
        self._bom = b""
        return [Frame(raw, event, data)]

    def _fault(self) -> FrameTooLong:
        return FrameTooLong(f"an event of the stream is longer than {self._max} bytes")

    def _restore_bom(self, frame: Frame) -> Frame:
        raw = self._bom + frame.raw
        self._bom = b""
        return frame._replace(raw=raw)

    def _cut_at_cap(self, frames: list[Frame]) -> list[Frame]:
        for index, frame in enumerate(frames):
            if len(frame.raw) > self._max:
                self._too_long = True
                return frames[:index]
        return frames

    def _scan(self, chunk: bytes) -> list[Frame]:
        """Choose the cheapest correct way for this chunk: all LF, all CRLF, or line by line."""
        if self._skip_lf or self._bare_cr:
            return self._scan_lines(chunk)
        if self._held:
            chunk = b"\r" + chunk
            self._held = False
        if b"\r" not in chunk:
            if self._lf_only:
                return self._scan_uniform(chunk, b"\n")
            if b"\n" not in chunk:
                self._pending += chunk
                return []
            return self._scan_lines(chunk)
        held = chunk[-1] == _CR
        body = chunk[:-1] if held else chunk
        returns = body.count(b"\r")
        if self._crlf_only and returns == body.count(b"\r\n") == body.count(b"\n"):
            frames = self._scan_uniform(body, b"\r\n") if body else []
            self._held = held
            return frames
        return self._scan_lines(chunk)

    def _scan_uniform(self, chunk: bytes, eol: bytes) -> list[Frame]:
        """Cut a chunk whose line ends, and those of what is pending, are all ``eol``."""
        end = eol + eol
        mark = eol[:1]
        frames: list[Frame] = []
        pending = self._pending
        if pending:
            if pending.endswith(eol) and chunk.startswith(eol):
                cut = len(eol)
            else:
                cut = chunk.find(end) + len(end)
                if cut < len(end):
                    pending += chunk
                    self._note(chunk, eol)
                    return frames
            pending += chunk[:cut]
            frames.append(_read_frame(bytes(pending[: -len(end)]), end, mark))
            pending.clear()
            chunk = chunk[cut:]
        contents = chunk.split(end)
        tail = contents.pop()
        blank = Frame(eol, "", None)
        for content in contents:
            if content[:1] == mark or not content:
                while content.startswith(eol):
                    frames.append(blank)
                    content = content[len(eol) :]
                if not content:
                    frames.append(blank)
                    frames.append(blank)
                    continue
            frames.append(_read_frame(content, end, mark))
        while tail.startswith(eol):
            frames.append(blank)
            tail = tail[len(eol) :]
        self._lf_only = self._crlf_only = True
        if tail:
            pending += tail
            self._note(tail, eol)
        return frames

    def _note(self, added: bytes, eol: bytes) -> None:
        """Remember which line ends are pending now."""
        if b"\n" in added:
            if eol == b"\n":
                self._crlf_only = False
            else:
                self._lf_only = False

    def _scan_lines(self, chunk: bytes) -> list[Frame]:
        """Cut a chunk with any mixture of line ends.

        A blank line that ends in CR must wait for a possible LF, but in a stream of bare CRs it would then
        come one event late. So behind a line that ended in a bare CR a blank CR ends the frame at once, and
        an LF right behind it is carried in the raw bytes of the next frame.
        """
        if self._held:
            chunk = b"\r" + chunk
            self._held = False
        frames: list[Frame] = []
        start = line = 0  # where the frame and the line begin in this chunk
        if self._skip_lf:
            self._skip_lf = False
            if chunk[0] == _LF:
                line = 1
        at_line_start = line == 1 or not self._pending or self._pending[-1] in (_LF, _CR)
        for match in _LINE_END.finditer(chunk, line):
            stop = match.end()
            blank = at_line_start and match.start() == line
            ending = match.group()
            at_line_start = True
            line = stop
            if blank and self._bare_cr and ending != b"\n":
                stop = match.start() + 1
                self._skip_lf = stop == len(chunk)
            elif ending == b"\r" and stop == len(chunk):
                self._held = True
                break
            else:
                self._bare_cr = ending == b"\r"
            if blank:
                raw = bytes(self._pending) + chunk[start:stop]
                self._pending.clear()
                event, data = _read_fields(raw)
                frames.append(Frame(raw, event, data))
                start = stop
        rest = chunk[start:-1] if self._held else chunk[start:]
        if frames:
            self._lf_only = self._crlf_only = True
        self._pending += rest
        returns = rest.count(b"\r")
        if returns:
            self._lf_only = False
        if not returns == rest.count(b"\n") == rest.count(b"\r\n"):
            self._crlf_only = False
        return frames


def frame(data: bytes) -> bytes:
    """Write ``data``, one line, as a frame."""
    return b"data: %b\n\n" % data


def named_frame(event: str, data: bytes) -> bytes:
    """Write ``data``, one line, as a frame with an event name."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def crlf_frame(data: bytes) -> bytes:
    """Write ``data`` as Gemini does, with CRLF line ends."""
    return b"data: %b\r\n\r\n" % data


def comment(text: str) -> bytes:
    """Write a comment, which readers skip: a sign of life."""
    return b": %b\n\n" % text.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")


_STRUCTURE = re.compile(rb'["\[\]{}]')
_STRING_STOP = re.compile(rb'["\\]')
_SCALAR_STOP = re.compile(rb'[,\]\s"\[{}:]')
_SPACE = b" \t\r\n"


class ArrayReader:
    """Cuts a JSON array that arrives piece by piece into the bytes of its elements.

    An object, array or string is handed over with its last byte; a number or name with the byte behind it.
    Only the outline is checked: the elements are for the JSON reader. Faults follow the same order as in
    ``SseReader``.
    """

    __slots__ = ("_closers", "_element", "_escape", "_expect", "_fault", "_in_string", "_max")

    def __init__(self, max_element: int = MAX_FRAME) -> None:
        self._max = max_element
        self._element = bytearray()
        self._closers = bytearray()  # the brackets that are open inside the element
        self._in_string = False
        self._escape = False
        self._expect = "start"  # start, first, value, inside, separator, end
        self._fault: WireFault | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the elements that ``chunk`` completes."""
        if self._fault:
            raise self._fault
        found: list[bytes] = []
        try:
            at = 0
            while at < len(chunk):
                at = self._inside(chunk, at, found) if self._expect == "inside" else self._between(chunk, at)
        except WireFault as fault:
            self._fault = fault
            self._element.clear()
            if not found:
                raise
        return found

    def close(self) -> list[bytes]:
        """Check that the array came to its end. Nothing is ever left to return."""
        if self._fault:
            raise self._fault
        if self._expect != "end":
            raise WireFault("the stream ended inside its JSON array")
        return []

    def _between(self, chunk: bytes, at: int) -> int:
        """Handle one byte outside of elements; only the first bytes of a stream may be a byte order mark."""
        byte = chunk[at : at + 1]
        if self._expect == "start" and (self._element or byte == _BOM[:1]):
            self._element += byte
            if not _BOM.startswith(self._element):
                raise WireFault("the stream is not a JSON array")
            if len(self._element) == 3:
                self._element.clear()
        elif byte in _SPACE:
            pass
        elif self._expect == "start" and byte == b"[":
            self._expect = "first"
        elif self._expect in ("first", "separator") and byte == b"]":
            self._expect = "end"
        elif self._expect == "separator" and byte == b",":
            self._expect = "value"
        elif self._expect in ("first", "value") and byte not in b",]}:":
            self._expect = "inside"
            return at
        else:
            raise WireFault("the stream is not a JSON array")
        return at + 1

    def _inside(self, chunk: bytes, start: int, found: list[bytes]) -> int:
        """Read on in the current element; return where reading goes on."""
        at = start
        whole = False
        while at < len(chunk) and not whole:
            if self._escape:
                self._escape = False
                at += 1
            elif self._in_string:
                match = _STRING_STOP.search(chunk, at)
                at = match.end() if match else len(chunk)
                if match and match.group() == b"\\":
                    self._escape = True
                elif match:
                    self._in_string = False
                    whole = not self._closers
            elif not self._closers and (self._element or at > start):
                at, whole = self._scalar(chunk, at)
            else:
                at, whole = self._step(chunk, at)
        self._element += chunk[start:at]
        if len(self._element) > self._max:
            raise FrameTooLong(f"an element of the stream is longer than {self._max} bytes")
        if whole:
            found.append(bytes(self._element))
            self._element.clear()
            self._expect = "separator"
        return at

    def _scalar(self, chunk: bytes, at: int) -> tuple[int, bool]:
        """Read on in a number or a name, which ends before a space, a comma or the closing bracket."""
        match = _SCALAR_STOP.search(chunk, at)
        if match is None:
            return len(chunk), False
        if match.group() not in b",] \t\r\n":
            raise WireFault("the stream is not a JSON array")
        return match.start(), True

    def _step(self, chunk: bytes, at: int) -> tuple[int, bool]:
        """Go to the next quote or bracket."""
        if not self._closers:
            byte = chunk[at : at + 1]
            if byte not in b'"[{':
                return at + 1, False
        match = _STRUCTURE.search(chunk, at)
        if match is None:
            return len(chunk), False
        byte = match.group()
        if byte == b'"':
            self._in_string = True
        elif byte == b"{":
            self._closers += b"}"
        elif byte == b"[":
            self._closers += b"]"
        elif self._closers.pop() != byte[0]:
            raise WireFault("the brackets of the stream do not match")
        return match.end(), byte in b"]}" and not self._closers
