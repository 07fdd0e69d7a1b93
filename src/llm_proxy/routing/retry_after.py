"""How long a provider asks to be left alone, read from every form in which providers say it (RT-10, U-17).

Sources in this order: `retry-after-ms`, `Retry-After` (seconds or date), reset headers of the exhausted kind,
the body. A stated time is kept between 0.1 s and 24 h. Pure: the wall clock comes in; a `Date` header of the
same answer replaces it as the reference for absolute times, so that a clock that is wrong here or there does
no harm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from llm_proxy.conversation.fault import Fault

SHORTEST = 0.1
LONGEST = 24 * 3600.0

_NUMBER = re.compile(r"[0-9]{1,400}(?:\.[0-9]{1,400})?")
_SPAN = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,12})?(?:ms|us|µs|ns|[dhms]))+")
_SPAN_PIECE = re.compile(r"([0-9.]+)(ms|us|µs|ns|[dhms])")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_RETRY_DELAY = re.compile(r'retry_?delay\\*"?\s*[:=]\s*\\*"?([0-9.]+)\s*s', re.IGNORECASE)
_IN_WORDS = re.compile(
    r"(?:try again|retry|reset|available|wait)[a-z ]{0,24}?\s(?:in|after|for)?\s*"
    r"(?:((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|[dhms]))+)(?![a-z0-9])"
    r"|([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|milliseconds?|secs?|seconds?|mins?|minutes?|hours?|days?|[smhd])?\b)",
    re.IGNORECASE,
)

# Below, a number in a reset header is a duration; from here on it is an epoch time, in ms when it is larger
# still.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11

_OPENAI_KINDS = ("requests", "tokens", "")
_ANTHROPIC = re.compile(r"anthropic-ratelimit-(.+)-reset")


def stated_wait(fault: Fault, headers: Sequence[tuple[str, str]], now: float) -> float | None:
    """Seconds that the provider asked for, or None if it named no time.

    `now` is epoch seconds. `fault.retry_after` is what the dialect found in the body; its message is searched
    last.
    """
    fields = {name.lower(): value.strip() for name, value in reversed(headers)}
    reference = _date(fields.get("date", ""))
    if reference is None:
        reference = now
    for wait in (
        _milliseconds(fields.get("retry-after-ms", "")),
        _retry_after(fields.get("retry-after", ""), reference),
        _exhausted_reset(fields, reference),
        fault.retry_after,
        wait_in_text(fault.message),
    ):
        if wait is not None and not math.isnan(wait):
            return min(max(wait, SHORTEST), LONGEST)
    return None


def read_reset(value: str, now: float) -> float | None:
    """Seconds until the time that a reset header names: a span, a number, an epoch in s or ms, or an ISO
    time.
    """
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number >= _EPOCH_MILLISECONDS:
            return max(0.0, number / 1000 - now)
        return max(0.0, number - now) if number >= _EPOCH_SECONDS else number
    span = read_span(value)
    if span is not None:
        return span
    moment = _iso(value)
    return None if moment is None else max(0.0, moment - now)


def read_span(value: str) -> float | None:
    """Seconds of a span such as `6m0s`, `1h2m3.5s` or `20ms`; None if it is none."""
    if not _SPAN.fullmatch(value):
        return None
    total = 0.0
    for number, unit in _SPAN_PIECE.findall(value):
        try:
            total += float(number) * _UNITS[unit]
        except ValueError:
            return None
    return total


def wait_in_text(text: str) -> float | None:
    """Seconds named in words, as in `Please try again in 1m30s.`, or by RetryInfo JSON inside a text."""
    text = text[:4000]
    if found := _RETRY_DELAY.search(text):
        return _number(found[1])
    if found := _IN_WORDS.search(text):
        if found[1]:
            return read_span(found[1].lower())
        unit = (found[3] or "s").lower()
        return float(found[2]) * (_UNITS["ms"] if unit.startswith(("ms", "mil")) else _UNITS[unit[0]])
    return None


def _number(value: str) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _milliseconds(value: str) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000


def _retry_after(value: str, now: float) -> float | None:
    if _NUMBER.fullmatch(value):
        return float(value)
    span = read_span(value)
    if span is not None:
        return span
    moment = _date(value)
    if moment is None:
        moment = _iso(value)
    return None if moment is None else max(0.0, moment - now)


def _date(value: str) -> float | None:
    """Epoch seconds of an HTTP date."""
    if not value or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError):
        return None


def _iso(value: str) -> float | None:
    if len(value) > 64 or not value[:4].isdigit():
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _exhausted_reset(fields: dict[str, str], now: float) -> float | None:
    """The reset of the kind that has nothing left; of several the longest. If none says so, the first reset
    found.
    """
    found: list[float] = []
    exhausted: list[float] = []

    def look(reset: str, remaining: str, status: str = "") -> None:
        wait = read_reset(fields.get(reset, ""), now)
        if wait is None:
            return
        found.append(wait)
        if fields.get(remaining, "").strip() in ("0", "0.0") or fields.get(status, "") == "rejected":
            exhausted.append(wait)

    for kind in _OPENAI_KINDS:
        tail = f"-{kind}" if kind else ""
        look(f"x-ratelimit-reset{tail}", f"x-ratelimit-remaining{tail}")
    for name in fields:
        if match := _ANTHROPIC.fullmatch(name):
            stem = f"anthropic-ratelimit-{match[1]}"
            look(name, f"{stem}-remaining", f"{stem}-status")
    return max(exhausted) if exhausted else found[0] if found else None
