"""The data directory: whether it can be used, and the one key that is kept in it.

Owns its mode and that of the key. What else lies in it belongs to the stores.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

_LOG = logging.getLogger(__name__)
_SEAL_KEY_BYTES = 32


def usable(directory: Path, warnings: list[str]) -> Path | None:
    """The data directory, created with mode 0700, or None (with a warning) when nothing can be kept there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
        reason = "not writable"
    except OSError as error:
        reason = error.strerror or "not usable"
    warnings.append(
        f"data directory {directory} cannot be used ({reason}): usage and state are kept in memory only; choose another with --data-dir"
    )
    return None


def seal_key(directory: Path | None) -> bytes:
    """The key of sealed reasoning: kept in the data directory, so that conversations survive a restart."""
    if directory is None:
        return secrets.token_bytes(32)
    path = directory / "seal.key"
    try:
        kept = path.read_bytes()
        if len(kept) == _SEAL_KEY_BYTES:
            return kept
    except OSError:
        pass
    key = secrets.token_bytes(_SEAL_KEY_BYTES)
    draft = directory / f"seal.key.{os.getpid()}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        os.replace(draft, path)
    except OSError as error:
        _LOG.warning("the key of sealed reasoning cannot be kept in %s: %s", path, error.strerror)
    return key
