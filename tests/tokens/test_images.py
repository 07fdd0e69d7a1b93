"""Sizes are read from the heads of pictures, and billed as each vendor documents."""

from __future__ import annotations

import base64
import struct

import pytest

from llm_proxy.tokens.families import family_of
from llm_proxy.tokens.images import audio_seconds, image_size, image_tokens, pdf_pages, plain_text, video_seconds


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(40)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    frame = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)
    return b"\xff\xd8" + b"\xff\xe0" + struct.pack(">H", 16) + bytes(14) + before + b"\xff\xff" + frame[1:]


def webp(kind: bytes, width: int, height: int) -> bytes:
    head = b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4)
    match kind:
        case b"VP8 ":
            return head + bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8)
        case b"VP8L":
            return head + b"\x2f" + struct.pack("<I", (height - 1) << 14 | (width - 1)) + bytes(8)
        case _:
            return head + bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3] + bytes(8)


PICTURES = {
    "png": png(640, 480),
    "gif": gif(640, 480),
    "jpeg": jpeg(640, 480),
    "jpeg behind a thumbnail": jpeg(640, 480, b"\xff\xe1" + struct.pack(">H", 30_002) + bytes(30_000)),
    "lossy webp": webp(b"VP8 ", 640, 480),
    "lossless webp": webp(b"VP8L", 640, 480),
    "extended webp": webp(b"VP8X", 640, 480),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_the_size_is_read_from_the_head(picture: bytes) -> None:
    assert image_size(b64(picture + bytes(500_000))) == (640, 480)


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_head_cut_at_any_byte_is_no_size_or_the_right_one(picture: bytes) -> None:
    for end in range(0, min(len(picture), 60)):
        assert image_size(b64(picture[:end])) in (None, (640, 480))


@pytest.mark.parametrize("data", ["", "!!", "A", "AAAA", "ÿÿÿÿ", b64(b"\xff\xd8" * 2000), b64(png(0, 5))])
def test_what_is_no_picture_has_no_size(data: str) -> None:
    assert image_size(data) is None


def test_base64_for_urls_and_with_line_breaks_is_read() -> None:
    text = b64(png(640, 480))
    broken = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    assert image_size(broken.replace("+", "-").replace("/", "_").rstrip("=")) == (640, 480)


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (640, 480), "", 425),
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (2048, 4096), "low", 85),
        ("gpt-5", (640, 480), "", 350),
        ("gpt-4.1-mini", (300, 346), "", 178.2),
        ("o4-mini", (1024, 1024), "", 1761.28),
        ("claude-sonnet-4-5", (640, 480), "", 414),
        ("claude-sonnet-4-5", (166, 282), "", 66),
        ("claude-sonnet-4-5", (8000, 8000), "", 1568),
        ("gemini-2.0-flash", (384, 384), "", 258),
        ("gemini-2.0-flash", (640, 480), "", 1290),
        ("gemini-3-flash-preview", (640, 480), "", 1064),
    ],
)
def test_a_picture_costs_what_its_vendor_says(model: str, size: tuple[int, int], detail: str, tokens: float) -> None:
    assert image_tokens(family_of(model).image, b64(png(*size)), detail) == pytest.approx(tokens, abs=1)


def test_a_picture_behind_an_address_counts_as_a_common_size() -> None:
    assert image_tokens(family_of("gpt-4o").image, "") == 85 + 4 * 170


def test_pages_of_a_pdf_are_counted_by_their_objects() -> None:
    page = b"1 0 obj <</Type /Page /Parent 2 0 R>> endobj\n"
    assert pdf_pages(b64(b"%PDF-1.7 <</Type /Pages /Count 3>>" + page * 3)) == 3
    assert pdf_pages(b64(b"%PDF-1.7" + bytes(600_000))) == 10
    assert pdf_pages(b64(b"%PDF")) == 1


def test_the_length_of_a_clip() -> None:
    header = (
        b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16) + b"data" + bytes(4)
    )
    assert audio_seconds(b64(header + bytes(32_000)), "audio/wav") == pytest.approx(2, abs=0.01)
    assert audio_seconds(b64(bytes(32_000)), "audio/mp3") == pytest.approx(2, abs=0.01)
    movie = b"ftyp" + bytes(20) + b"mvhd" + bytes(12) + struct.pack(">II", 1000, 5000) + bytes(40)
    assert video_seconds(b64(movie)) == 5
    assert (
        video_seconds(b64(bytes(500_000) + b"mvhd\x01" + bytes(19) + struct.pack(">IQ", 1000, 7000) + bytes(40))) == 7
    )
    assert video_seconds(b64(bytes(750_000))) == pytest.approx(3)


def test_a_plain_document_is_its_text() -> None:
    assert plain_text(b64("Grüße".encode())) == "Grüße"
