"""The opening of a generateContent request, in either spelling of its field names, without reading it whole."""

from __future__ import annotations

from typing import Any

from llm_proxy.dialects.base import Opening
from llm_proxy.dialects.openings import (
    count_in,
    ids_of,
    list_in,
    members_of,
    names_of,
    object_in,
    read_beginning,
    read_recent,
    read_users,
    strings_in,
)
from llm_proxy.wire.json import Body

_SYSTEM = ("system",)


def read_opening(body: Body) -> Opening:
    outer = members_of(body)
    members = object_in(_either(outer, "generateContentRequest", "generate_content_request")) or outer
    contents = list_in(members.get("contents"))
    turns = [{"parts": content} if type(content) is str else content for content in contents]
    system, first = read_beginning(turns, _texts, role_of=_role, system_roles=_SYSTEM)
    instruction = _either(members, "systemInstruction", "system_instruction")
    config = object_in(_either(members, "generationConfig", "generation_config"))
    schema = _either(config, "responseSchema", "response_schema")
    json_schema = _either(config, "responseJsonSchema", "response_json_schema")
    recent, answered = read_recent(turns, _recent_texts, _answers)
    return Opening(
        system=_instructed(instruction) + system,
        first_user=first,
        users=read_users(contents, _texts, _role),
        tools=_names(members.get("tools")),
        json_demanded=(
            _either(config, "responseMimeType", "response_mime_type") == "application/json"
            or schema is not None
            or json_schema is not None
        ),
        max_tokens=count_in(_either(config, "maxOutputTokens", "max_output_tokens")),
        messages=len(contents),
        answered=answered,
        recent=recent,
        ids=ids_of(outer),
    )


def _either(members: dict[str, Any], camel: str, snake: str) -> Any:
    found = members.get(camel)
    return members.get(snake) if found is None else found


def _role(content: dict[str, Any]) -> Any:
    # Gemini CLI leaves the role of user contents out.
    return content.get("role") or "user"


def _instructed(instruction: Any) -> tuple[str, ...]:
    return _texts(instruction) if type(instruction) is dict else _part_texts(instruction)


def _texts(content: dict[str, Any]) -> tuple[str, ...]:
    return _part_texts(content.get("parts"))


def _part_texts(parts: Any) -> tuple[str, ...]:
    found = []
    for part in list_in(parts):
        text = part if type(part) is str else None
        if type(part) is dict and not part.get("thought"):
            text = part.get("text")
        if type(text) is str and text:
            found.append(text)
    return tuple(found)


def _answers(content: dict[str, Any]) -> bool:
    return content.get("role") == "model"


def _recent_texts(content: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for part in list_in(content.get("parts")):
        result = _either(part, "functionResponse", "function_response") if type(part) is dict else None
        if type(result) is dict:
            found.extend(strings_in(result.get("response")))
        else:
            found.extend(_part_texts([part]))
    return found


def _names(tools: Any) -> tuple[str, ...]:
    """Names of declared functions; a tool of the provider (`googleSearch`) is known by its member's name."""
    found: tuple[str, ...] = ()
    for tool in list_in(tools):
        for key, value in object_in(tool).items():
            if key in ("functionDeclarations", "function_declarations"):
                found += names_of(value)
            else:
                found += (key,)
    return found
