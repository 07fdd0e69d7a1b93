"""What the peer's bytes can get wrong: one small family of errors.

A ``WireFault`` always means that the input is at fault, never this program. The messages name places and
limits; they never quote the input, which may hold secrets.
"""


class WireFault(ValueError):
    """The bytes break the rules of their format or a limit."""


class FrameTooLong(WireFault):
    """One frame of a stream is longer than the cap."""


class JsonFault(WireFault):
    """Text that is not the JSON we accept. ``path`` is like ``$.messages[3]``, ``position`` a byte offset."""

    def __init__(self, message: str, path: str = "$", position: int | None = None) -> None:
        place = path if position is None else f"{path}, byte {position}"
        super().__init__(f"{message} (at {place})")
        self.message = message
        self.path = path
        self.position = position


class UrlFault(WireFault):
    """A text that is not a plain http or https address."""


class EncodingUnknown(WireFault):
    """A content encoding that is not decoded here."""


class EncodingBroken(WireFault):
    """A compressed body that is damaged or cut short."""


class DecodedTooLong(WireFault):
    """A compressed body that grows past the size or the ratio cap."""
