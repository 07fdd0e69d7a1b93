"""Values of a credentials file or of a token endpoint's answer, guarded: other programs write them.

Pure. Knows no vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_proxy.wire.secrets import Secret

# Below, a moment is in seconds; above, in milliseconds: 10^11 s is the year 5138, 10^11 ms was 1973.
_MILLISECONDS: Final = 1e11
_LARGEST: Final = 10**18  # JSON knows integers that are larger than any float


def text_of(members: object, name: str) -> str:
    """The text of a member without blanks around it; "" if there is none."""
    found = members.get(name) if isinstance(members, Mapping) else None
    return found.strip() if isinstance(found, str) else ""


def number_of(members: object, name: str) -> float | None:
    found = members.get(name) if isinstance(members, Mapping) else None
    if not isinstance(found, int | float) or isinstance(found, bool) or abs(found) > _LARGEST:
        return None
    return float(found)


def moment_of(members: object, name: str) -> float | None:
    """Epoch seconds of a member that holds seconds or milliseconds."""
    found = number_of(members, name)
    return None if found is None else found / 1000 if found > _MILLISECONDS else found


def secret_of(members: object, name: str) -> Secret | None:
    found = text_of(members, name)
    return Secret(found) if found else None


def end_of(answer: Mapping[str, object], now: float) -> int | None:
    """When a token ends that was given at `now` (epoch seconds), by its `expires_in`: epoch milliseconds, None if that makes no sense."""
    lifetime = number_of(answer, "expires_in")
    return int((now + lifetime) * 1000) if lifetime is not None and 0 < lifetime < 1e9 else None
