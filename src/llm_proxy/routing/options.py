"""The choices of a session and of the operator: which back-end and model, which names stand for others, where OpenAI calls go.

Owns how rules for model names are read: one from a flag must be right, one of the file or of a variable is left out when it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from llm_proxy.config.document import Node, Problem
from llm_proxy.config.kinds import Mismatch, RouteSettings
from llm_proxy.config.options import ChatKey, OptionGroup, ReadInPart, Target, option
from llm_proxy.routing.aliases import Rule, complaint
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.urls import parse_origin


def check_origin(value: str) -> str | None:
    """What `allowed_redirect_origins` expects instead of `value`; None when it is an origin."""
    try:
        parse_origin(value)
    except UrlFault:
        return "an origin such as https://models.example or http://localhost:1234"
    return None


_FORM: Final = "PATTERN=REPLACEMENT"
_RULES: Final = "rules with `pattern` and `replacement`"


def split_rule(text: str) -> Rule | None:
    """The rule in `PATTERN=REPLACEMENT`, split at the first `=` without a backslash before it; None where there is none.

    `\\=` stands for `=`.
    """
    at = text.find("=")
    while at > 0 and text[at - 1] == "\\":
        at = text.find("=", at + 1)
    if at < 0:
        return None
    return Rule(text[:at].replace("\\=", "="), text[at + 1 :].replace("\\=", "="))


def read_rules(node: Node) -> tuple[Rule, ...]:
    """The rules of one source. Raises `Mismatch` for what is no list of rules, and `ReadInPart` where single ones cannot be used."""
    rules: list[Rule] = []
    wrong: list[Mismatch] = []
    skipped: list[Problem] = []
    for position, item in enumerate(_items(node), 1):
        # A mistake in a flag is seen by whoever starts the proxy; a rule among many in a file must not keep it from starting.
        strict = item.place.source.startswith("flag ")
        try:
            rule = _read_rule(item)
        except Mismatch as mismatch:
            if item.place.source.startswith("env "):
                skipped.append(Problem(item.place, f"rule {position} is left out: expected {mismatch.expected}"))
            else:
                wrong.append(mismatch)
            continue
        reason = complaint(rule)
        if not reason:
            rules.append(rule)
        elif strict:
            wrong.append(Mismatch(f"a rule that can be used ({reason})", item))
        else:
            skipped.append(Problem(item.place, f"rule {position} is left out: {reason}"))
    if wrong or skipped:
        raise ReadInPart(tuple(rules), wrong, skipped)
    return tuple(rules)


def _items(node: Node) -> list[Node]:
    match node.value:
        case None:
            return []
        case list() as items:
            return items
        case str() if node.text:
            return [node]
    raise Mismatch(f"a list of {_RULES}", node)


def _read_rule(item: Node) -> Rule:
    if isinstance(item.value, str) and not item.place.line:
        rule = split_rule(item.value)
        if rule is None:
            raise Mismatch(_FORM, item)
        return rule
    if not isinstance(item.value, dict):
        raise Mismatch("a rule with `pattern` and `replacement`", item)
    texts: dict[str, str] = {}
    for name, member in item.value.items():
        if name not in Rule.__struct_fields__:
            raise Mismatch("`pattern` and `replacement` only", Node(name, member.key_place or member.place))
        if not isinstance(member.value, str):
            raise Mismatch(f"text for `{name}`, in quotes", member)
        texts[name] = member.value
    for name in Rule.__struct_fields__:
        if name not in texts:
            raise Mismatch(f"a rule with `pattern` and `replacement`, `{name}` is missing", item)
    return Rule(**texts)


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
    static_route: str | None = option(
        None,
        aliases=("backends.static_route",),
        env="STATIC_ROUTE",
        flag="--static-route",
        value_name="BACKEND:MODEL",
        help="what every generating request goes to, ahead of all other choices: `backend:model`, a model, or a failover route",
    )
    force_model: str | None = option(
        None,
        env="FORCE_MODEL",
        flag="--force-model",
        value_name="MODEL",
        help="model of every generating request, whatever it asks for; with `backend:model` its back-end too",
    )
    model_aliases: tuple[Rule, ...] = option(
        (),
        env="MODEL_ALIASES",
        env_json=True,
        flag="--model-alias",
        value_name=_FORM,
        reader=read_rules,
        item=_RULES,
        help="rules for model names: a regular expression that is matched at the start of the name, and what stands for the match; "
        "the first that matches counts",
    )
    failover_routes: dict[str, RouteSettings] = option(
        {}, help="names that stand for an ordered list of back-ends and models"
    )

    def targets(self) -> Iterable[Target]:
        if self.static_route:
            route = self.static_route.startswith("route:") or self.static_route in self.failover_routes
            yield Target("static_route", self.static_route, known=not route)
        if self.force_model:
            yield Target("force_model", self.force_model, doubted=not self.force_model.startswith("route:"))
        yield from self._named_in_lists()

    def _named_in_lists(self) -> Iterator[Target]:
        for rule in self.model_aliases:
            yield Target("model_aliases", rule.replacement)
        for name, route in self.failover_routes.items():
            for element in route.elements:
                yield Target(f"failover_routes.{name}.elements", element)
