"""One JSON Schema in, each vendor's accepted subset out, with a list of what was lost.

Pure functions on decoded JSON. Property names that equal keywords (`$id`, `format`, `default`) survive. Input
values are never changed in place; a schema that is already fine comes back as the same object where the
vendor takes JSON Schema itself. Work and output grow linearly with the input.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_proxy.dialects.schema_references import (
    LISTS,
    MAPS,
    MAX_DEPTH,
    SHAPE,
    SINGLES,
    References,
    Schema,
    inlined,
    names_in,
    needs_inlining,
    numbers,
    object_root,
    text_of,
    types_of,
)

_SILENT = frozenset(
    (
        "$schema",
        "$id",
        "id",
        "$comment",
        "$anchor",
        "$vocabulary",
        "$defs",
        "definitions",
        "readOnly",
        "writeOnly",
        "deprecated",
        "examples",
        "title",
        "description",
        "default",
        "$ref",
        "allOf",
    )
)
_OF_TYPE: dict[str, frozenset[str]] = {
    "object": frozenset(
        (
            "properties",
            "required",
            "minProperties",
            "maxProperties",
            "propertyOrdering",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
        )
    ),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "additionalItems")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
}
_OF_TYPE["integer"] = _OF_TYPE["number"]


def _noted(node: Schema, notes: list[str]) -> None:
    """Adds `notes` to the description of `node`."""
    if notes:
        said = node.get("description")
        node["description"] = (f"{said} " if isinstance(said, str) and said else "") + f"({'; '.join(notes)})"


_GEMINI_FORMATS = {
    "string": ("date-time", "enum"),
    "number": ("float", "double"),
    "integer": ("int32", "int64"),
}
_GEMINI_KEPT = {
    "object": ("minProperties", "maxProperties", "propertyOrdering"),
    "array": ("minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
}
_GEMINI_KNOWN = _SILENT | {
    "type",
    "nullable",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "items",
    "prefixItems",
    "properties",
    "required",
    "format",
    "example",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minProperties",
    "maxProperties",
    "propertyOrdering",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
}


def for_gemini_parameters(schema: Schema) -> tuple[Schema | None, list[str]]:
    """The OpenAPI subset of Gemini's `parameters`, and what was lost; None when there is nothing to send.

    Only for servers without `parametersJsonSchema`, which takes any schema unchanged.
    """
    references = References(schema)
    root = object_root(schema, references)
    references.root = {**schema, **root}
    out = _Gemini(references).convert(root, 0)
    losses = list(references.losses)
    return (out if out.get("properties") else None), losses


def for_gemini_response(schema: Schema) -> tuple[Schema, list[str]]:
    """The same subset for `responseSchema`, whose root may be anything."""
    references = References(schema)
    return _Gemini(references).convert(schema, 0), list(references.losses)


class _Gemini:
    def __init__(self, references: References) -> None:
        self._references = references

    def convert(self, node: Any, depth: int) -> Schema:
        references = self._references
        if not isinstance(node, dict):
            node = {}
        if not references.spend(1 + len(node), depth):
            return {"type": "OBJECT"}
        entered: list[str] = []
        whole = references.expand(node, entered, depth)
        out = {"type": "OBJECT"} if whole is None else self._one(whole, depth)
        references.leave(entered)
        return out

    def _one(self, node: Schema, depth: int) -> Schema:
        for key in node.keys() - _GEMINI_KNOWN:
            self._references.lose(f"{key} left out")
        kinds, nullable = types_of(node)
        variants = node.get("anyOf") or node.get("oneOf")
        base = {key: value for key, value in node.items() if key not in ("anyOf", "oneOf", "nullable")}
        if isinstance(variants, list):
            branches = [branch for branch in variants if isinstance(branch, dict)]
            if (SHAPE & base.keys()) and not any(SHAPE & branch.keys() for branch in branches):
                self._references.lose("anyOf of conditions left out")
            elif branches:
                return self._alternatives(base, branches, nullable, depth)
        if len(kinds) > 1:
            shared = frozenset().union(*_OF_TYPE.values()) | {"type"}
            rest = {key: value for key, value in base.items() if key not in shared}
            branches = [
                {"type": kind, **{key: base[key] for key in _OF_TYPE.get(kind, ()) if key in base}} for kind in kinds
            ]
            return self._alternatives(rest, branches, nullable, depth)
        return self._plain(base, kinds[0] if kinds else "", nullable, depth)

    def _alternatives(self, base: Schema, branches: list[Schema], nullable: bool, depth: int) -> Schema:
        """`anyOf` stands alone: some servers refuse any field beside it, so that goes into the branches."""
        real = [branch for branch in branches if branch.get("type") != "null" and not _is_null(branch)]
        nullable = nullable or len(real) < len(branches)
        outer: Schema = {key: base[key] for key in ("title", "description", "default") if key in base}
        inner = {key: value for key, value in base.items() if key not in outer}
        if not real:
            return self._plain(outer, "", True, depth)
        if len(real) == 1:
            merger = {"allOf": [real[0]], **base}
            return self.convert({**merger, "nullable": True} if nullable else merger, depth + 1)
        out = [self.convert({"allOf": [branch, inner]} if inner else branch, depth + 1) for branch in real]
        for branch in out:
            if nullable:
                branch["nullable"] = True
        if "description" in outer and "description" not in out[0]:
            out[0]["description"] = outer["description"]
        return {"anyOf": out}

    def _plain(self, node: Schema, kind: str, nullable: bool, depth: int) -> Schema:
        notes: list[str] = []
        out: Schema = {}
        values = (
            node.get("enum") if isinstance(node.get("enum"), list) else [node["const"]] if "const" in node else None
        )
        if values is not None:
            nullable = nullable or any(value is None for value in values)
            kind = self._enum(out, [value for value in values if value is not None], kind, notes)
        if not kind:
            kind = next((name for name in ("object", "array", "string", "number") if _OF_TYPE[name] & node.keys()), "")
        if not kind or kind not in ("object", "array", "string", "number", "integer", "boolean"):
            kind = "object" if depth == 0 else "string"
            if depth:
                notes.append("any JSON value, as text")
                self._references.lose("a value without a type became text")
        out = {"type": kind.upper(), **out}
        for key in ("title", "description"):
            if isinstance(node.get(key), str):
                out[key] = node[key]
        for key in ("default", "example"):
            if key in node:
                out[key] = node[key]
        if nullable:
            out["nullable"] = True
        if "enum" not in out:
            for key in _GEMINI_KEPT.get(kind, ()):
                if key in node:
                    out[key] = node[key]
            self._constraints(node, kind, out, notes)
        if kind == "object":
            self._object(node, out, depth)
        elif kind == "array":
            out["items"] = self._items(node, depth)
        _noted(out, notes)
        return out

    def _enum(self, out: Schema, values: list[Any], kind: str, notes: list[str]) -> str:
        """Writes the enumeration, whose values are always texts; gives the type that goes with it."""
        self._references.spend(len(values), 0)
        if values and all(isinstance(value, bool) for value in values):
            if len(values) == 1:
                notes.append(f"always {text_of(values[0])}")
                self._references.lose("enum of booleans left out")
            return "boolean"
        texts = list(dict.fromkeys(text_of(value) for value in values if value != ""))
        if len(texts) < len(values):
            self._references.lose("empty or repeated enum values left out")
        if not texts:
            return kind or "string"
        if not all(isinstance(value, str) for value in values):
            notes.append("JSON values written as text")
            self._references.lose("enum values that are no texts became texts")
        out["enum"] = texts
        return "string"

    def _constraints(self, node: Schema, kind: str, out: Schema, notes: list[str]) -> None:
        form = node.get("format")
        if isinstance(form, str) and kind in _GEMINI_FORMATS:
            if form in _GEMINI_FORMATS[kind]:
                out["format"] = form
            else:
                notes.append(f"format: {form}")
                self._references.lose("format became a note in the description")
        if kind not in ("number", "integer"):
            return
        for key, bound, word in (
            ("exclusiveMinimum", "minimum", "greater"),
            ("exclusiveMaximum", "maximum", "less"),
        ):
            value = node.get(key)
            if numbers(value):
                out.setdefault(bound, value)
                notes.append(f"{word} than {text_of(value)}")
                self._references.lose(f"{key} became inclusive")
            elif value is True and bound in node:
                notes.append(f"{word} than {text_of(node[bound])}")
                self._references.lose(f"{key} became inclusive")
        if "multipleOf" in node:
            notes.append(f"multiple of {text_of(node['multipleOf'])}")
            self._references.lose("multipleOf became a note in the description")

    def _object(self, node: Schema, out: Schema, depth: int) -> None:
        found = node.get("properties")
        properties: Schema = {}
        for name, schema in found.items() if isinstance(found, dict) else ():
            if schema is not False:
                properties[name] = self.convert(schema, depth + 1)
        if not properties:
            return
        out["properties"] = properties
        required = [name for name in dict.fromkeys(names_in(node.get("required"))) if name in properties]
        if required:
            out["required"] = required

    def _items(self, node: Schema, depth: int) -> Schema:
        items = node.get("items")
        places = (
            node.get("prefixItems")
            if isinstance(node.get("prefixItems"), list)
            else items
            if isinstance(items, list)
            else None
        )
        if places:
            self._references.lose("the places of a tuple became alternatives")
            others = [items] if isinstance(items, dict) and items else []
            choices = list({text_of(choice): choice for choice in [*places, *others]}.values())
            return self.convert(choices[0] if len(choices) == 1 else {"anyOf": choices}, depth + 1)
        return self.convert(items, depth + 1)


def _is_null(branch: Schema) -> bool:
    return branch.get("enum") == [None] or ("const" in branch and branch["const"] is None)


class _Strictness(msgspec.Struct, frozen=True):
    """What one vendor's strict mode takes. `noted` keywords move into the description, `dropped` ones go."""

    noted: frozenset[str]
    dropped: frozenset[str]
    formats: frozenset[str]
    all_required: bool
    bare_ref: bool


_STRICT_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_STRICT_DROPPED = frozenset(
    (
        "$schema",
        "$id",
        "id",
        "$comment",
        "examples",
        "readOnly",
        "writeOnly",
        "deprecated",
        "patternProperties",
        "propertyNames",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "dependentSchemas",
        "dependentRequired",
        "dependencies",
        "unevaluatedProperties",
        "unevaluatedItems",
        "additionalItems",
        "nullable",
        "example",
        "propertyOrdering",
    )
)
_STRICT_NOTED = frozenset(
    (
        "minLength",
        "maxLength",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
        "contentEncoding",
        "contentMediaType",
    )
)
_ANTHROPIC = _Strictness(
    noted=_STRICT_NOTED | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxItems"},
    dropped=_STRICT_DROPPED,
    formats=_STRICT_FORMATS | {"uri"},
    all_required=False,
    bare_ref=False,
)
_OPENAI = _Strictness(
    noted=_STRICT_NOTED,
    dropped=_STRICT_DROPPED | {"default"},
    formats=_STRICT_FORMATS,
    all_required=True,
    bare_ref=True,
)


def for_anthropic(schema: Schema | None, strict: bool = False) -> tuple[Schema, list[str]]:
    """An `input_schema` or output format: an object at the root; closed and limited only when `strict`."""
    references = References(schema or {})
    root = object_root(schema or {}, references)
    if strict:
        references.root = {**(schema or {}), **root}
        if needs_inlining(root):
            root = inlined(root, references)
            losses = references.losses
            references = References(root)
            references.losses = losses
        root = _Strict(references, _ANTHROPIC).convert(root, 0)
    return root, list(references.losses)


def for_openai(schema: Schema | None, strict: bool | None = False) -> tuple[Schema, list[str]]:
    """`parameters` of an OpenAI function, or a response schema: object at the root, arrays with items.

    With `strict` the strict form: every property is required, and one that was optional may be null.
    `fits_openai_strict` tells if a schema has that form already.
    """
    references = References(schema or {})
    root = object_root(schema or {}, references)
    if strict:
        return _Strict(references, _OPENAI).convert(root, 0), list(references.losses)
    return _with_items(root, 0), list(references.losses)


def fits_openai_strict(schema: Schema) -> bool:
    """Is `schema` taken by OpenAI's strict mode as it stands?"""
    out, losses = for_openai(schema, True)
    return not losses and out == schema


_JSON_TYPES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array",
}  # fmt: skip


class _Strict:
    def __init__(self, references: References, rules: _Strictness) -> None:
        self._references = references
        self._rules = rules

    def convert(self, node: Any, depth: int) -> Schema:
        if not isinstance(node, dict):
            return {}
        if not self._references.spend(1, depth):
            return {"type": "object", "properties": {}, "additionalProperties": False}
        if "$ref" in node and self._rules.bare_ref and not {"properties", "$defs", "definitions"} & node.keys():
            return {"$ref": node["$ref"]}
        entered: list[str] = []
        if "allOf" in node:
            node = self._references.expand(node, entered, depth) or {"type": "object"}
        out: Schema = {}
        notes: list[str] = []
        for key, value in node.items():
            self._keyword(key, value, out, notes, depth)
        if node.get("nullable") is True:
            _allow_null(out)
        kinds, _ = types_of(node)
        if "object" in kinds or (not kinds and "properties" in node):
            self._close(node, out)
        if self._rules.all_required:
            self._typed(kinds, out)
        _noted(out, notes)
        self._references.leave(entered)
        return out

    def _typed(self, kinds: list[str], out: Schema) -> None:
        """OpenAI wants a type on every value and items on every array."""
        if "array" in kinds and "items" not in out:
            out["items"] = {"type": "string"}
            self._references.lose("items of an array without items became text")
        if "type" in out or {"anyOf", "$ref", "properties"} & out.keys():
            return
        values = out["enum"] if isinstance(out.get("enum"), list) else [out["const"]] if "const" in out else None
        if values:
            names = dict.fromkeys(_JSON_TYPES.get(type(value), "object") for value in values)
            out["type"] = next(iter(names)) if len(names) == 1 else list(names)
        else:
            out["type"] = ["string", "number", "boolean", "null"]
            self._references.lose("a value without a type became a text, a number, a boolean or null")

    def _keyword(self, key: str, value: Any, out: Schema, notes: list[str], depth: int) -> None:
        rules = self._rules
        if key in rules.dropped:
            if key not in _SILENT and key not in ("nullable", "example", "propertyOrdering"):
                self._references.lose(f"{key} left out")
        elif (
            key in rules.noted
            or (key == "format" and not (isinstance(value, str) and value in rules.formats))
            or (key == "minItems" and rules is _ANTHROPIC and value not in (0, 1))
            or (
                key == "pattern"
                and rules is _ANTHROPIC
                and isinstance(value, str)
                and re.search(r"\(\?<?[=!]|\\[1-9bB]", value)
            )
        ):
            notes.append(f"{key}: {text_of(value)}")
            self._references.lose(f"{key} became a note in the description")
        elif key in ("oneOf", "anyOf") and isinstance(value, list):
            out["anyOf"] = [*out.get("anyOf", ()), *(self.convert(branch, depth + 1) for branch in value)]
        elif key in MAPS:
            children = value.items() if isinstance(value, dict) else ()
            out[key] = {name: self.convert(schema, depth + 1) for name, schema in children}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = self.convert(value, depth + 1)
        elif key == "prefixItems" and isinstance(value, list):
            self._references.lose("the places of a tuple became alternatives")
            out["items"] = {"anyOf": [self.convert(place, depth + 1) for place in value]}
        elif not (key == "items" and "items" in out):
            out[key] = value

    def _close(self, node: Schema, out: Schema) -> None:
        if node.get("additionalProperties", True) is not False and (
            "additionalProperties" in node or not out.get("properties")
        ):
            self._references.lose("additionalProperties became false")
        out["additionalProperties"] = False
        properties = out.setdefault("properties", {})
        required = [name for name in dict.fromkeys(names_in(node.get("required"))) if name in properties]
        if self._rules.all_required:
            known = set(required)
            optional = [name for name in properties if name not in known]
            for name in optional:
                self._references.lose("optional properties became required and may be null")
                properties[name] = _nullable(properties[name])
            required = list(properties)
        if required or "required" in out or self._rules.all_required:
            out["required"] = required


def _nullable(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    out = dict(schema)
    _allow_null(out)
    return out


def _allow_null(node: Schema) -> None:
    """Lets the new dict `node` be null, too."""
    said = node.get("type")
    if isinstance(said, str) and said != "null":
        node["type"] = [said, "null"]
    elif isinstance(said, list) and "null" not in said:
        node["type"] = [*said, "null"]
    elif said is None and isinstance(node.get("anyOf"), list) and {"type": "null"} not in node["anyOf"]:
        node["anyOf"] = [*node["anyOf"], {"type": "null"}]
    if "const" in node and node["const"] is not None:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("enum"), list) and None not in node["enum"]:
        node["enum"] = [*node["enum"], None]


def _with_items(node: Any, depth: int) -> Any:
    """OpenAI refuses an array without items even outside strict mode; all else stays the same object."""
    if not isinstance(node, dict) or depth >= MAX_DEPTH:
        return node
    changes: Schema = {}
    for key, value in node.items():
        changed: Any = value
        if key in MAPS and isinstance(value, dict):
            new = {name: _with_items(schema, depth + 1) for name, schema in value.items()}
            changed = new if any(new[name] is not value[name] for name in new) else value
        elif key in LISTS and isinstance(value, list):
            members = [_with_items(schema, depth + 1) for schema in value]
            changed = members if any(a is not b for a, b in zip(members, value, strict=True)) else value
        elif key in SINGLES and isinstance(value, dict):
            changed = _with_items(value, depth + 1)
        if changed is not value:
            changes[key] = changed
    said = node.get("type")
    if (said == "array" or (isinstance(said, list) and "array" in said)) and not (
        {"items", "prefixItems"} & node.keys()
    ):
        changes["items"] = {}
    return {**node, **changes} if changes else node


_OPENAPI_SPELLING = {
    "any_of": "anyOf",
    "one_of": "oneOf",
    "all_of": "allOf",
    "min_items": "minItems",
    "max_items": "maxItems",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
    "additional_properties": "additionalProperties",
    "property_ordering": "propertyOrdering",
    "prefix_items": "prefixItems",
    "unique_items": "uniqueItems",
    "ref": "$ref",
    "defs": "$defs",
}
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def from_openapi(schema: Any, depth: int = 0) -> Schema:
    """A Gemini client's schema (upper-case types, `nullable`, counts as text) as plain JSON Schema."""
    if not isinstance(schema, dict) or depth >= MAX_DEPTH:
        return {}
    out: Schema = {}
    for written, value in schema.items():
        key = str(_OPENAPI_SPELLING.get(written, written))
        if value is None and key not in ("default", "const"):
            continue
        if key in ("nullable", "propertyOrdering") or (key == "format" and value == "enum"):
            continue
        if key == "type":
            kinds, null = types_of({"type": value})
            names = [*kinds, "null"] if null else kinds
            if names:
                out["type"] = names[0] if len(names) == 1 else names
        elif key == "example":
            out["examples"] = [value]
        elif key in _COUNTS and isinstance(value, str) and value.isdecimal() and len(value) < 20:
            out[key] = int(value)
        elif key in MAPS and isinstance(value, dict):
            out[key] = {name: from_openapi(child, depth + 1) for name, child in value.items()}
        elif (key in LISTS or key == "items") and isinstance(value, list):
            out[key] = [from_openapi(child, depth + 1) for child in value]
        elif key in SINGLES and isinstance(value, dict):
            out[key] = from_openapi(value, depth + 1)
        else:
            out[key] = value
    if schema.get("nullable") is True:
        _allow_null(out)
    return out
