"""What a client asks: messages, tools, parameters. Immutable; change it with `msgspec.structs.replace`.

System texts are messages of role `system` or `developer` at the place where they stand. Tool results are parts of
`user` messages (whatever the protocol calls their role). A reader makes one `Message` per wire message or, for
Responses, per input item run as described in `Message`; merging turns is the writers' business (`turns.py`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llm_proxy.conversation.parts import CacheMark, Part

Role = Literal["system", "developer", "user", "assistant"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Message(msgspec.Struct, frozen=True):
    """One message. `phase` is the Responses label of assistant messages, kept for the way back.

    `inline` marks a system message that an Anthropic client put among its messages instead of the `system` field.
    """

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    id: str = ""
    phase: str = ""
    inline: bool = False


class FunctionTool(msgspec.Struct, frozen=True):
    """A tool of the client. `parameters` is its JSON Schema, None when the client gave none. `strict` None = unsaid.

    `schema_style`: `json-schema`, or `openapi` for Gemini's `parameters` subset (types may be upper case).
    `namespace_description` is the text of the Responses namespace, the same for all of its tools.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    namespace: str = ""
    schema_style: Literal["json-schema", "openapi"] = "json-schema"
    cache: CacheMark | None = None
    defer: bool = False
    legacy: bool = False
    namespace_description: str = ""


class CustomTool(msgspec.Struct, frozen=True):
    """A tool whose input is free text. `format` is the Responses form: `{"type": "grammar", "syntax", "definition"}`."""

    name: str
    description: str = ""
    format: dict[str, Any] | None = None
    namespace: str = ""
    cache: CacheMark | None = None
    namespace_description: str = ""


class ServerTool(msgspec.Struct, frozen=True):
    """A tool that the provider runs, or one typed by its vendor: only dialect `origin` knows it. `raw` is its JSON object.

    `capability` is the neutral name where several vendors have the like: `web_search`, `code_execution`,
    `file_search`, `image_generation`, `url_context`, `computer`, `mcp`, `shell`, `apply_patch`; else empty.
    """

    origin: str
    type: str
    raw: dict[str, Any]
    capability: str = ""
    cache: CacheMark | None = None


Tool = FunctionTool | CustomTool | ServerTool


class ToolChoice(msgspec.Struct, frozen=True):
    """`mode` auto, none, required, or `named` (exactly `names[0]`); `names` with auto/required = allowed subset."""

    mode: Literal["auto", "none", "required", "named"]
    names: tuple[str, ...] = ()


class ResponseFormat(msgspec.Struct, frozen=True):
    """`json` = any JSON object; `schema` = JSON that fits `schema`. `strict` None = the client did not say."""

    kind: Literal["text", "json", "schema"]
    schema: dict[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None
    schema_style: Literal["json-schema", "openapi"] = "json-schema"


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model shall think. `mode` off, auto (model decides), effort, or budget (tokens).

    `visible`: does the client want to see it (None = unsaid); `summary`: the Responses word (auto, concise, detailed).
    """

    mode: Literal["off", "auto", "effort", "budget"]
    effort: Effort | None = None
    budget: int | None = None
    visible: bool | None = None
    summary: str = ""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """None = unsaid. Scales are those of OpenAI (temperature 0-2)."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request.

    `dialect` is the protocol it was read from. `max_output_tokens` includes reasoning tokens. `rest` holds the top-level
    fields of the origin that have no canonical member (decoded JSON): a writer of another dialect reports them as
    lost unless it knows them; a writer of the same dialect need not care (see `dialects/verbatim.py`).
    `cache_key`/`user`/`metadata`/`tier`/`store`/`previous_id`/`verbosity` carry the like-named fields.
    `native` keeps how the origin spelled what it can say in several ways (Chat: `max_tokens`, `thinking`, a single `stop`): only a
    writer of the same dialect reads it, and only while the canonical member still says the same.
    `added` names the members that the proxy set, not the client (`temperature`, `top_p`, `top_k`, `reasoning`, `max_output_tokens`): a
    writer of the client's own dialect adapts these to the target, as it would for a stranger. `filled` are those of them that only
    fill a gap: they give way where a target cannot take them beside what the client said.
    `gemini` holds members of Gemini's `generationConfig`, in either spelling, that only a Gemini target gets, and only where the client
    said nothing.
    `safety` is Gemini's list. `include` is the Responses list. `modalities` and `audio` concern generated media.
    """

    dialect: str
    model: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    verbosity: str = ""
    modalities: tuple[str, ...] = ()
    audio: dict[str, Any] | None = None
    cache_key: str = ""
    tier: str = ""
    user: str = ""
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    previous_id: str = ""
    include: tuple[str, ...] = ()
    safety: tuple[dict[str, Any], ...] = ()
    stream: bool = False
    include_usage: bool = False
    rest: dict[str, Any] = {}
    native: dict[str, Any] = {}
    added: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()
    gemini: dict[str, Any] = {}

    @property
    def lesser(self) -> Literal["temperature", "top_p"]:
        """Which of the two goes where a model takes only one of them: top_p, unless the temperature only fills a gap beside it."""
        return "temperature" if "temperature" in self.filled and "top_p" not in self.filled else "top_p"
