"""Typed access to the members of a client's JSON: a wrong type is a 400 that names the field.

Knows JSON types and paths, nothing of what a member means. `null` counts as absent everywhere.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import Body, decode_object

NAME = "openai-chat"


def json_type(value: Any) -> str:
    """What a person would call the JSON type of `value`."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "object"


def wrong_type(path: str, expected: str, value: Any) -> FaultError:
    return bad_request(f"{path}: expected {expected}, got {json_type(value)}", path)


def missing(path: str) -> FaultError:
    return bad_request(f"{path}: missing", path)


def refused(fault: JsonFault) -> FaultError:
    """A body that is no acceptable JSON, as the client's 400."""
    return bad_request(str(fault), fault.path.removeprefix("$").removeprefix("."))


def decoded(body: Body) -> Fields:
    """The members of a request body. Raises FaultError."""
    try:
        return Fields(decode_object(body))
    except JsonFault as fault:
        raise refused(fault) from None


class Fields:
    """One JSON object of a request and the path that leads to it."""

    __slots__ = ("path", "raw")

    def __init__(self, raw: dict[str, Any], path: str = "") -> None:
        self.raw = raw
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        value = self.raw.get(name)
        if value is None:
            return default
        if type(value) is not str:
            raise wrong_type(self.at(name), "a string", value)
        return value

    def needed_text(self, name: str) -> str:
        if not self.has(name):
            raise missing(self.at(name))
        return self.text(name)

    def number(self, name: str) -> float | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if type(value) is not float and type(value) is not int:
            raise wrong_type(self.at(name), "a number", value)
        return value

    def integer(self, name: str) -> int | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise wrong_type(self.at(name), "an integer", value)
        return value

    def flag(self, name: str) -> bool | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if type(value) is not bool:
            raise wrong_type(self.at(name), "a boolean", value)
        return value

    def list_of(self, name: str) -> list[Any]:
        value = self.raw.get(name)
        if value is None:
            return []
        if type(value) is not list:
            raise wrong_type(self.at(name), "a list", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.list_of(name)
        for index, item in enumerate(value):
            if type(item) is not str:
                raise wrong_type(f"{self.at(name)}[{index}]", "a string", item)
        return tuple(value)

    def objects(self, name: str) -> list[Fields]:
        return [as_fields(item, f"{self.at(name)}[{index}]") for index, item in enumerate(self.list_of(name))]

    def object(self, name: str) -> Fields | None:
        value = self.raw.get(name)
        return None if value is None else as_fields(value, self.at(name))

    def mapping(self, name: str) -> dict[str, Any] | None:
        found = self.object(name)
        return None if found is None else found.raw


def as_fields(value: Any, path: str) -> Fields:
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    return Fields(value, path)


def unprocessable(message: str, param: str) -> FaultError:
    """A well-formed body whose parts cannot go together (422)."""
    return FaultError(Fault(kind="validation", message=message, param=param, side="client"))
