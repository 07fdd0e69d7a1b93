"""What an answer means, independent of any protocol, and when two such meanings agree.

Owns the `Semantic` value, the list of losses that a translation may have (each with its reason), and
`compare`. It knows nothing about SDKs, sockets or the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from tests.support.shared import Protocol

CC: Final[Protocol] = "openai-chat"
RS: Final[Protocol] = "openai-responses"
AM: Final[Protocol] = "anthropic-messages"
GG: Final[Protocol] = "gemini"


@dataclass(frozen=True)
class ToolCall:
    """A call as the client sees it: `args` is the parsed value, or the text itself when it is no JSON."""

    name: str
    args: Any


@dataclass(frozen=True)
class Usage:
    """Tokens by bucket: `input` is the whole prompt, `output` includes `reasoning`; None = the SDK gave no
    figure.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True)
class ErrorSeen:
    """The error that the SDK raised or reported; `status` is None for one inside a stream."""

    message: str | None = None
    status: int | None = None
    type: str | None = None


@dataclass(frozen=True)
class Semantic:
    """What a client's SDK accumulated from one answer. `stop` is one of stop, tool_use, length,
    stop_sequence, content_filter, error or None.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    stop: str | None = None
    usage: Usage = field(default_factory=Usage)
    error: ErrorSeen | None = None
    choices: int = 1
    citations: int = 0
    media_out: int = 0
    server_tools: tuple[str, ...] = ()
    signed_thinking: int = 0

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Semantic:
        """Read the form of `semantics.jsonl`."""
        error = raw["error"]
        return cls(
            text=raw["text"],
            thinking=raw["thinking"],
            tool_calls=tuple(ToolCall(call["name"], call["args"]) for call in raw["tool_calls"]),
            refusal=raw["refusal"],
            stop=raw["stop"],
            usage=Usage(**raw["usage"]),
            error=None if error is None else ErrorSeen(**error),
            choices=raw["choices"],
            citations=raw["citations"],
            media_out=raw["media_out"],
            server_tools=tuple(raw["server_tools"]),
            signed_thinking=raw["signed_thinking"],
        )

    def to_json(self) -> dict[str, Any]:
        """Write the form of `semantics.jsonl`."""
        error = self.error
        return {
            "choices": self.choices,
            "citations": self.citations,
            "error": None if error is None else {f.name: getattr(error, f.name) for f in fields(error)},
            "media_out": self.media_out,
            "refusal": self.refusal,
            "server_tools": list(self.server_tools),
            "signed_thinking": self.signed_thinking,
            "stop": self.stop,
            "text": self.text,
            "thinking": self.thinking,
            "tool_calls": [{"args": call.args, "name": call.name} for call in self.tool_calls],
            "usage": {f.name: getattr(self.usage, f.name) for f in fields(self.usage)},
        }


# Comparing.


@dataclass(frozen=True)
class Difference:
    """One field in which the client's reading is not what it should be."""

    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected!r:.400}, got {self.got!r:.400}"


@dataclass(frozen=True)
class Pair:
    """What the source said, what the client of the target protocol read, and what is known about the
    exchange.
    """

    expected: Semantic
    got: Semantic
    source: Protocol
    target: Protocol
    kinds: frozenset[str] = frozenset()
    accepted: bool = True

    @property
    def crosses(self) -> bool:
        """Whether a translation took place at all."""
        return self.source != self.target

    @property
    def refused(self) -> bool:
        """Whether the model declined, in whatever form its protocol has for that."""
        return bool(self.expected.refusal) or self.expected.stop == "content_filter"


@dataclass(frozen=True)
class Loss:
    """A difference that a translation may have: `allows` decides for one pair, `section` is of
    translation.md.
    """

    name: str
    fields: tuple[str, ...]
    section: str
    reason: str
    allows: Callable[[Pair], bool]


def compare(
    expected: Semantic,
    got: Semantic,
    source: Protocol,
    target: Protocol,
    *,
    kinds: frozenset[str] | tuple[str, ...] = (),
    accepted: bool = True,
) -> list[Difference]:
    """What is wrong with `got`: every difference that no documented loss explains. `kinds` and `accepted` are
    the exchange's.
    """
    pair = _pair(expected, got, source, target, frozenset(kinds), accepted)
    return [difference for difference, loss in _explain(pair) if loss is None]


def losses_met(
    expected: Semantic,
    got: Semantic,
    source: Protocol,
    target: Protocol,
    *,
    kinds: frozenset[str] | tuple[str, ...] = (),
    accepted: bool = True,
) -> list[Loss]:
    """The documented losses that this pair needed, for a report."""
    pair = _pair(expected, got, source, target, frozenset(kinds), accepted)
    return [loss for _, loss in _explain(pair) if loss is not None]


def _pair(
    expected: Semantic,
    got: Semantic,
    source: Protocol,
    target: Protocol,
    kinds: frozenset[str],
    accepted: bool,
) -> Pair:
    # Within one protocol the bytes pass as they are, so that an unreadable answer stays unreadable.
    if source != target:
        expected = _readable(expected, kinds, accepted)
    return Pair(expected, got, source, target, kinds, accepted)


def _explain(pair: Pair) -> list[tuple[Difference, Loss | None]]:
    found = []
    for name, expected, got in _fields(pair):
        # Across protocols the same status or type may be the wrong one, so these two are judged even when
        # equal.
        if expected == got and not (pair.crosses and name in ("error.status", "error.type")):
            continue
        explanation = None
        if pair.crosses:
            explanation = next((loss for loss in LOSSES if name in loss.fields and loss.allows(pair)), None)
        found.append((Difference(name, expected, got), explanation))
    return found


def _fields(pair: Pair) -> list[tuple[str, Any, Any]]:
    expected, got = pair.expected, pair.got
    rows: list[tuple[str, Any, Any]] = []
    for name in ("text", "thinking", "tool_calls", "refusal", "stop", "choices", "citations", "media_out"):
        rows.append((name, getattr(expected, name), getattr(got, name)))
    rows.append(("server_tools", expected.server_tools, got.server_tools))
    rows.append(("signed_thinking", expected.signed_thinking, got.signed_thinking))
    for name in ("input", "output", "cache_read", "cache_write", "reasoning"):
        rows.append((f"usage.{name}", getattr(expected.usage, name), getattr(got.usage, name)))
    rows.append(("error", expected.error is not None, got.error is not None))
    if expected.error is not None and got.error is not None:
        rows.append(("error.status", expected.error.status, got.error.status))
        rows.append(("error.message", expected.error.message, got.error.message))
        rows.append(("error.type", expected.error.type, got.error.type))
    return rows


def _readable(expected: Semantic, kinds: frozenset[str], accepted: bool) -> Semantic:
    """What a sensible decoder makes of an answer that its own SDK rejects or reads as an open end."""
    if "truncated-stream" in kinds:
        return replace(expected, stop="error", error=ErrorSeen())
    if accepted:
        return expected
    # The calls themselves cannot be known from a failed reading; `LOSSES` only demand that there are some.
    stop = "tool_use" if "tool-call" in kinds else "content_filter"
    return replace(expected, stop=stop, error=None)


# The documented losses.


def _split_think(text: str) -> tuple[str, str]:
    """Thinking and text of a raw model that marks its thinking with tags; a missing opening tag counts as
    open.
    """
    before, opened, rest = text.partition("<think>")
    if not opened:
        before, rest = "", text
    inside, closed, after = rest.partition("</think>")
    return (inside.strip(), (before + after).strip()) if closed else ("", text)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _calls_agree(pair: Pair) -> bool:
    expected = [call for call in pair.expected.tool_calls if call.name]
    if not pair.accepted and "tool-call" in pair.kinds:
        return bool(pair.got.tool_calls) and all(
            call.name and isinstance(call.args, dict) for call in pair.got.tool_calls
        )
    if len(expected) != len(pair.got.tool_calls):
        return False
    return all(_call_agrees(one, other) for one, other in zip(expected, pair.got.tool_calls, strict=True))


def _call_agrees(expected: ToolCall, got: ToolCall) -> bool:
    if got.name != expected.name and not got.name.endswith("__" + expected.name):
        return False
    if got.args == expected.args:
        return True
    if isinstance(expected.args, str):
        # A custom tool's text, or arguments that are no JSON.
        return any(got.args == {name: expected.args} for name in ("input", "_raw"))
    return False


def _repaired(pair: Pair) -> bool:
    """Cut arguments made whole: allowed for targets that must carry an object."""
    wrong = [
        (one, other)
        for one, other in zip(pair.expected.tool_calls, pair.got.tool_calls, strict=False)
        if not _call_agrees(one, other)
    ]
    return (
        pair.target in (AM, GG)
        and len(pair.expected.tool_calls) == len(pair.got.tool_calls)
        and all(
            one.name == other.name and isinstance(one.args, str) and isinstance(other.args, dict)
            for one, other in wrong
        )
    )


def _stop_as_called(pair: Pair) -> bool:
    calls = [call for call in pair.expected.tool_calls if call.name]
    return bool(calls) and pair.expected.stop in ("stop", None) and pair.got.stop == "tool_use"


def _same_or_zero(name: str) -> Callable[[Pair], bool]:
    def allows(pair: Pair) -> bool:
        expected, got = getattr(pair.expected.usage, name), getattr(pair.got.usage, name)
        return (expected or 0) == (got or 0)

    return allows


# Statuses by what the upstream said; the rows of section 8.
_STATUSES: Final[Mapping[int, Mapping[Protocol, frozenset[int]]]] = {
    400: {p: frozenset({400}) for p in (CC, RS, AM, GG)},
    401: {p: frozenset({500, 502}) for p in (CC, RS, AM, GG)},
    402: {
        CC: frozenset({402, 429}),
        RS: frozenset({402, 429}),
        AM: frozenset({402}),
        GG: frozenset({403, 429}),
    },
    403: {p: frozenset({403, 500, 502}) for p in (CC, RS, AM, GG)},
    404: {p: frozenset({404}) for p in (CC, RS, AM, GG)},
    413: {CC: frozenset({413}), RS: frozenset({413}), AM: frozenset({413}), GG: frozenset({400})},
    422: {p: frozenset({400, 422}) for p in (CC, RS, AM, GG)},
    429: {p: frozenset({429}) for p in (CC, RS, AM, GG)},
    500: {p: frozenset({500, 502}) for p in (CC, RS, AM, GG)},
    502: {p: frozenset({500, 502}) for p in (CC, RS, AM, GG)},
    503: {CC: frozenset({503}), RS: frozenset({503}), AM: frozenset({529}), GG: frozenset({503})},
    504: {p: frozenset({504}) for p in (CC, RS, AM, GG)},
    529: {CC: frozenset({503}), RS: frozenset({503}), AM: frozenset({529}), GG: frozenset({503})},
}

# The error type that goes with a status, where the protocol fixes one.
_TYPES: Final[Mapping[Protocol, Mapping[int, frozenset[str]]]] = {
    AM: {
        400: frozenset({"invalid_request_error"}),
        401: frozenset({"authentication_error"}),
        402: frozenset({"billing_error"}),
        403: frozenset({"permission_error"}),
        404: frozenset({"not_found_error"}),
        413: frozenset({"request_too_large"}),
        422: frozenset({"invalid_request_error"}),
        429: frozenset({"rate_limit_error"}),
        500: frozenset({"api_error"}),
        502: frozenset({"api_error"}),
        503: frozenset({"overloaded_error", "api_error"}),
        504: frozenset({"timeout_error"}),
        529: frozenset({"overloaded_error"}),
    },
    GG: {
        400: frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"}),
        401: frozenset({"UNAUTHENTICATED"}),
        403: frozenset({"PERMISSION_DENIED"}),
        404: frozenset({"NOT_FOUND"}),
        422: frozenset({"INVALID_ARGUMENT"}),
        429: frozenset({"RESOURCE_EXHAUSTED"}),
        500: frozenset({"INTERNAL"}),
        502: frozenset({"INTERNAL", "UNAVAILABLE"}),
        503: frozenset({"UNAVAILABLE"}),
        504: frozenset({"DEADLINE_EXCEEDED"}),
    },
}


def _status_fits(pair: Pair) -> bool:
    expected, got = pair.expected.error, pair.got.error
    if expected is None or got is None:
        return False
    if expected.status is None:
        # An error of a running stream, met before anything was sent, may still become a status.
        return got.status is None or got.status >= 400
    if got.status is None:
        return False
    if expected.status == 400 and "API key" in (expected.message or "") and got.status in (500, 502):
        return True  # Gemini says 400 for a bad key
    return got.status in _STATUSES.get(expected.status, {}).get(pair.target, frozenset({500, 502}))


def _message_kept(pair: Pair) -> bool:
    expected, got = pair.expected.error, pair.got.error
    if expected is None or got is None:
        return False
    if not got.message:
        return False
    own_words = not expected.message or expected.message.startswith("Error code: ")
    about_keys = expected.status in (401, 403) or "API key" in (expected.message or "")
    return own_words or about_keys or (expected.message or "") in got.message


def _type_fits(pair: Pair) -> bool:
    got = pair.got.error
    if got is None:
        return False
    if pair.target in (CC, RS):
        return bool(got.type)
    if got.status is None:
        allowed = frozenset[str]().union(*_TYPES[pair.target].values())
        return got.type in allowed
    return got.type in _TYPES[pair.target].get(got.status, frozenset())


def _refusal_text(pair: Pair) -> bool:
    expected, got = pair.expected, pair.got
    if not pair.refused:
        return False
    if pair.target in (AM, GG):
        return not got.refusal and got.text == expected.text + expected.refusal
    if expected.refusal:
        return False
    # The refusing protocol has no refusal field: the words may stand as text or as the refusal.
    return got.text == expected.text or (not got.text and got.refusal == expected.text)


def _usage_partial(pair: Pair) -> bool:
    return pair.expected.error is not None or not pair.accepted


def _usage_beside(pair: Pair) -> bool:
    """xAI's figures: reasoning outside the completion tokens."""
    usage, got = pair.expected.usage, pair.got.usage
    return pair.source in (CC, RS) and usage.output is not None and got.output == usage.output + (usage.reasoning or 0)


LOSSES: Final[tuple[Loss, ...]] = (
    Loss(
        "stop-sequence-unnamed",
        ("stop",),
        "5 Stop reasons",
        "only Messages tells a matched stop sequence from an end",
        lambda p: p.expected.stop == "stop_sequence" and p.got.stop == "stop" and p.target != AM,
    ),
    Loss(
        "pause-as-stop",
        ("stop",),
        "5 Stop reasons",
        "only Messages can pause a server tool loop",
        lambda p: p.expected.stop == "pause" and p.got.stop == "stop" and p.target != AM,
    ),
    Loss(
        "called-means-tool-use",
        ("stop",),
        "5 Stop reasons",
        "tool use is decided by a call having been seen, not by the reason",
        _stop_as_called,
    ),
    Loss(
        "missing-stop",
        ("stop",),
        "5 Stop reasons",
        "a stream that ended in order without a reason has ended",
        lambda p: p.expected.stop is None and p.got.stop == "stop",
    ),
    Loss(
        "refusal-stop",
        ("stop",),
        "5 Stop reasons",
        "a refusal in words ends with the target's stop for refusals",
        lambda p: bool(p.expected.refusal) and p.expected.stop == "stop" and p.got.stop == "content_filter",
    ),
    Loss(
        "refusal-as-text",
        ("text", "refusal"),
        "5 Stop reasons",
        "Messages and Gemini have no refusal field, Chat and Responses have",
        _refusal_text,
    ),
    Loss(
        "think-tags",
        ("text", "thinking"),
        "5 Reasoning text",
        "thinking marked by tags inside the text is split off",
        lambda p: (
            "</think>" in p.expected.text
            and _split_think(p.expected.text) == (p.got.thinking.strip(), p.got.text.strip())
        ),
    ),
    Loss(
        "thinking-of-details",
        ("thinking",),
        "5 Reasoning text",
        "reasoning_details and dialect fields, which the Chat SDK shows as extras",
        lambda p: p.source == CC and not p.expected.thinking and bool(p.got.thinking),
    ),
    Loss(
        "thinking-paragraphs",
        ("thinking",),
        "5 Reasoning text",
        "summary parts are separate paragraphs, joined with white space",
        lambda p: p.source == RS and _squeezed(p.expected.thinking) == _squeezed(p.got.thinking),
    ),
    Loss(
        "audio-transcript",
        ("text",),
        "3 Feature matrix",
        "a target without audio out gives the transcript as text",
        lambda p: p.expected.media_out > 0 and not p.expected.text,
    ),
    Loss(
        "custom-tool-or-broken-arguments",
        ("tool_calls",),
        "4 Custom tools, 5 Arguments",
        "text input becomes {input}, text that is no JSON becomes {_raw}, a call without a name is none",
        _calls_agree,
    ),
    Loss(
        "repaired-arguments",
        ("tool_calls",),
        "5 Arguments",
        "cut arguments are repaired where an object must be sent",
        _repaired,
    ),
    Loss(
        "one-choice",
        ("choices",),
        "3 Feature matrix",
        "Responses and Messages answer with one choice; a blocked prompt counts as one",
        lambda p: p.got.choices == 1 and (p.target in (RS, AM) or p.expected.choices == 0),
    ),
    Loss(
        "blocked-has-none",
        ("choices",),
        "5 Stop reasons",
        "a blocked Gemini prompt has no candidate",
        lambda p: p.target == GG and p.got.choices == 0 and p.refused,
    ),
    Loss(
        "citations-grain",
        ("citations",),
        "5 Citations",
        "the protocols cite by part, by offset and by chunk",
        lambda p: p.expected.citations > 0,
    ),
    Loss(
        "media-out",
        ("media_out",),
        "3 Feature matrix",
        "media in answers has no place in most targets",
        lambda p: p.got.media_out < p.expected.media_out,
    ),
    Loss(
        "server-tools",
        ("server_tools",),
        "3 Feature matrix",
        "server tool calls are bound to the provider that ran them",
        lambda p: bool(p.expected.server_tools),
    ),
    Loss(
        "seals-are-enveloped",
        ("signed_thinking",),
        "6 Sealed values",
        "sealed values travel in the target's own places, which are counted differently",
        lambda p: True,
    ),
    Loss(
        "usage-unknown",
        ("usage.input", "usage.output", "usage.cache_read", "usage.cache_write", "usage.reasoning"),
        "5 Usage",
        "figures that the source's SDK does not see may be read from dialect fields or estimated",
        lambda p: p.expected.usage == Usage() or _usage_partial(p),
    ),
    Loss(
        "no-cache-write-bucket",
        ("usage.cache_write",),
        "5 Usage",
        "Gemini has no bucket for cache writes",
        lambda p: p.target == GG and p.got.usage.cache_write is None,
    ),
    Loss(
        "zero-is-absent",
        ("usage.cache_read",),
        "5 Usage",
        "an absent bucket is zero",
        _same_or_zero("cache_read"),
    ),
    Loss(
        "zero-is-absent",
        ("usage.cache_write",),
        "5 Usage",
        "an absent bucket is zero",
        _same_or_zero("cache_write"),
    ),
    Loss(
        "zero-is-absent",
        ("usage.reasoning",),
        "5 Usage",
        "an absent bucket is zero",
        _same_or_zero("reasoning"),
    ),
    Loss("zero-is-absent", ("usage.output",), "5 Usage", "an absent bucket is zero", _same_or_zero("output")),
    Loss(
        "dialect-cache-fields",
        ("usage.cache_read",),
        "5 Usage",
        "cache hits in a dialect's own field, unseen by the Chat SDK",
        lambda p: p.source == CC and p.expected.usage.cache_read is None,
    ),
    Loss(
        "dialect-reasoning-fields",
        ("usage.reasoning",),
        "5 Usage",
        "reasoning tokens in a dialect's own field, unseen by the Chat SDK",
        lambda p: p.source == CC and p.expected.usage.reasoning is None,
    ),
    Loss(
        "reasoning-beside-output",
        ("usage.output",),
        "5 Usage",
        "output_total includes reasoning; one provider reports it beside",
        _usage_beside,
    ),
    Loss(
        "error-status",
        ("error.status",),
        "8 Error mapping",
        "each protocol has its own status for a meaning",
        _status_fits,
    ),
    Loss(
        "error-message",
        ("error.message",),
        "8 Error mapping",
        "the upstream's words are kept inside; about the gateway's key it speaks itself",
        _message_kept,
    ),
    Loss(
        "error-type",
        ("error.type",),
        "8 Error mapping",
        "each protocol has its own names of errors",
        _type_fits,
    ),
    Loss(
        "partial-text",
        ("text", "thinking"),
        "7 rule 2",
        "what came before a cut may have been shown already",
        lambda p: "truncated-stream" in p.kinds and p.got.text.startswith(p.expected.text),
    ),
    Loss(
        "unreadable-source",
        ("text", "thinking", "choices"),
        "1 rule 5",
        "its own SDK cannot read the answer, so its text is not known",
        lambda p: not p.accepted,
    ),
)
