"""Chat's `messages` in a Responses request, turned into items: a convenience for clients that mix the two
protocols.

Works on decoded JSON only. What has no counterpart is left as it is, so that the reader of items names its
place.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.dialects.openai_responses.wire import mapping, sequence, text, wrong_type


def items_of_messages(messages: list[Any]) -> list[dict[str, Any]]:
    """The items that say the same as Chat `messages`."""
    items: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = message.get("role")
        if not isinstance(role, str):
            raise wrong_type(f"{where}.role", "a string", role)
        if role == "tool":
            items.append(_output(message, where))
            continue
        content = message.get("content")
        if isinstance(content, list):
            content = [_part(part, role, f"{where}.content[{place}]") for place, part in enumerate(content)]
        elif content is not None and not isinstance(content, str):
            raise wrong_type(f"{where}.content", "a string or a list", content)
        if content:
            items.append({"type": "message", "role": role, "content": content})
        if refusal := text(message.get("refusal")):
            items.append({"type": "message", "role": role, "content": [{"type": "refusal", "refusal": refusal}]})
        items += [
            _call(call, f"{where}.tool_calls[{place}]")
            for place, call in enumerate(sequence(message.get("tool_calls")))
        ]
    return items


def _output(message: dict[str, Any], where: str) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = [_part(part, "tool", f"{where}.content[{place}]") for place, part in enumerate(content)]
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise wrong_type(f"{where}.tool_call_id", "a string", call_id)
    return {"type": "function_call_output", "call_id": call_id, "output": content or ""}


def _part(part: Any, role: str, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object", part)
    match part.get("type"):
        case "text":
            return {**part, "type": "output_text" if role == "assistant" else "input_text"}
        case "image_url":
            image = part.get("image_url")
            url = mapping(image).get("url") if isinstance(image, dict) else image
            item = {"type": "input_image", "image_url": url}
            if detail := mapping(image).get("detail"):
                item["detail"] = detail
            return item
        case "file":
            return {"type": "input_file", **mapping(part.get("file"))}
        case _:
            return part


def _call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise wrong_type(where, "an object", call)
    if call.get("type") == "custom":
        custom = mapping(call.get("custom"))
        return {
            "type": "custom_tool_call",
            "call_id": call.get("id"),
            "name": custom.get("name"),
            "input": custom.get("input"),
        }
    function = mapping(call.get("function"))
    if not function:
        raise bad_request(f"{where}.function: required", f"{where}.function")
    return {
        "type": "function_call", "call_id": call.get("id"), "name": function.get("name"),
        "arguments": function.get("arguments"),
    }  # fmt: skip
