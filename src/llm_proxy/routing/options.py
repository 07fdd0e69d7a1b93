"""The choices of a session: which back-end and model, and where OpenAI calls go."""

from __future__ import annotations

from llm_proxy.config.kinds import RouteSettings
from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.urls import parse_origin


def check_origin(value: str) -> str | None:
    """What `allowed_redirect_origins` expects instead of `value`; None when it is an origin."""
    try:
        parse_origin(value)
    except UrlFault:
        return "an origin such as https://models.example or http://localhost:1234"
    return None


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
    allowed_redirect_origins: tuple[str, ...] = option(
        (),
        env="ALLOWED_REDIRECT_ORIGINS",
        flag="--allowed-redirect-origin",
        item="origins",
        check=check_origin,
        value_name="ORIGIN",
        help="origins that may receive a stored key after !/openai-url",
    )
    failover_routes: dict[str, RouteSettings] = option(
        {}, help="names that stand for an ordered list of back-ends and models"
    )
