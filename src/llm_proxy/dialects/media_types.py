"""Media types: data URLs, aliases, and what the first bytes say when a label is wrong."""

from __future__ import annotations

import base64
import binascii

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import Opaque
from llm_proxy.conversation.request import Request

_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/mpeg": "audio/mp3",
}
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"), (b"\xff\xd8\xff", 0, "image/jpeg"), (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"), (b"%PDF-", 0, "application/pdf"),
)  # fmt: skip


def normal(mime: str) -> str:
    """Lower case without parameters, aliases resolved (`image/jpg` -> `image/jpeg`)."""
    plain = mime.split(";", 1)[0].strip().lower()
    return _ALIASES.get(plain, plain)


def sniffed(data: str, declared: str) -> str:
    """The type that the first bytes of base64 `data` show if it is an image or PDF, else `declared`, normalised."""
    head = data[:32].replace("-", "+").replace("_", "/")
    try:
        start = base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return normal(declared)
    for magic, offset, mime in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return mime
    return normal(declared)


def split_data_url(url: str, param: str = "") -> tuple[str, str]:
    """(media type, base64 data) of a `data:` URL. Raises FaultError (bad_request, `param`) when it is none."""
    head, comma, data = url.partition(",")
    if not comma or not head[:5].lower() == "data:":
        raise bad_request("expected a data: URL", param)
    mime, *options = head[5:].split(";")
    if "base64" not in [option.strip().lower() for option in options]:
        from urllib.parse import unquote_to_bytes

        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return normal(mime or "text/plain"), data


def data_url(mime: str, data: str) -> str:
    return f"data:{mime};base64,{data}"


def audio_format(mime: str) -> str:
    """Chat's word (`wav`, `mp3`, …) for an audio media type."""
    return normal(mime).removeprefix("audio/")


_MEDIA_WORDS = ("image", "audio", "video", "file", "document")


def refuse_unknown_media(request: Request) -> None:
    """A part of a user's message that only its own protocol knows and that names a medium cannot be left out silently (FE-13).

    Raises FaultError (bad_request) naming it.
    """
    for index, message in enumerate(request.messages):
        if message.role != "user":
            continue
        for part in message.parts:
            if (
                isinstance(part, Opaque)
                and any(word in part.type for word in _MEDIA_WORDS)
                and "search" not in part.type
            ):
                name = part.type.rpartition(":")[2]
                raise bad_request(
                    f"messages[{index}]: no other protocol has a part of type {name[:60]}", f"messages[{index}]"
                )


def kind_of(mime: str) -> str:
    """image, audio, video or document."""
    family = normal(mime).split("/", 1)[0]
    return family if family in ("image", "audio", "video") else "document"
