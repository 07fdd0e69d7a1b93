"""The exchanges that a session remembers (SES-05): the newest whole, older ones cut, all of them packed.

Owns how they are kept: ten thousand sessions of a hundred exchanges have to fit into memory, and come and go without leaving holes between what
lives longer, which many small objects would. What an entry may say, without secrets, is the business of the room that makes it.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

_LOG = logging.getLogger(__name__)

_WHOLE: Final = 10
"""So many of the newest entries at least keep their texts whole."""
_PIECE: Final = 10
"""Entries that are packed at once: that takes a tenth of a millisecond."""
_SHORT: Final = 500
"""Characters of a text that are kept of a packed entry."""
_LEVEL, _WINDOW, _MEMORY = 3, 14, 6
"""Of zlib: a piece is about 10 kB, hence no larger tables."""
_MOST_UNPACKED: Final = 16 * 1024 * 1024
"""Bytes of a piece; only what somebody put into the store can be larger."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange. Texts are redacted and cut; `handler` is `proxy` for local replies.

    There may be a hundred thousand of them, which refer to nothing that refers to them: the collector need not look at them.
    """

    time: float
    prompt: str
    handler: str
    backend: str = ""
    model: str = ""
    project: str = ""
    parameters: dict[str, Any] = {}
    response: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 0
    duration_ms: float = 0.0
    side: bool = False


class _Piece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`packed`: zlib over MessagePack of `count` entries, the oldest first."""

    count: int
    packed: bytes


class History(msgspec.Struct):
    """Entries, the oldest first: those of `pieces` without the first `skipped`, then `newest`, each of which is MessagePack.

    `packed` counts the entries of the pieces that are still wanted.
    """

    newest: list[bytes] = []
    pieces: list[_Piece] = []
    skipped: int = 0
    packed: int = 0

    def __len__(self) -> int:
        return self.packed + len(self.newest)

    def __iter__(self) -> Iterator[Entry]:
        skip = self.skipped
        for piece in self.pieces:
            yield from _unpacked(piece)[skip:]
            skip = 0
        yield from _read(self.newest)

    def add(self, entry: Entry) -> None:
        self.newest.append(_written(entry))
        if len(self.newest) >= _WHOLE + _PIECE:
            piece = _packed([_shortened(one) for one in _read(self.newest[:-_WHOLE])])
            del self.newest[:-_WHOLE]
            self.pieces.append(piece)
            self.packed += piece.count

    def trim(self, most: int) -> None:
        """Forgets the oldest beyond `most`."""
        surplus = len(self) - most
        if surplus <= 0:
            return
        dropped = min(surplus, self.packed)
        del self.newest[: surplus - dropped]
        self.packed -= dropped
        self.skipped += dropped
        while self.pieces and self.skipped >= self.pieces[0].count:
            self.skipped -= self.pieces.pop(0).count


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Entry)
_DECODER_OF_MANY: Final = msgspec.msgpack.Decoder(list[Entry])
_UNREADABLE: Final = (zlib.error, msgspec.MsgspecError, ValueError, RecursionError)


def _written(entry: Entry) -> bytes:
    try:
        return _ENCODER.encode(entry)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # A number of a client's with thirty digits, or half a character.
        return _ENCODER.encode(_in_words(entry))


def _read(written: Sequence[bytes]) -> list[Entry]:
    try:
        return [_DECODER.decode(one) for one in written]
    except _UNREADABLE as error:
        return _left_out(len(written), error)


def _packed(entries: Sequence[Entry]) -> _Piece:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
    return _Piece(len(entries), packer.compress(_ENCODER.encode(entries)) + packer.flush())


def _unpacked(piece: _Piece) -> list[Entry]:
    try:
        return _DECODER_OF_MANY.decode(zlib.decompressobj().decompress(piece.packed, _MOST_UNPACKED))
    except _UNREADABLE as error:
        return _left_out(piece.count, error)


def _left_out(count: int, error: Exception) -> list[Entry]:
    _LOG.warning("%d stored exchanges of a session are left out, they cannot be read: %s", count, error)
    return []


def _shortened(entry: Entry) -> Entry:
    if len(entry.prompt) <= _SHORT and len(entry.response) <= _SHORT:
        return entry
    return msgspec.structs.replace(entry, prompt=entry.prompt[:_SHORT], response=entry.response[:_SHORT])


def _in_words(entry: Entry) -> Entry:
    """With nothing that cannot be written."""
    values = msgspec.structs.asdict(entry)
    texts = {name: _writable(value) for name, value in values.items() if isinstance(value, str)}
    parameters = {_writable(name): _writable(str(value)) for name, value in entry.parameters.items()}
    return msgspec.structs.replace(entry, **texts, parameters=parameters)


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
