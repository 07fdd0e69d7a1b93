"""Event streams: the same frames for every split, and the raw bytes of all frames together are the input."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.wire import sse
from llm_proxy.wire.faults import FrameTooLong, WireFault
from llm_proxy.wire.sse import ArrayReader, Frame, SseReader
from tests.support.shared import SHARED, needs_shared


def read(*chunks: bytes, max_frame: int = sse.MAX_FRAME) -> list[Frame]:
    reader = SseReader(max_frame)
    return [frame for chunk in chunks for frame in reader.feed(chunk)] + reader.close()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(edges)]


# What the standard and U-09 to U-12 ask for: stream, then (event, data) of each frame.
TABLE: dict[str, tuple[bytes, list[tuple[str, bytes | None]]]] = {
    "data": (b'data: {"a":1}\n\n', [("", b'{"a":1}')]),
    "named": (b"event: x\ndata: 1\n\nevent: y\ndata: 2\n\n", [("x", b"1"), ("y", b"2")]),
    "crlf": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [("", b"1"), ("", b"2")]),
    "crlf named": (b"event: x\r\ndata: 1\r\n\r\n", [("x", b"1")]),
    "cr": (b"data: 1\r\rdata: 2\r\r", [("", b"1"), ("", b"2")]),
    "cr, event: y": (b"event: y\rdata: 1\r\r", [("y", b"1")]),
    "mixed": (
        b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\n\rdata: 4\r\n\n",
        [("", b"%d" % n) for n in (1, 2, 3, 4)],
    ),
    # Behind a bare CR a blank CR ends the frame at once; the LF that follows is carried, and is no line.
    "bare cr, then crlf": (b"data: 1\r\r\ndata: 2\n\n", [("", b"1"), ("", b"2")]),
    "no space": (b"data:1\n\n", [("", b"1")]),
    "two spaces": (b"data:  1\n\n", [("", b" 1")]),
    "no colon": (b"data\n\n", [("", b"")]),
    "empty data": (b"data:\n\n", [("", b"")]),
    "multi-line": (b"data: 1\ndata: 2\ndata\ndata:3\n\n", [("", b"1\n2\n\n3")]),
    "multi-line crlf": (b"data: 1\r\ndata: 2\r\n\r\n", [("", b"1\n2")]),
    "data then event": (b"data: 1\nevent: x\n\n", [("x", b"1")]),
    "last event wins": (b"event: x\nevent: y\ndata: 1\n\n", [("y", b"1")]),
    "id and retry": (b"id: 7\nretry: 100\nevent: x\ndata: 1\n\n", [("x", b"1")]),
    "comment": (b": ping\n\ndata: 1\n\n", [("", None), ("", b"1")]),
    "comment inside": (b": ping\ndata: 1\n\n", [("", b"1")]),
    "event without data": (b"event: x\n\n", [("x", None)]),
    "unknown field": (b"datax: 1\ndata: 2\n\n", [("", b"2")]),
    "blank lines": (b"\n\ndata: 1\n\n\n\n", [("", None), ("", None), ("", b"1"), ("", None), ("", None)]),
    "bom": (b"\xef\xbb\xbfdata: 1\n\n", [("", b"1")]),
    "bom later is data": (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [("", b"1"), ("", None)]),
    "bom then blank": (b"\xef\xbb\xbf\ndata: 1\n\n", [("", None), ("", b"1")]),
    "bom alone": (b"\xef\xbb\xbf", [("", None)]),
    "half a bom": (b"\xef\xbb", [("", None)]),
    "no final blank line": (b"data: 1\n\ndata: 2", [("", b"1"), ("", b"2")]),
    "one final line end": (b"data: 1\n\ndata: 2\n", [("", b"1"), ("", b"2")]),
    "final cr": (b"data: 1\r", [("", b"1")]),
    "final crlf": (b"data: 1\r\n", [("", b"1")]),
    "done": (b"data: [DONE]\n\ndata: late\n\n", [("", b"[DONE]"), ("", b"late")]),
    "separators": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\n\n".encode(),
        [("", "a\u2028b\u2029c\u0085d\x0be\x0cf".encode())],
    ),
    "bad utf-8": (b"event: \xff\ndata: \xed\xa0\x80\xc0\x80\n\n", [("\ufffd", b"\xed\xa0\x80\xc0\x80")]),
    "empty": (b"", []),
}


@pytest.mark.parametrize("name", TABLE)
def test_frames_follow_the_standard_at_every_two_way_split(name: str) -> None:
    stream, expected = TABLE[name]
    whole = read(stream)
    assert [(frame.event, frame.data) for frame in whole] == expected
    assert b"".join(frame.raw for frame in whole) == stream
    for place in range(len(stream) + 1):
        assert read(stream[:place], stream[place:]) == whole
    assert read(*cut(stream, list(range(len(stream))))) == whole


PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b"data: x",
    b"data:y",
    b"data",
    b"event: e",
    b": c",
    b"a",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.data())
@settings(max_examples=600, deadline=None)
def test_any_split_gives_the_same_frames_and_the_same_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole = read(stream)
    assert b"".join(frame.raw for frame in whole) == stream
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert read(*cut(stream, places)) == whole


@given(
    st.lists(st.sampled_from(PIECES), max_size=14),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.integers(1, 5),
)
@settings(max_examples=160, deadline=None)
def test_streams_with_one_kind_of_line_end_give_the_same_events(pieces: list[bytes], eol: bytes, size: int) -> None:
    plain = b"".join(piece if piece.strip() else b"\n" for piece in pieces)
    stream = plain.replace(b"\n", eol)
    frames = read(*[stream[at : at + size] for at in range(0, len(stream), size)])
    assert [frame[1:] for frame in frames] == [frame[1:] for frame in read(plain)]
    assert b"".join(frame.raw for frame in frames) == stream


@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
def test_a_frame_is_handed_over_with_its_last_byte(eol: bytes) -> None:
    reader = SseReader()
    reader.feed(b"data: 0" + eol + eol)
    reader.feed(b": the kind of line end is known from here on" + eol)
    assert [frame.data for frame in reader.feed(b"data: 1" + eol + eol)] in ([b"1"], [b"0", b"1"])


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_frame_over_the_cap_is_a_fault_after_the_frames_before_it(size: int) -> None:
    stream = b"data: 1\n\n" + b"data: " + b"x" * 100 + b"\n\ndata: 2\n\n"
    for chunks in ([stream], [stream[at : at + size] for at in range(0, len(stream), size)]):
        reader = SseReader(max_frame=64)
        frames: list[Frame] = []
        with pytest.raises(FrameTooLong):
            for chunk in chunks:
                frames += reader.feed(chunk)
            reader.close()
        assert [frame.data for frame in frames] == [b"1"]
        with pytest.raises(FrameTooLong):
            reader.feed(b"data: 3\n\n")


def test_a_frame_of_exactly_the_cap_passes() -> None:
    stream = b"data: " + b"x" * 56 + b"\n\n"
    assert len(read(stream, max_frame=64)) == 1
    assert len(read(*cut(stream, list(range(64))), max_frame=64)) == 1


@pytest.mark.parametrize("stream", [b"\n" * 100_000, b"\r\n" * 50_000, b"\r" * 50_000, b": c\n" * 100_000])
def test_many_empty_lines_and_comments_pass(stream: bytes) -> None:
    chunked = read(*[stream[at : at + 1000] for at in range(0, len(stream), 1000)])
    assert chunked == read(stream)
    assert b"".join(frame.raw for frame in chunked) == stream


def test_an_endless_line_is_stopped_at_the_cap() -> None:
    reader = SseReader()
    fed = 0
    with pytest.raises(FrameTooLong):
        while fed < 64 * 1024 * 1024:
            reader.feed(b"x" * 65536)
            fed += 65536
    assert fed <= sse.MAX_FRAME


def test_what_is_written_is_read_back() -> None:
    stream = sse.frame(b"1") + sse.named_frame("x", b"2") + sse.comment("ping\nx") + sse.crlf_frame(b"3") + sse.DONE
    assert [frame[1:] for frame in read(stream)] == [
        ("", b"1"),
        ("x", b"2"),
        ("", None),
        ("", b"3"),
        ("", b"[DONE]"),
    ]
    assert sse.crlf_frame(b"3") == b"data: 3\r\n\r\n"


@needs_shared
def test_recorded_streams_are_relayed_verbatim_and_split_alike() -> None:
    assert SHARED is not None
    streams = 0
    for path in sorted((SHARED / "recordings").glob("*/*.stream.*.json")):
        text = json.loads(path.read_bytes())["response"].get("sse")
        if not text:
            continue
        stream = text.encode()
        whole = read(stream)
        assert b"".join(frame.raw for frame in whole) == stream
        for size in (1, 1021):
            if size * 20_000 > len(stream):
                assert read(*[stream[at : at + size] for at in range(0, len(stream), size)]) == whole
        streams += 1
    assert streams > 100


# ---- arrays


def elements(*chunks: bytes, **options: int) -> list[bytes]:
    reader = ArrayReader(**options)
    found = [element for chunk in chunks for element in reader.feed(chunk)]
    return found + reader.close()


ARRAYS: dict[bytes, list[bytes]] = {
    b"[]": [],
    b" [ ] ": [],
    b'[{"a":1}\r\n,\r\n{"b":[1,{"c":"]}"}]}]\n': [b'{"a":1}', b'{"b":[1,{"c":"]}"}]}'],
    b'[1,-2.5e3 , true,null,"x"]': [b"1", b"-2.5e3", b"true", b"null", b'"x"'],
    rb'["a\"]","\\",{"k\"}":"\\\""}]': [rb'"a\"]"', rb'"\\"', rb'{"k\"}":"\\\""}'],
    b"\xef\xbb\xbf[[],[[]]]": [b"[]", b"[[]]"],
    '[{"t":"\u2028é"}]'.encode(): ['{"t":"\u2028é"}'.encode()],
}


@pytest.mark.parametrize("stream", ARRAYS)
def test_array_elements_are_the_same_at_every_split(stream: bytes) -> None:
    for place in range(len(stream) + 1):
        assert elements(stream[:place], stream[place:]) == ARRAYS[stream]
    assert elements(*cut(stream, list(range(len(stream))))) == ARRAYS[stream]


def test_an_array_element_comes_with_its_last_byte() -> None:
    assert ArrayReader().feed(b'[{"a":1}') == [b'{"a":1}']


BROKEN_ARRAYS = (
    *(b"", b"[", b"[1", b"[1,", b'["a', b'[{"a":1}', b"{}", b"[1,]", b"[,1]", b"[1 2]", b"[1]x", b"[{]}]"),
    *(b"[1[", b"\xef\xbb[]", b'[1"a"]'),
)


@pytest.mark.parametrize("stream", BROKEN_ARRAYS)
def test_what_is_not_an_array_is_a_fault_however_it_is_split(stream: bytes) -> None:
    for chunks in ([stream], cut(stream, list(range(len(stream))))):
        with pytest.raises(WireFault):
            elements(*chunks)


TEXT = st.text(st.sampled_from('ab"\\[]{},: é\u2028'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
@settings(max_examples=75, deadline=None)
def test_array_elements_decode_to_the_array(value: list[object], size: int, indent: int | None) -> None:
    stream = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    found = elements(*[stream[at : at + size] for at in range(0, len(stream), size)])
    assert [json.loads(element) for element in found] == json.loads(stream)


def test_an_array_element_over_the_cap_is_a_fault() -> None:
    with pytest.raises(FrameTooLong):
        elements(b'["' + b"x" * 100, max_element=64)
