"""How the parts of one JSON Schema hang together: references, their merging, an object at the root.

A schema is walked by its keywords, so a property that is merely named like one is never touched. Work is
bounded: a reference is followed at most three times into itself, and all only within a budget of nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

Schema = dict[str, Any]

# A reference may be entered this often before its own end is reached; then it becomes an open object.
RECURSION = 3
# What inlining may produce. The largest tool schema seen in practice has about 2000 nodes.
MAX_NODES = 20_000
# Levels of subschemas, far above practice and well below the interpreter's stack.
MAX_DEPTH = 100

MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
SINGLES = frozenset(
    (
        "items",
        "additionalProperties",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "propertyNames",
        "additionalItems",
        "unevaluatedProperties",
        "unevaluatedItems",
    )
)
SHAPE = frozenset(("type", "properties", "items", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "prefixItems"))


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class References:
    """The local references of one schema, what is being followed now, and what has been lost so far."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.losses: dict[str, None] = {}
        self.active: Counter[str] = Counter()
        self.budget = MAX_NODES
        self._sized = False

    def lose(self, loss: str) -> None:
        self.losses[loss] = None

    def find(self, reference: Any) -> Schema | None:
        """The subschema at a local JSON pointer, None when it is not here."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        place: Any = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict) and step in place:
                place = place[step]
            elif isinstance(place, list) and step.isdecimal() and len(step) < 6 and int(step) < len(place):
                place = place[int(step)]
            else:
                return None
        return place if isinstance(place, dict) else None

    def spend(self, nodes: int, depth: int) -> bool:
        """Is there room for `nodes` more?"""
        self.budget -= nodes
        if self.budget < 0 and not self._sized:
            self._sized = True
            self.budget += 4 * _size(self.root)
        if self.budget >= 0 and depth < MAX_DEPTH:
            return True
        self.lose("a part of the schema that is too large or too deep became an open object")
        return False

    def expand(self, node: Schema, entered: list[str], depth: int) -> Schema | None:
        """`node` with its `$ref` and `allOf` merged in; None where a recursion is cut.

        `entered` collects what `leave` must be given once the children are done.
        """
        while "$ref" in node:
            reference = node["$ref"]
            siblings = {key: value for key, value in node.items() if key != "$ref"}
            target = self.find(reference)
            if target is None:
                self.lose("$ref that is not in the schema became an open object")
                return siblings if SHAPE & siblings.keys() else None
            if self.active[reference] >= RECURSION:
                self.lose(f"recursion was cut at depth {RECURSION}")
                return None
            self.active[reference] += 1
            entered.append(reference)
            if not self.spend(len(target), depth):
                return None
            node = merged(siblings, target) if siblings else target
        branches = node.get("allOf")
        if not isinstance(branches, list):
            return node
        node = {key: value for key, value in node.items() if key != "allOf"}
        for branch in branches:
            if isinstance(branch, dict) and self.spend(1 + len(branch), depth):
                whole = self.expand(branch, entered, depth + 1)
                node = merged(node, whole) if whole is not None else node
        return self.expand(node, entered, depth + 1) if "allOf" in node or "$ref" in node else node

    def leave(self, entered: list[str]) -> None:
        for reference in entered:
            self.active[reference] -= 1


def _size(value: Any) -> int:
    count = 0
    waiting = [value]
    while waiting:
        node = waiting.pop()
        count += 1
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return count


def merged(first: Schema, second: Schema) -> Schema:
    """One schema that says what both say, on this level; where it cannot be said in one, `first` wins."""
    out = dict(first)
    for key, value in second.items():
        if key not in out:
            out[key] = value
            continue
        ours = out[key]
        if key == "properties" and isinstance(ours, dict) and isinstance(value, dict):
            both = dict(ours)
            for name, schema in value.items():
                both[name] = {"allOf": [both[name], schema]} if name in both and both[name] is not schema else schema
            out[key] = both
        elif key == "required" and isinstance(ours, list) and isinstance(value, list):
            out[key] = list(dict.fromkeys(name for name in [*ours, *value] if isinstance(name, str)))
        elif key == "type":
            out[key] = _narrower(ours, value)
        elif key == "enum" and isinstance(ours, list) and isinstance(value, list):
            allowed = {text_of([item]) for item in value}
            out[key] = [item for item in ours if text_of([item]) in allowed] or ours
        elif key in ("minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum") and numbers(ours, value):
            out[key] = max(ours, value)
        elif key in ("maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum") and numbers(ours, value):
            out[key] = min(ours, value)
        elif key == "items" and isinstance(ours, dict) and isinstance(value, dict) and ours is not value:
            out[key] = {"allOf": [ours, value]}
        elif key == "allOf" and isinstance(ours, list) and isinstance(value, list):
            out[key] = [*ours, *value]
    return out


def numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _narrower(first: Any, second: Any) -> Any:
    ours = first if isinstance(first, list) else [first]
    theirs = second if isinstance(second, list) else [second]
    both = [name for name in ours if name in theirs or (name == "integer" and "number" in theirs)]
    both += [name for name in theirs if name == "integer" and "number" in ours and name not in both]
    if not both:
        return first
    return both[0] if len(both) == 1 else both


def types_of(node: Schema) -> tuple[list[str], bool]:
    """(types in lower case without null, is null allowed) as `type` and `nullable` say."""
    said = node.get("type")
    names = [name.lower() for name in (said if isinstance(said, list) else [said]) if isinstance(name, str)]
    kinds = [name for name in dict.fromkeys(names) if name not in ("null", "type_unspecified")]
    return kinds, "null" in names or node.get("nullable") is True


def object_root(schema: Schema, references: References) -> Schema:
    """`schema` with an object as root and no oneOf, anyOf, allOf, not or enum there; itself if it is so."""
    troubles = ("$ref", "oneOf", "anyOf", "allOf", "not", "enum", "const", "if")
    if schema.get("type") == "object" and not any(key in schema for key in troubles):
        return schema
    if not schema:
        return {"type": "object", "properties": {}}
    entered: list[str] = []
    root = references.expand(schema, entered, 0)
    variants = root.get("anyOf") or root.get("oneOf") if root else None
    if root is not None and isinstance(variants, list):
        root = _one_object(root, variants, references, entered)
    references.leave(entered)
    kinds = types_of(root)[0] if root is not None else []
    if (
        root is None
        or (kinds and "object" not in kinds)
        or (not kinds and "properties" not in root and SHAPE & root.keys())
    ):
        references.lose("the schema's root is no object: it was wrapped into the property `value`")
        inner = {key: value for key, value in schema.items() if key not in ("$defs", "definitions", "$schema")}
        out: Schema = {"type": "object", "properties": {"value": inner}, "required": ["value"]}
    else:
        out = {key: value for key, value in root.items() if key not in troubles and key != "nullable"}
        for key in ("not", "enum", "const", "if"):
            if key in root:
                references.lose(f"{key} at the schema's root left out")
        out["type"] = "object"
        out.setdefault("properties", {})
    for key in ("$defs", "definitions"):
        if key in schema:
            out[key] = schema[key]
    return out


def _one_object(root: Schema, variants: list[Any], references: References, entered: list[str]) -> Schema:
    """The alternatives of a root as one object: all their properties, required what every one requires."""
    objects: list[Schema] = []
    for variant in variants:
        whole = references.expand(variant, entered, 1) if isinstance(variant, dict) else None
        if whole is None or types_of(whole)[0] not in ([], ["object"]):
            continue
        nested = whole.get("anyOf") or whole.get("oneOf")
        objects.append(_one_object(whole, nested, references, entered) if isinstance(nested, list) else whole)
    out = {key: value for key, value in root.items() if key not in ("anyOf", "oneOf")}
    if not objects:
        return {**out, "anyOf": variants} if "properties" not in out and out.get("type") != "object" else out
    references.lose("the alternatives at the schema's root became one object")
    given = out.get("properties")
    properties: Schema = dict(given) if isinstance(given, dict) else {}
    for whole in objects:
        found = whole.get("properties")
        for name, schema in found.items() if isinstance(found, dict) else ():
            known = properties.get(name)
            if known is None or known == schema:
                properties[name] = schema
            elif isinstance(known, dict) and known.keys() == {"anyOf"}:
                properties[name] = {"anyOf": [*known["anyOf"], schema]}
            else:
                properties[name] = {"anyOf": [known, schema]}
    common = [set(names_in(whole.get("required"))) for whole in objects]
    required = dict.fromkeys(names_in(out.get("required")))
    required.update(
        (name, None) for name in names_in(objects[0].get("required")) if all(name in names for names in common)
    )
    return {
        **out,
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


def names_in(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _subschemas(node: Schema) -> Iterator[Schema]:
    for key, value in node.items():
        if key in MAPS and isinstance(value, dict):
            yield from (schema for schema in value.values() if isinstance(schema, dict))
        elif key in SINGLES and isinstance(value, dict):
            yield value
        elif (key in LISTS or key == "items") and isinstance(value, list):
            yield from (schema for schema in value if isinstance(schema, dict))


def _references_in(schema: Schema) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        waiting.extend(_subschemas(node))


def needs_inlining(root: Schema) -> bool:
    """Is there a recursion, or a reference to anything but a definition?"""
    edges: dict[str, set[str]] = {}
    for holder in ("$defs", "definitions"):
        definitions = root.get(holder)
        for name, schema in definitions.items() if isinstance(definitions, dict) else ():
            if isinstance(schema, dict):
                pointer = f"#/{holder}/" + name.replace("~", "~0").replace("/", "~1")
                edges[pointer] = set(_references_in(schema))
    if any(reference not in edges for reference in _references_in(root)):
        return True
    done: set[str] = set()
    for start in edges:
        path: list[tuple[str, Iterator[str]]] = [(start, iter(edges[start]))] if start not in done else []
        on_path = {start} if path else set()
        while path:
            name, following = path[-1]
            step = next(following, None)
            if step is None:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif step in on_path:
                return True
            elif step not in done:
                on_path.add(step)
                path.append((step, iter(edges[step])))
    return False


def inlined(schema: Schema, references: References | None = None) -> Schema:
    """`schema` with every local reference replaced by what it names; recursion ends in an open object."""
    known = references or References(schema)

    def convert(node: Any, depth: int) -> Any:
        if not isinstance(node, dict):
            return node
        if not known.spend(1, depth):
            return {"type": "object"}
        entered: list[str] = []
        whole = known.expand(node, entered, depth) if "$ref" in node else node
        out: Schema = {}
        for key, value in whole.items() if whole is not None else (("type", "object"),):
            if key in ("$defs", "definitions"):
                continue
            if key in MAPS and isinstance(value, dict):
                out[key] = {name: convert(schema, depth + 1) for name, schema in value.items()}
            elif (key in LISTS or key == "items") and isinstance(value, list):
                out[key] = [convert(schema, depth + 1) for schema in value]
            elif key in SINGLES:
                out[key] = convert(value, depth + 1)
            else:
                out[key] = value
        known.leave(entered)
        return out

    result: Schema = convert(schema, 0)
    return result
