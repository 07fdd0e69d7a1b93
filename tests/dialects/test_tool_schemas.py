"""Tool schemas: what each vendor accepts, what was lost on the way, and that nothing explodes."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.dialects.tool_schemas import (
    fits_openai_strict,
    for_anthropic,
    for_gemini_parameters,
    for_gemini_response,
    for_openai,
    from_openapi,
)

PLAIN = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of an object schema as Gemini gets them."""
    out, _ = for_gemini_parameters({"type": "object", "properties": schema})
    assert out is not None
    found: dict[str, Any] = out["properties"]
    return found


def test_a_schema_that_is_fine_comes_back_as_the_same_object() -> None:
    assert for_anthropic(PLAIN) == (PLAIN, []) and for_anthropic(PLAIN)[0] is PLAIN
    assert for_openai(PLAIN)[0] is PLAIN


def test_properties_named_like_keywords_survive_everywhere() -> None:
    names = [
        "$id",
        "$ref",
        "format",
        "default",
        "const",
        "oneOf",
        "items",
        "not",
        "required",
        "$schema",
        "nullable",
    ]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    for out in (
        for_gemini_parameters(schema)[0],
        for_anthropic(schema)[0],
        for_anthropic(schema, True)[0],
        for_openai(schema)[0],
        for_openai(schema, True)[0],
        from_openapi(schema),
    ):
        assert out is not None
        assert list(out["properties"]) == names
        assert out["required"] == names


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "INTEGER", "nullable": True}),
        (
            {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
        ),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, {"type": "STRING", "minLength": 2}),
        ({"enum": ["a", "b", None]}, {"type": "STRING", "nullable": True, "enum": ["a", "b"]}),
        ({"type": "array", "items": {"type": "number"}}, {"type": "ARRAY", "items": {"type": "NUMBER"}}),
        ({"type": "object", "properties": {}}, {"type": "OBJECT"}),
        (
            {"type": "integer", "exclusiveMinimum": 0},
            {"type": "INTEGER", "minimum": 0, "description": "(greater than 0)"},
        ),
        ({"type": "string", "format": "uri"}, {"type": "STRING", "description": "(format: uri)"}),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
        (
            {"enum": [1, 2]},
            {"type": "STRING", "enum": ["1", "2"], "description": "(JSON values written as text)"},
        ),
        ({"type": "boolean", "readOnly": True, "title": "T"}, {"type": "BOOLEAN", "title": "T"}),
    ],
)
def test_what_gemini_parameters_take(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert properties({"x": schema})["x"] == expected


def test_references_are_inlined_and_recursion_ends_at_depth_three() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    out, losses = for_gemini_parameters(
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    )
    place, depth = out, 0
    while place and "properties" in place:
        place = next(iter(place["properties"].values()))
        depth += 1
    assert (depth, place) == (4, {"type": "OBJECT"})
    assert losses == ["recursion was cut at depth 3"]


def test_gemini_gets_no_parameters_when_there_are_none_and_no_required_without_its_property() -> None:
    assert for_gemini_parameters({"type": "object", "properties": {}})[0] is None
    out, _ = for_gemini_parameters({**PLAIN, "required": ["city", "gone"]})
    assert out is not None and out["required"] == ["city"]
    assert for_gemini_response({"type": "array", "items": {"type": "string"}})[0]["type"] == "ARRAY"


def test_every_lost_keyword_is_named_once() -> None:
    schema = {"type": "string", "contentEncoding": "base64", "not": {"const": "x"}}
    _, losses = for_gemini_parameters({"type": "object", "properties": {"a": schema, "b": schema}, "$schema": "s"})
    assert sorted(losses) == ["contentEncoding left out", "not left out"]


@pytest.mark.parametrize("compile_", [for_anthropic, for_openai])
def test_the_root_is_an_object(compile_: Any) -> None:
    assert compile_(None)[0] == {"type": "object", "properties": {}}
    assert compile_({})[0] == {"type": "object", "properties": {}}
    wrapped, losses = compile_({"type": "string"})
    assert wrapped == {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]}
    assert losses
    referred, losses = compile_({"$ref": "#/$defs/A", "$defs": {"A": PLAIN}})
    assert referred["properties"] == PLAIN["properties"] and not losses
    one = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "k": {"const": 1}},
        "required": ["a", "k"],
    }
    two = {
        "type": "object",
        "properties": {"b": {"type": "string"}, "k": {"const": 2}},
        "required": ["b", "k"],
    }
    joined, losses = compile_({"oneOf": [one, two]})
    assert set(joined["properties"]) == {"a", "b", "k"}
    assert joined["required"] == ["k"] and "oneOf" not in joined and losses
    assert joined["properties"]["k"] == {"anyOf": [{"const": 1}, {"const": 2}]}


def test_openai_wants_items_of_every_array() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array"}, "items": {"type": "string"}}}
    assert for_openai(schema)[0]["properties"] == {
        "a": {"type": "array", "items": {}},
        "items": {"type": "string"},
    }


def test_strict_closes_every_object() -> None:
    schema = {
        "type": "object",
        "properties": {"o": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}},
        "required": ["o"],
    }
    out, losses = for_anthropic(schema, True)
    assert out["additionalProperties"] is False
    inner = out["properties"]["o"]
    assert inner["additionalProperties"] is False
    assert inner["properties"]["n"] == {"type": "integer", "description": "(minimum: 1)"}
    assert losses == ["minimum became a note in the description"]
    out, losses = for_openai(schema, True)
    assert out["properties"]["o"]["required"] == ["n"]
    assert out["properties"]["o"]["properties"]["n"]["type"] == ["integer", "null"]
    assert losses == ["optional properties became required and may be null"]
    assert not fits_openai_strict(schema)
    assert fits_openai_strict(out)
    assert "additionalProperties" not in for_anthropic(schema, False)[0]


def test_strict_keeps_plain_references_and_breaks_recursion_for_anthropic() -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}
    schema = {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}, "$defs": {"T": tree}}
    assert "$ref" not in json.dumps(for_anthropic(schema, True)[0])
    assert for_openai(schema, True)[0]["$defs"]["T"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/T"}
    flat = {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "string"}}}
    assert for_anthropic(flat, True)[0]["properties"]["t"] == {"$ref": "#/$defs/T"}


def test_from_openapi() -> None:
    assert from_openapi(
        {
            "type": "OBJECT",
            "properties": {
                "type": {"type": "STRING", "nullable": True, "enum": ["a"], "format": "enum"},
                "n": {"type": "ARRAY", "items": {"any_of": [{"type": "INTEGER"}]}, "min_items": "2"},
                "e": {"type": "NUMBER", "example": 3},
                "u": {"type": "TYPE_UNSPECIFIED"},
            },
            "propertyOrdering": ["n"],
            "required": ["n"],
        }
    ) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["a", None]},
            "n": {"type": "array", "items": {"anyOf": [{"type": "integer"}]}, "minItems": 2},
            "e": {"type": "number", "examples": [3]},
            "u": {},
        },
        "required": ["n"],
    }


def bomb(width: int, depth: int, closed: bool) -> dict[str, Any]:
    """Definitions of which each refers to the next several times."""
    definitions: dict[str, Any] = {
        f"d{level}": {
            "type": "object",
            "properties": {f"p{place}": {"$ref": f"#/$defs/d{level + 1}"} for place in range(width)},
        }
        for level in range(depth)
    }
    definitions[f"d{depth}"] = {"$ref": "#/$defs/d0"} if closed else {"type": "string"}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": definitions}


@pytest.mark.parametrize("closed", [False, True])
def test_references_cannot_make_the_output_explode(closed: bool) -> None:
    schema = bomb(3, 60, closed)
    size = len(json.dumps(schema))
    out, losses = for_gemini_parameters(schema)
    assert len(json.dumps(out)) < 200 * size
    assert "too large" in " ".join(losses)
    strict, _ = for_anthropic(schema, True)
    assert len(json.dumps(strict)) < 500 * size


def test_deep_and_circular_schemas_are_survived() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(120):
        deep = {"type": "array", "items": deep}
    loops = {
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"allOf": [{"$ref": "#/$defs/A"}]}},
        "$ref": "#/$defs/A",
    }
    for schema in (
        {"type": "object", "properties": {"d": deep}},
        loops,
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
    ):
        for_gemini_parameters(schema)
        for strict in (False, True):
            for_anthropic(schema, strict)
            for_openai(schema, strict)
        from_openapi(schema)


KEYWORDS = [
    *("type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "a", "enum", "const"),
    *("required", "nullable", "minimum", "additionalProperties", "prefixItems", "format", "pattern"),
]
WILD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["string", "object", "#/$defs/a", "#"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "anyOf", "allOf", "$ref", "$defs", "items", "enum"]), WILD)
)
@settings(max_examples=75, deadline=None)
def test_any_schema_is_compiled_and_left_unchanged(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    for_gemini_parameters(schema)
    for_gemini_response(schema)
    from_openapi(schema)
    for strict in (False, True):
        for out, _ in (for_anthropic(schema, strict), for_openai(schema, strict)):
            assert out["type"] == "object"
            assert not {"oneOf", "anyOf", "allOf"} & out.keys()
    assert schema == before


@pytest.mark.parametrize("value", [{"city": "Rome"}, {"city": "Rome", "n": 1}])
def test_what_fits_the_original_fits_the_compiled_schema(value: dict[str, Any]) -> None:
    schema = {"allOf": [PLAIN, {"properties": {"n": {"type": "integer"}}}]}
    jsonschema.validate(value, schema)
    for out in (for_anthropic(schema)[0], for_openai(schema)[0]):
        jsonschema.validate(value, out)
