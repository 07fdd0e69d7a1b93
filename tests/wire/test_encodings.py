"""Compressed bodies and streams: opened within size and ratio limits, damage is a fault."""

import contextlib
import gzip
import os
import zlib

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.wire.encodings import Decoder, decode_body
from llm_proxy.wire.faults import DecodedTooLong, EncodingBroken, EncodingUnknown, WireFault

MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


WRITERS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("Deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
}
TEXT = b'{"messages":[{"role":"user","content":"hello"}]}' * 50


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("body", [b"", b"x", TEXT, os.urandom(100_000)], ids=["empty", "one", "text", "random"])
def test_a_body_is_opened(name: str, body: bytes) -> None:
    encoding, write = WRITERS[name]
    assert decode_body(write(body), encoding, MIB) == body


def test_a_plain_body_and_stacked_encodings_are_opened() -> None:
    assert decode_body(TEXT, "", MIB) == decode_body(TEXT, "identity", MIB) == TEXT
    assert decode_body(brotli.compress(gzip.compress(TEXT)), "gzip, br", MIB) == TEXT
    assert decode_body(gzip.compress(TEXT) + gzip.compress(b"!"), "gzip", MIB) == TEXT + b"!"
    assert decode_body(WRITERS["zstd"][1](TEXT) + WRITERS["zstd"][1](b"!"), "zstd", MIB) == TEXT + b"!"


@pytest.mark.parametrize("encoding", ["compress", "gzip, snappy", "gzip,gzip,gzip", "brotli", "\u0130"])
def test_another_encoding_is_unknown(encoding: str) -> None:
    with pytest.raises(EncodingUnknown):
        decode_body(b"x", encoding, MIB)


@pytest.mark.parametrize("name", WRITERS)
def test_a_bomb_is_stopped_by_the_ratio_and_a_large_body_by_the_size(name: str) -> None:
    encoding, write = WRITERS[name]
    with pytest.raises(DecodedTooLong):
        decode_body(write(b"\0" * (64 * MIB)), encoding, 1024 * MIB)
    with pytest.raises(DecodedTooLong):
        decode_body(write(TEXT), encoding, len(TEXT) - 1)
    assert decode_body(write(b"\0" * MIB), encoding, MIB) == b"\0" * MIB


def test_a_plain_body_has_the_same_size_cap() -> None:
    with pytest.raises(DecodedTooLong):
        decode_body(TEXT, "", 10)


@pytest.mark.parametrize("name", WRITERS)
def test_a_body_cut_anywhere_is_broken(name: str) -> None:
    encoding, write = WRITERS[name]
    whole = write(TEXT)
    for place in range(1, len(whole)):
        with pytest.raises(EncodingBroken):
            decode_body(whole[:place], encoding, MIB)


@given(
    st.binary(max_size=80),
    st.sampled_from(["gzip", "deflate", "br", "zstd"]),
    st.integers(0, 200),
    st.integers(0, 255),
)
@settings(max_examples=120, deadline=None)
def test_damage_raises_nothing_but_the_declared_faults(data: bytes, encoding: str, at: int, byte: int) -> None:
    packed = bytearray(dict(WRITERS.values())[encoding](data * 3))
    packed[at % len(packed)] = byte
    for body in (data, bytes(packed)):
        with contextlib.suppress(WireFault):
            decode_body(body, encoding, MIB)


# ---- streams


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_opened_at_any_split(name: str, size: int) -> None:
    encoding, write = WRITERS[name]
    packed = write(TEXT)
    decoder = Decoder(encoding)
    opened = b"".join(decoder.feed(packed[at : at + size]) for at in range(0, len(packed), size))
    assert opened + decoder.close() == TEXT


def test_an_event_comes_out_with_the_chunk_that_holds_it() -> None:
    packer = zlib.compressobj(wbits=31)
    decoder = Decoder("gzip")
    for number in range(3):
        event = b"data: %d\n\n" % number
        assert decoder.feed(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)) == event
    with pytest.raises(EncodingBroken):
        decoder.close()


def test_a_stream_has_the_same_limits() -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB))
    decoder = Decoder("gzip")
    opened = 0
    with pytest.raises(DecodedTooLong):
        for at in range(0, len(bomb), 1000):
            opened += len(decoder.feed(bomb[at : at + 1000]))
    assert opened <= 2 * MIB
    with pytest.raises(DecodedTooLong):
        Decoder("gzip", max_bytes=10).feed(gzip.compress(TEXT))


def test_a_damaged_or_unknown_stream_is_a_fault() -> None:
    with pytest.raises(EncodingBroken):
        Decoder("gzip").feed(b"<html>not gzip</html>")
    with pytest.raises(EncodingUnknown):
        Decoder("br")
    assert Decoder("gzip").close() == b""
