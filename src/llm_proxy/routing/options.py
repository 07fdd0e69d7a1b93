"""The choices of a session: which back-end and model, and where OpenAI calls go."""

from __future__ import annotations

from llm_proxy.config.options import ChatKey, OptionGroup, option


class ChoiceOptions(OptionGroup, title="Routing"):
    backend: str | None = option(
        None,
        at="",
        chat=ChatKey("backend", "session"),
        default_text="default_backend",
        help="back-end of this session",
    )
    model: str | None = option(
        None,
        at="",
        chat=ChatKey("model", "session"),
        default_text="the requested model",
        help="model of this session, `backend:model` or a model of its back-end",
    )
    openai_url: str | None = option(
        None,
        at="",
        kind="url",
        chat=ChatKey("openai-url", "session"),
        default_text="the back-end's base_url",
        help="server for this session's calls to back-ends of type openai",
    )
