"""The data type of a session. What it remembers grows by typed values that rooms own; where it is kept is the store's business."""

from __future__ import annotations

from typing import Any

import msgspec


class Session(msgspec.Struct, kw_only=True):
    """Requests that share state. `scope` is the client key's name: the same id under another key is another session.

    `values` holds session options by declared key (typed by their room's declaration).
    """

    id: str
    scope: str
    created: float
    last_used: float
    values: dict[str, Any] = {}
