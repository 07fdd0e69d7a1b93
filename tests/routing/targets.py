"""Back ends that exist only as data, for tests of routing."""

from __future__ import annotations

from typing import Any, cast

from llm_proxy.backends.base import Backend, Limits
from tests.backends.settings import backend_settings


class Paper:
    """A back end on paper: an id, keys, and windows of models."""

    def __init__(self, id: str, *keys: str, windows: dict[str, int] | None = None, **members: Any) -> None:
        self.settings = backend_settings(id, "openai", *keys, **members)
        self.id = id
        self.type = "openai"
        self.usable = self.settings.enabled and bool(keys or self.settings.no_auth)
        self.functional = self.usable
        self.reason = "" if self.usable else "no key is configured; set PAPER_KEY."
        self.keys = self.settings.keys or ((None,) if self.settings.no_auth else ())
        self.windows = windows or {}

    def limits(self, model: str) -> Limits:
        return Limits(context_window=self.windows.get(model, 0))


def paper(id: str, *keys: str, **members: Any) -> Backend:
    return cast(Backend, Paper(id, *keys, **members))
