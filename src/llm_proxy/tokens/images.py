"""What an image, a document or a clip costs. Sizes are read from the first bytes of the base64 text; nothing is decoded as a picture.

Knows the four formats that all providers take, and how the vendors bill them as data. Must not know requests or messages.
"""

from __future__ import annotations

import base64
import math
from typing import Final, Literal

import msgspec

_HEAD: Final = 65_536
"""Characters of base64 that are looked at: embedded profiles and thumbnails of a JPEG may stand before its frame header."""
_UNSEEN: Final = (1024, 768)
"""The size that an image is taken for which stands behind a URL or a file id."""
_MOST_SEGMENTS: Final = 2000
_MOST_DOCUMENT: Final = 400_000
"""Characters of base64 of a PDF in which pages are looked for; the rest is taken to be like them."""
_BYTES_PER_PAGE: Final = 60_000
"""Of a PDF whose page objects are compressed."""
_SPELLING: Final = str.maketrans({"-": "+", "_": "/", "\n": None, "\r": None})
_JPEG_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


class ImageRule(msgspec.Struct, frozen=True, kw_only=True):
    """How a family bills pictures.

    `tiles`: `base` + `each` per tile of 512 after fitting into 2048 and bringing the short side to 768. `patches`: `each` per
    patch of `side` pixels, at most `most` patches. `crops`: `each` for a small picture; for a large one, and per crop of it.
    `flat`: `each`, whatever the size. `page`: per page of a PDF. `second`: per second of audio; `frame`: per second of video.
    """

    rule: Literal["tiles", "patches", "crops", "flat"]
    each: float
    base: float = 0
    most: int = 0
    side: int = 32
    page: float = 0
    second: float = 25
    frame: float = 263


def image_tokens(rule: ImageRule, data: str, detail: str = "") -> float:
    """Tokens of one image. `data` is base64, empty where the image is not at hand; `detail` the OpenAI word."""
    width, height = (image_size(data) if data else None) or _UNSEEN
    match rule.rule:
        case "tiles":
            return rule.base if detail == "low" else rule.base + rule.each * _tiles(width, height)
        case "patches":
            return rule.each * _patches(width, height, rule.side, rule.most)
        case "crops":
            return rule.each * _crops(width, height)
        case "flat":
            return rule.each


def _tiles(width: int, height: int) -> int:
    shrink = min(1.0, 2048 / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    return math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)


def _patches(width: int, height: int, side: int, most: int) -> int:
    whole = math.ceil(width / side) * math.ceil(height / side)
    if whole <= most:
        return whole
    shrink = math.sqrt(most * side * side / (width * height))
    return min(most, math.ceil(width * shrink / side) * math.ceil(height * shrink / side))


def _crops(width: int, height: int) -> int:
    """Up to 384 pixels on both sides one; else crops of two thirds of the short side, between 256 and 768, and the whole."""
    if max(width, height) <= 384:
        return 1
    side = min(768, max(256, math.floor(min(width, height) / 1.5)))
    return 1 + math.ceil(width / side) * math.ceil(height / side)


def image_size(data: str) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG, GIF or WebP given as base64; None when its head does not say."""
    head = _decoded(data[:_HEAD])
    size = None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    elif head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif head[:2] == b"\xff\xd8":
        size = _jpeg_size(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        size = _webp_size(head)
    return size if size and size[0] > 0 and size[1] > 0 else None


def _decoded(text: str) -> bytes:
    """Base64, standard or for URLs, of which a cut end is left out; nothing where it is no base64."""
    text = text.translate(_SPELLING).rstrip("=")
    rest = len(text) % 4
    try:
        return base64.b64decode(text[:-1] if rest == 1 else text + "=" * (-rest % 4))
    except ValueError:
        return b""


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(head):
            break
        if head[at] != 0xFF:
            at += 1
            continue
        marker = head[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4], "big"))
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if len(head) < 30:
        return None
    match head[12:16]:
        case b"VP8 ":
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case _:
            return None


def pdf_pages(data: str) -> int:
    """Pages of a PDF given as base64, by its page objects; by its size where they cannot be seen."""
    seen = _decoded(data[:_MOST_DOCUMENT])
    pages = sum(seen.count(mark) for mark in (b"/Type /Page", b"/Type/Page"))
    pages -= sum(seen.count(mark) for mark in (b"/Type /Pages", b"/Type/Pages"))
    whole = len(data) * 3 // 4
    if pages <= 0:
        return max(1, whole // _BYTES_PER_PAGE)
    return max(1, round(pages * max(1.0, len(data) / _MOST_DOCUMENT)))


def audio_seconds(data: str, mime: str) -> float:
    """The length of a clip: exact for WAV, else by 16 kB per second, the usual rate of compressed speech and music."""
    size = len(data) * 3 / 4
    head = _decoded(data[:64])
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE" and len(head) >= 32:
        rate = int.from_bytes(head[28:32], "little")
        return size / rate if rate else 0.0
    if mime in ("audio/pcm", "audio/pcm16", "audio/l16"):
        return size / 48_000
    return size / 16_000


def video_seconds(data: str) -> float:
    """The length of a clip: from the movie header of MP4 and QuickTime, else by 250 kB per second."""
    for part in (data[:_HEAD], data[-_HEAD - len(data) % 4 :]):
        head = _decoded(part)
        at = head.find(b"mvhd") + 4
        if at >= 4 and len(head) >= at + 32:
            wide = head[at] == 1
            at += 20 if wide else 12
            scale = int.from_bytes(head[at : at + 4], "big")
            length = int.from_bytes(head[at + 4 : at + (12 if wide else 8)], "big")
            if scale and length < scale * 86_400:
                return length / scale
    return len(data) * 3 / 4 / 250_000


def plain_text(data: str) -> str:
    """The text of a plain document given as base64."""
    return _decoded(data).decode("utf-8", "replace")
