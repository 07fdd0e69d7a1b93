"""Requests of Responses clients, read into the canonical form. Liberal in shape, strict in types: a wrong
type names its field.

A run of items from the model (reasoning, one message, calls) becomes one assistant `Message`, a run of tool
outputs one user `Message`; one item is one part, or one message's parts, so that what is written again
stands at the same places.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import (
    CacheMark,
    Citation,
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)  # fmt: skip
from llm_proxy.conversation.request import (
    Message,
    Reasoning,
    Request,
    ResponseFormat,
    Role,
    Sampling,
)  # fmt: skip
from llm_proxy.dialects.base import Head
from llm_proxy.dialects.efforts import check_effort, read_effort, reasoning_for
from llm_proxy.dialects.media_types import normal, split_data_url
from llm_proxy.dialects.openai_responses.chat_messages import items_of_messages
from llm_proxy.dialects.openai_responses.tools import read_tool_choice, read_tools
from llm_proxy.dialects.openai_responses.wire import (
    CLIENT_ITEMS,
    CONTENT,
    INSTRUCTIONS,
    NAME,
    mapping,
    request_object,
    sequence,
    server_tool,
    text,
    whole_number,
    wrong_type,
)  # fmt: skip
from llm_proxy.wire.json import Body

_REASONING = ("effort", "summary", "generate_summary", "max_tokens", "enabled", "exclude")
_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
}


def read_head(body: Body) -> Head:
    """Only what routing must know; of the rest no more than that the effort is one (REQ-01), for bodies that go on as they are."""
    fields = _Fields(dict(request_object(body)))
    control = fields.raw.get("reasoning")
    if isinstance(control, dict):
        check_effort(control.get("effort"), "reasoning.effort")
    return Head(
        model=_model(fields),
        stream=fields.switch("stream") or False,
        size=len(body),
        user=fields.string("user"),
    )


def read_request(body: Body) -> Request:
    """The whole request. Raises FaultError (bad_request) with `param` for a missing or mistyped field."""
    fields = _Fields(request_object(body))
    model = _model(fields)
    previous = fields.string("previous_response_id")
    instructions = fields.string("instructions")
    messages = _read_items(_input(fields, previous), "input")
    if instructions:
        messages = [Message("system", (Text(instructions),), id=INSTRUCTIONS), *messages]
    tools = read_tools(fields.take("tools"))
    choice_raw = fields.take("tool_choice")
    choice = read_tool_choice(choice_raw)
    reasoning, reasoning_rest = _reasoning(fields.table("reasoning"))
    form, verbosity = _format(fields)
    include = tuple(_strings(fields.take("include"), "include"))
    stream = fields.switch("stream") or False
    user = fields.string("user")
    sampling = _sampling(fields, include)
    store = fields.switch("store")
    parallel = fields.switch("parallel_tool_calls")
    limit = fields.integer("max_output_tokens")
    cache_key, tier = fields.string("prompt_cache_key"), fields.string("service_tier")
    metadata = fields.table("metadata")
    rest = {name: value for name, value in fields.raw.items() if value is not None}
    if reasoning_rest:
        rest["reasoning"] = reasoning_rest
    if choice is None and choice_raw is not None:
        rest["tool_choice"] = choice_raw
    return Request(
        dialect=NAME,
        model=model,
        messages=tuple(messages),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        sampling=sampling,
        max_output_tokens=limit,
        format=form,
        reasoning=reasoning,
        verbosity=verbosity,
        cache_key=cache_key,
        tier=tier,
        user=user or text(rest.get("safety_identifier")),
        metadata=metadata,
        store=store,
        previous_id=previous,
        include=include,
        stream=stream,
        include_usage=True,
        rest=rest,
    )


class _Fields:
    """The top-level fields; each is taken out once and checked, what is left is `Request.rest`."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def take(self, name: str) -> Any:
        return self.raw.pop(name, None)

    def string(self, name: str) -> str:
        value = self.take(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        return value

    def switch(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong_type(name, "a boolean", value)
        return value

    def integer(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        number = whole_number(value)
        if number is None:
            raise wrong_type(name, "an integer", value)
        return number

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(name, "a number", value)
        return value

    def table(self, name: str) -> dict[str, Any] | None:
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise wrong_type(name, "an object", value)
        return value


def _model(fields: _Fields) -> str:
    """Empty when the request names none: the back end may have a default."""
    return fields.string("model")


def _input(fields: _Fields, previous: str) -> list[Any]:
    """The items of `input`, or of `messages` as a convenience for clients that mix the protocols."""
    given = fields.take("input")
    messages = fields.take("messages")
    if given is None and messages is not None:
        if not isinstance(messages, list):
            raise wrong_type("messages", "a list", messages)
        given = items_of_messages(messages)
    stateful = previous or fields.raw.get("prompt") or fields.raw.get("conversation")
    if given is None:
        if stateful:
            return []
        raise bad_request("input: required", "input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong_type("input", "a string or a list", given)
    if not given and not stateful:
        raise bad_request("input: must not be empty", "input")
    return given


def _strings(value: Any, param: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(param, "a list", value)
    for index, entry in enumerate(value):
        if not isinstance(entry, str):
            raise wrong_type(f"{param}[{index}]", "a string", entry)
    return value


def _sampling(fields: _Fields, include: tuple[str, ...]) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        logprobs=True if "message.output_text.logprobs" in include else None,
        top_logprobs=fields.integer("top_logprobs"),
    )


def _reasoning(raw: dict[str, Any] | None) -> tuple[Reasoning | None, dict[str, Any]]:
    """The canonical control and the members that have none (`context`, `mode`, words of tomorrow)."""
    if raw is None:
        return None, {}
    effort, summary = raw.get("effort"), raw.get("summary") or raw.get("generate_summary")
    for name, value in (("effort", effort), ("summary", summary)):
        if value is not None and not isinstance(value, str):
            raise wrong_type(f"reasoning.{name}", "a string", value)
    word = read_effort(effort, "reasoning.effort") if effort else None
    budget, enabled, exclude = _routed(raw)
    rest = {name: value for name, value in raw.items() if value is not None and name not in _REASONING}
    visible = True if summary else None
    if exclude is not None:
        visible = not exclude
    if enabled is False:
        return Reasoning("off", visible=visible, summary=summary or ""), rest
    if word is None and not summary and budget is None and enabled is None and exclude is None:
        return None, rest
    return reasoning_for(word, budget, visible=visible, summary=summary or ""), rest


def _routed(raw: dict[str, Any]) -> tuple[int | None, bool | None, bool | None]:
    """Members of `reasoning` that OpenRouter and clients written for it know here as in Chat: `max_tokens`, `enabled`, `exclude`."""
    budget = raw.get("max_tokens")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int)):
        raise wrong_type("reasoning.max_tokens", "an integer", budget)
    for name in ("enabled", "exclude"):
        if raw.get(name) is not None and not isinstance(raw[name], bool):
            raise wrong_type(f"reasoning.{name}", "a boolean", raw[name])
    return budget, raw.get("enabled"), raw.get("exclude")


def _format(fields: _Fields) -> tuple[ResponseFormat | None, str]:
    """`text` with its format and verbosity; Chat's `response_format` counts where `text.format` says
    nothing.
    """
    config = fields.table("text") or {}
    verbosity = config.get("verbosity")
    if verbosity is not None and not isinstance(verbosity, str):
        raise wrong_type("text.verbosity", "a string", verbosity)
    chat = fields.table("response_format")
    raw, param = config.get("format"), "text.format"
    if raw is None and chat is not None:
        raw, param = chat, "response_format"
        if isinstance(inner := chat.get("json_schema"), dict):
            raw, param = {"type": "json_schema", **inner}, "response_format.json_schema"
    if raw is None:
        return None, verbosity or ""
    if not isinstance(raw, dict):
        raise wrong_type(param, "an object", raw)
    return _one_format(raw, param), verbosity or ""


def _one_format(raw: dict[str, Any], param: str) -> ResponseFormat:
    match raw.get("type"):
        case "text" | None:
            return ResponseFormat("text")
        case "json_object":
            return ResponseFormat("json")
        case "json_schema":
            schema, strict = raw.get("schema"), raw.get("strict")
            if not isinstance(schema, dict):
                raise wrong_type(f"{param}.schema", "an object", schema)
            if strict is not None and not isinstance(strict, bool):
                raise wrong_type(f"{param}.strict", "a boolean", strict)
            return ResponseFormat(
                "schema",
                schema,
                name=text(raw.get("name")),
                description=text(raw.get("description")),
                strict=strict,
            )
        case _:
            raise bad_request(f"{param}.type: expected text, json_object or json_schema", f"{param}.type")


# ---- items


def _read_items(items: list[Any], param: str) -> list[Message]:
    runs = _Runs()
    for index, item in enumerate(items):
        where = f"{param}[{index}]"
        if not isinstance(item, dict):
            raise wrong_type(where, "an object", item)
        _read_item(item, where, runs)
    return runs.finish()


class _Runs:
    """Collects items into messages: a message item opens a new run unless the run of the model has none
    yet.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._role: Role | None = None
        self._parts: list[Part] = []
        self._labels: tuple[str, str] | None = None

    def add(self, role: Role, part: Part) -> None:
        """One item that is one part. Tool outputs never join a user's message, nor anything a system text."""
        if self._role != role or (self._labels is not None and role != "assistant"):
            self._close()
            self._role = role
        self._parts.append(part)

    def add_message(self, role: Role, parts: list[Part], item_id: str, phase: str) -> None:
        if role != "assistant" or self._role != role or self._labels is not None or not parts:
            self._close()
            self._role = role
        self._labels = (item_id, phase)
        self._parts += parts
        if not parts:
            self._close()

    def _close(self) -> None:
        if self._role is not None:
            item_id, phase = self._labels or ("", "")
            self._messages.append(Message(self._role, tuple(self._parts), id=item_id, phase=phase))
        self._role, self._parts, self._labels = None, [], None

    def finish(self) -> list[Message]:
        self._close()
        return self._messages


def _read_item(item: dict[str, Any], where: str, runs: _Runs) -> None:
    kind = item.get("type")
    if kind is None and "role" in item:
        kind = "message"
    if not isinstance(kind, str):
        raise wrong_type(f"{where}.type", "a string", kind)
    match kind:
        case "message":
            _read_message(item, where, runs)
        case "reasoning":
            runs.add("assistant", _read_reasoning(item, where))
        case "function_call" | "custom_tool_call":
            runs.add("assistant", _read_call(item, kind, where))
        case "function_call_output" | "custom_tool_call_output":
            runs.add("user", _read_output(item, kind, where))
        case "additional_tools" | "configuration_update":
            role = _ROLES.get(text(item.get("role")), "developer")
            runs.add(role, Opaque(NAME, kind, item))
        case _:
            role = "user" if kind in CLIENT_ITEMS else "assistant"
            runs.add(role, Opaque(NAME, kind, item, server_tool(kind)))


def _read_message(item: dict[str, Any], where: str, runs: _Runs) -> None:
    role = item.get("role")
    if not isinstance(role, str):
        raise wrong_type(f"{where}.role", "a string", role)
    if role not in _ROLES:
        raise bad_request(f"{where}.role: expected user, assistant, system or developer", f"{where}.role")
    content = item.get("content")
    parts: list[Part]
    if isinstance(content, str):
        parts = [Text(content)]
    elif isinstance(content, list):
        parts = [read_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
    elif content is None:
        parts = []
    else:
        raise wrong_type(f"{where}.content", "a string or a list", content)
    runs.add_message(_ROLES[role], parts, text(item.get("id")), text(item.get("phase")))


def _read_reasoning(item: dict[str, Any], where: str) -> Part:
    """One reasoning item is one `Thinking`; without text and without a seal only its maker knows it."""
    summary = _texts(item.get("summary"), f"{where}.summary")
    content = _texts(item.get("content"), f"{where}.content")
    encrypted = item.get("encrypted_content")
    if encrypted is not None and not isinstance(encrypted, str):
        raise wrong_type(f"{where}.encrypted_content", "a string", encrypted)
    item_id = text(item.get("id"))
    pieces = [piece for piece in summary + content if piece]
    if not pieces and not encrypted:
        return Opaque(NAME, "reasoning", item)
    return Thinking(
        text="\n\n".join(pieces),
        summary=bool(summary) or not content,
        seal=Seal(NAME, "encrypted", encrypted, item_id=item_id) if encrypted else None,
        item_id=item_id,
        pieces=tuple(pieces) if len(pieces) > 1 else (),
    )


def _texts(value: Any, where: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(where, "a list", value)
    found = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise wrong_type(f"{where}[{index}]", "an object", entry)
        found.append(text(entry.get("text")))
    return found


def _required(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise wrong_type(f"{where}.{name}", "a string", value)
    if not value:
        raise bad_request(f"{where}.{name}: must not be empty", f"{where}.{name}")
    return value


def _read_call(item: dict[str, Any], kind: str, where: str) -> ToolCall:
    custom = kind == "custom_tool_call"
    field = "input" if custom else "arguments"
    arguments = item.get(field)
    if arguments is None:
        arguments = ""
    if not isinstance(arguments, str):
        raise wrong_type(f"{where}.{field}", "a string", arguments)
    return ToolCall(
        id=_required(item, "call_id", where),
        name=_required(item, "name", where),
        arguments=arguments,
        kind="custom" if custom else "function",
        namespace=text(item.get("namespace")),
        item_id=text(item.get("id")),
    )


def _read_output(item: dict[str, Any], kind: str, where: str) -> ToolResult:
    call_id = _required(item, "call_id", where)
    output = item.get("output")
    parts: tuple[Part, ...]
    if output is None or output == "":
        parts = ()
    elif isinstance(output, str):
        parts = (Text(output),)
    elif isinstance(output, list):
        parts = tuple(read_part(part, f"{where}.output[{index}]") for index, part in enumerate(output))
    else:
        raise wrong_type(f"{where}.output", "a string or a list", output)
    return ToolResult(call_id, parts, kind="custom" if kind.startswith("custom") else "function")


# ---- parts


def read_part(part: Any, where: str) -> Part:
    """One content part of a message or of a tool's output."""
    if not isinstance(part, dict):
        raise wrong_type(where, "an object", part)
    mark = _cache_mark(part.get("prompt_cache_breakpoint"))
    match part.get("type"):
        case "input_text" | "text" | "summary_text":
            return Text(_string(part, "text", where), cache=mark)
        case "output_text":
            citations = tuple(read_citation(entry) for entry in sequence(part.get("annotations")) if mapping(entry))
            return Text(_string(part, "text", where), citations=citations, cache=mark)
        case "refusal":
            return Refusal(_string(part, "refusal", where))
        case "input_image" | "image_url":
            return _read_image(part, where, mark)
        case "input_file" | "file":
            return _read_file(part, where, mark)
        case "input_audio":
            audio = mapping(part.get("input_audio"))
            form = text(audio.get("format")) or "wav"
            return Media("audio", data=text(audio.get("data")), mime=normal(f"audio/{form}"), cache=mark)
        case str(kind):
            return Opaque(NAME, CONTENT + kind, part)
        case other:
            raise wrong_type(f"{where}.type", "a string", other)


def _string(part: dict[str, Any], name: str, where: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise wrong_type(f"{where}.{name}", "a string", value)
    return value


def _cache_mark(raw: Any) -> CacheMark | None:
    return CacheMark(text(raw.get("ttl"))) if isinstance(raw, dict) else None


def _read_image(part: dict[str, Any], where: str, mark: CacheMark | None) -> Media:
    url, detail = part.get("image_url"), text(part.get("detail"))
    if isinstance(url, dict):
        detail = detail or text(url.get("detail"))
        url = url.get("url")
    file_id = text(part.get("file_id"))
    if not isinstance(url, str):
        if url is None and file_id:
            return Media("image", file_id=file_id, detail=detail, origin=NAME, cache=mark)
        raise wrong_type(f"{where}.image_url", "a string", url)
    if url[:5].lower() == "data:":
        mime, data = split_data_url(url, f"{where}.image_url")
        return Media("image", data=data, mime=mime, detail=detail, cache=mark)
    return Media("image", url=url, detail=detail, cache=mark)


def _read_file(part: dict[str, Any], where: str, mark: CacheMark | None) -> Media:
    inner = mapping(part.get("file")) or part
    name, detail = text(inner.get("filename")), text(inner.get("detail"))
    data, url, file_id = (inner.get(key) for key in ("file_data", "file_url", "file_id"))
    if isinstance(data, str):
        if data[:5].lower() == "data:":
            mime, data = split_data_url(data, f"{where}.file_data")
        else:
            mime = "application/pdf"
        return Media("document", data=data, mime=mime, name=name, detail=detail, cache=mark)
    if isinstance(url, str):
        return Media("document", url=url, name=name, detail=detail, cache=mark)
    if isinstance(file_id, str):
        return Media("document", file_id=file_id, name=name, detail=detail, origin=NAME, cache=mark)
    raise bad_request(f"{where}: expected file_data, file_url or file_id", where)


def read_citation(raw: dict[str, Any]) -> Citation:
    """One annotation of an output text; what is no web address is kept for this protocol only."""
    start, end = whole_number(raw.get("start_index")), whole_number(raw.get("end_index"))
    return Citation(
        url=text(raw.get("url")),
        title=text(raw.get("title")) or text(raw.get("filename")),
        start=-1 if start is None else start,
        end=-1 if end is None else end,
        origin=NAME,
        raw=raw,
    )
