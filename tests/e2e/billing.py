"""A provider that reports exact random figures in each protocol and keeps the books: the truth that usage rows are held against.

Owns the figures, the bytes that tell them, and the sums. Knows nothing of the proxy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.faults.stage import deltas, ending, whole
from tests.support.shared import Protocol
from tests.support.upstream import Hang, Reply

BUCKETS: Final = ("input", "cache_read", "cache_write", "output", "reasoning")
FIRST_OUTPUT: Final = 1
"""Tokens of output that Anthropic's `message_start` reports."""


@dataclass(frozen=True)
class Figures:
    """Disjoint buckets of tokens."""

    input: int
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @classmethod
    def random(cls, random: Random, protocol: Protocol) -> Figures:
        read = random.choice((0, 0, random.randrange(100_000)))
        write = random.choice((0, random.randrange(5000))) if protocol != "gemini" else 0
        reasoning = random.choice((0, random.randrange(4000)))
        return cls(random.randrange(1, 20_000), read, write, random.randrange(1, 3000), reasoning)

    @property
    def counts(self) -> Counter[str]:
        return Counter({name: getattr(self, name) for name in BUCKETS})

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write

    @property
    def completion(self) -> int:
        return self.output + self.reasoning


def usage_in(protocol: Protocol, figures: Figures) -> dict[str, Any]:
    """The usage object of the protocol."""
    match protocol:
        case "openai-chat":
            return {
                "prompt_tokens": figures.prompt,
                "completion_tokens": figures.completion,
                "total_tokens": figures.prompt + figures.completion,
                "prompt_tokens_details": {
                    "cached_tokens": figures.cache_read,
                    "cache_write_tokens": figures.cache_write,
                },
                "completion_tokens_details": {"reasoning_tokens": figures.reasoning},
            }
        case "openai-responses":
            return {
                "input_tokens": figures.prompt,
                "output_tokens": figures.completion,
                "total_tokens": figures.prompt + figures.completion,
                "input_tokens_details": {
                    "cached_tokens": figures.cache_read,
                    "cache_write_tokens": figures.cache_write,
                },
                "output_tokens_details": {"reasoning_tokens": figures.reasoning},
            }
        case "anthropic-messages":
            return {
                "input_tokens": figures.input,
                "cache_read_input_tokens": figures.cache_read,
                "cache_creation_input_tokens": figures.cache_write,
                "output_tokens": figures.completion,
                "output_tokens_details": {"thinking_tokens": figures.reasoning},
            }
        case "gemini":
            return {
                "promptTokenCount": figures.prompt,
                "cachedContentTokenCount": figures.cache_read,
                "candidatesTokenCount": figures.output,
                "thoughtsTokenCount": figures.reasoning,
                "totalTokenCount": figures.prompt + figures.completion,
            }


def whole_reply(protocol: Protocol, figures: Figures, text: str = "w0 w1 w2 ") -> Reply:
    member = "usageMetadata" if protocol == "gemini" else "usage"
    return Reply.json({**whole(protocol, text), member: usage_in(protocol, figures)})


def stream_reply(protocol: Protocol, figures: Figures, *, cut: bool = False) -> tuple[Reply, Counter[str]]:
    """A stream, and what it reports: all, or with `cut`, when it stops after its words, what was told until then."""
    told: list[Counter[str]] = [Counter()]
    frames = [_with(protocol, frame, figures, told) for frame in deltas(protocol)]
    if cut:
        return Reply.sse(*frames, Hang()), told[-1]
    frames += [_with(protocol, frame, figures, told) for frame in ending(protocol)]
    return Reply.sse(*frames), told[-1]


def _with(protocol: Protocol, frame: bytes, figures: Figures, told: list[Counter[str]]) -> bytes:
    """The frame with these figures where it has some."""
    lines = frame.decode().split("\n")
    for at, line in enumerate(lines):
        if line.startswith("data: {"):
            value = json.loads(line.removeprefix("data: "))
            if _patched(protocol, value, figures, told):
                lines[at] = "data: " + json.dumps(value)
    return "\n".join(lines).encode()


def _patched(protocol: Protocol, value: dict[str, Any], figures: Figures, told: list[Counter[str]]) -> bool:
    holder, member = value, "usageMetadata" if protocol == "gemini" else "usage"
    if protocol == "openai-responses":
        holder = value.get("response", {})
    usage = usage_in(protocol, figures)
    if value.get("type") == "message_start":
        holder, start = value["message"], Figures(figures.input, figures.cache_read, figures.cache_write, FIRST_OUTPUT)
        usage = usage_in(protocol, start)
        told.append(start.counts)
    elif member in holder:
        told.append(figures.counts)
        if value.get("type") == "message_delta":
            usage = {name: usage[name] for name in ("output_tokens", "output_tokens_details")}
    if member not in holder:
        return False
    holder[member] = usage
    return True


def counts_of(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """The sums of entries of the usage page, by bucket."""
    found: Counter[str] = Counter(dict.fromkeys(BUCKETS, 0))
    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    for row in rows:
        found.update({bucket: row[name] for bucket, name in zip(BUCKETS, names, strict=True)})
    return found
