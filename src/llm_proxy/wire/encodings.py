"""Content encodings: bodies and streams that arrive compressed, opened within limits.

A small body may grow as it likes up to one MiB; beyond that it may grow a hundredfold, and never past the
caller's limit. Who sent the body, and whether compression is welcome there, is not known here.
"""

import io
import zlib
from collections.abc import Callable

from llm_proxy.wire.faults import DecodedTooLong, EncodingBroken, EncodingUnknown

MAX_RATIO = 100
FREE_SIZE = 1024 * 1024
_STEP = 64 * 1024
# Four bytes of zstd can stand for 128 KiB, so a step opens to 8 MiB at worst.
_ZSTD_STEP = 256
_GZIP, _ZLIB, _RAW = 31, 15, -15
_MAX_WINDOW = 8 * 1024 * 1024  # RFC 8878 asks decoders of HTTP content for no more


def decode_body(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Open a whole body. ``encoding`` is the header's value; at most two encodings may be stacked.

    Raises ``EncodingUnknown``, ``EncodingBroken`` or ``DecodedTooLong``.
    """
    names = _read_names(encoding)
    if len(names) > 2:
        raise EncodingUnknown("the body has more than two content encodings")
    for name in reversed(names):
        limit = min(max_bytes, max(FREE_SIZE, MAX_RATIO * len(body)))
        body = _DECODERS[name](body, limit)
    if len(body) > max_bytes:
        raise DecodedTooLong(f"the body is longer than {max_bytes} bytes")
    return body


def _read_names(encoding: str) -> list[str]:
    names = [name.strip().lower().removeprefix("x-") for name in encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not all(name in _DECODERS for name in names):
        raise EncodingUnknown("the content encoding is not one of gzip, deflate, br, zstd")
    return names


def _too_long(limit: int) -> DecodedTooLong:
    return DecodedTooLong(f"the compressed body opens to more than {limit} bytes")


class Decoder:
    """Opens a gzip or deflate stream piece by piece; ``deflate`` may be with or without the zlib wrapper.

    What came out of a complete piece is returned at once, so events are not held back. Raises as
    ``decode_body``.
    """

    __slots__ = ("_head", "_inflate", "_limit", "_name", "_read", "_written")

    def __init__(self, encoding: str, max_bytes: int | None = None) -> None:
        name = encoding.strip().lower().removeprefix("x-")
        if name not in ("gzip", "deflate"):
            raise EncodingUnknown("a stream is opened only from gzip or deflate")
        self._name = name
        self._inflate = zlib.decompressobj(_GZIP) if name == "gzip" else None
        self._head = b""  # the first bytes of a deflate stream, until its wrapper is known
        self._limit = max_bytes
        self._read = 0
        self._written = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return what ``chunk`` opens to."""
        self._read += len(chunk)
        if self._inflate is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            chunk, self._head = self._head, b""
            self._inflate = zlib.decompressobj(_ZLIB if _has_zlib_header(chunk) else _RAW)
        limit = max(FREE_SIZE, MAX_RATIO * self._read)
        if self._limit is not None:
            limit = min(limit, self._limit)
        pieces: list[bytes] = []
        while chunk:
            if self._inflate.eof:
                chunk = self._next_member(chunk)
                if not chunk:
                    break
            try:
                piece = self._inflate.decompress(chunk, limit - self._written + 1)
            except zlib.error:
                raise EncodingBroken(f"the {self._name} stream is damaged") from None
            pieces.append(piece)
            self._written += len(piece)
            if self._written > limit:
                raise _too_long(limit)
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data
        return b"".join(pieces)

    def close(self) -> bytes:
        """Check that the stream came to its end. Nothing is ever left to return."""
        if self._head or (self._read and (self._inflate is None or not self._inflate.eof)):
            raise EncodingBroken(f"the {self._name} stream ends too early")
        return b""

    def _next_member(self, chunk: bytes) -> bytes:
        """Begin the next member of a gzip file; anything else behind the end is not part of the content."""
        if self._name != "gzip":
            return b""
        chunk = chunk.lstrip(b"\0")
        if chunk:
            self._inflate = zlib.decompressobj(_GZIP)
        return chunk


def _has_zlib_header(head: bytes) -> bool:
    """RFC 1950: method 8, a window of at most 32 KiB, a check value; raw streams do not begin so."""
    return head[0] & 0x0F == 8 and head[0] >> 4 <= 7 and (head[0] << 8 | head[1]) % 31 == 0


def _inflate_with(name: str) -> Callable[[bytes, int], bytes]:
    def inflate(body: bytes, limit: int) -> bytes:
        decoder = Decoder(name, limit)
        opened = decoder.feed(body)
        decoder.close()
        return opened

    return inflate


def _open_brotli(body: bytes, limit: int) -> bytes:
    import brotli  # type: ignore[import-untyped]  # loaded when first needed: most clients never send it

    decoder = brotli.Decompressor()
    pieces: list[bytes] = []
    size = 0
    try:
        piece = decoder.process(body, output_buffer_limit=_STEP)
        while piece or not decoder.can_accept_more_data():
            size += len(piece)
            if size > limit:
                raise _too_long(limit)
            pieces.append(piece)
            piece = decoder.process(b"", output_buffer_limit=_STEP)
    except brotli.error:
        raise EncodingBroken("the br body is damaged") from None
    if not decoder.is_finished():
        raise EncodingBroken("the br body ends too early")
    return b"".join(pieces)


def _open_zstd(body: bytes, limit: int) -> bytes:
    import zstandard  # loaded when first needed: most clients never send it

    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while rest:
            decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj(read_across_frames=False)
            source = io.BytesIO(rest)
            while not decoder.eof and (part := source.read(_ZSTD_STEP)):
                piece = decoder.decompress(part)
                size += len(piece)
                if size > limit:
                    raise _too_long(limit)
                pieces.append(piece)
            if not decoder.eof:
                raise EncodingBroken("the zstd body ends too early")
            rest = decoder.unused_data + source.read()
    except zstandard.ZstdError:
        raise EncodingBroken("the zstd body is damaged") from None
    return b"".join(pieces)


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflate_with("gzip"),
    "deflate": _inflate_with("deflate"),
    "br": _open_brotli,
    "zstd": _open_zstd,
}
