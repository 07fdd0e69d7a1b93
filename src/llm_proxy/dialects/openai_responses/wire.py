"""Words of the OpenAI Responses protocol that several files here share, and guarded access to JSON of
unknown shape.
"""

from __future__ import annotations

import re
from typing import Any, Final

from llm_proxy.conversation.fault import FaultError, bad_request
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import Body, decode_object

NAME: Final = "openai-responses"

# Marks the first message of a request as the top-level field `instructions`, which is not an item of the
# input.
INSTRUCTIONS: Final = "instructions"

# Reasoning items made by this proxy: no provider knows the id, so such an item is never sent up without its
# seal.
OWN_REASONING: Final = "rs_gw1_"

ENVELOPE: Final = "gw1."

# Begins `Opaque.type` of a content part inside a message, to tell it from an item of its own.
CONTENT: Final = "content:"

# Kinds of item that a tool or the client puts in; all other kinds that are not messages come from the model.
CLIENT_ITEMS: Final = frozenset(
    {
        "function_call_output", "custom_tool_call_output", "computer_call_output", "local_shell_call_output",
        "shell_call_output", "apply_patch_call_output", "mcp_approval_response",
    }
)  # fmt: skip

CAPABILITIES: Final[dict[str, str]] = {
    "web_search": "web_search",
    "web_search_2025_08_26": "web_search",
    "web_search_preview": "web_search",
    "web_search_preview_2025_03_11": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_execution",
    "image_generation": "image_generation",
    "mcp": "mcp",
    "computer": "computer",
    "computer_use_preview": "computer",
    "local_shell": "shell",
    "shell": "shell",
    "apply_patch": "apply_patch",
}

_JSON_NAMES: Final = {
    dict: "object",
    list: "list",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}


def text(value: Any) -> str:
    """`value` if it is a string, else the empty string."""
    return value if isinstance(value, str) else ""


def whole_number(value: Any) -> int | None:
    """`value` as an integer if it is one (1.0 counts), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def wrong_type(param: str, expected: str, value: Any) -> FaultError:
    """The error for a request field of the wrong JSON type; it names the place, never the value."""
    return bad_request(f"{param}: expected {expected}, got {_JSON_NAMES.get(type(value), 'something else')}", param)


def request_object(body: Body) -> dict[str, Any]:
    """The decoded request body. Raises FaultError (bad_request) with the place when it is no JSON object."""
    try:
        return decode_object(body)
    except JsonFault as fault:
        raise bad_request(str(fault)) from None


def server_tool(kind: str) -> str:
    """The tool behind a call item (`web_search_call` -> `web_search`); empty for items that are no calls."""
    return kind.removesuffix("_call") if kind.endswith("_call") else ""


_ITEM_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


def has_prefix(item_id: str, prefix: str) -> bool:
    """May `item_id` stand where the API demands ids that begin with `prefix`?"""
    return item_id.startswith(prefix) and _ITEM_ID.match(item_id) is not None
