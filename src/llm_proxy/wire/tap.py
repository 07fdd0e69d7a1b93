"""Where somebody may listen to a call of a provider: what went out and what came back, byte for byte.

Owns the protocol only. The transport tells; a recorder listens; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class WireTap(Protocol):
    """Hears one HTTP exchange with a provider. Every method returns at once, costs microseconds and never raises."""

    def request(self, destination: str, body: bytes) -> None:
        """What is sent now. `destination` is origin and path, without query and without credentials."""

    def response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """The headers of the answer have arrived."""

    def chunk(self, data: bytes) -> None:
        """A piece of the answer's body as read, decompressed."""

    def end(self, failure: str = "") -> None:
        """Nothing more comes: the answer is complete (""), or why it is not. Called once, also when the client left."""
