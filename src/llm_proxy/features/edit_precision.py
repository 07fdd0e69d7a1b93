"""After a failed edit of a file the next try is less random (REQ-04).

Owns the options, the file of patterns and the once-per-trigger rule: a failure in what came after the last assistant turn tunes that very
request (a retry of it is the same try), one in an answer tunes the session's next turn. Knows no protocol; what a target takes of the
tuned values is decided by the dialect that writes for it. How failures read is told in `edit_failures.py`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import msgspec
import re2  # type: ignore[import-untyped]  # it brings no stubs

from llm_proxy.config import Settings
from llm_proxy.config.document import Node
from llm_proxy.config.kinds import Mismatch
from llm_proxy.config.options import ChatKey, Content, OptionGroup, option
from llm_proxy.conversation.request import Request
from llm_proxy.features import Feature
from llm_proxy.features.edit_failures import REQUEST_PATTERNS, RESPONSE_PATTERNS, compiled, complaint, found_in
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.sessions.agents import GENERIC

_LOG = logging.getLogger(__name__)

_KEY: Final = "edit-precision"
_MARK: Final = "edit_precision"
"""In a session's marks: an answer told of a failed edit, and no turn has come since."""
_GEMINI: Final = {"temperature": "temperature", "topp": "top_p", "topk": "top_k"}


class Patterns(msgspec.Struct, frozen=True):
    """Regular expressions (RE2, without case, dot matches line breaks) for what clients send and for what models answer."""

    request: tuple[str, ...] = REQUEST_PATTERNS
    response: tuple[str, ...] = RESPONSE_PATTERNS


def read_patterns(node: Node) -> Patterns:
    """The patterns of a file; a list that is missing is the built-in one. Raises `Mismatch`."""
    lists = {"request_patterns": REQUEST_PATTERNS, "response_patterns": RESPONSE_PATTERNS}
    if not isinstance(node.value, dict):
        raise Mismatch("a map with `request_patterns` and `response_patterns`", node)
    for name, item in node.value.items():
        if name not in lists:
            raise Mismatch("`request_patterns` or `response_patterns`", Node(name, item.key_place or item.place))
        lists[name] = _read_list(item)
    return Patterns(lists["request_patterns"], lists["response_patterns"])


def _read_list(node: Node) -> tuple[str, ...]:
    if not isinstance(node.value, list):
        raise Mismatch("a list of regular expressions", node)
    for item in node.value:
        if not isinstance(item.value, str) or not item.value:
            raise Mismatch("a regular expression as text", item)
        if expected := complaint(item.value):
            raise Mismatch(expected, item)
    found = tuple(str(item.value) for item in node.value)
    try:
        compiled(found)
    except re2.error:
        raise Mismatch("fewer or shorter regular expressions", node) from None
    return found


class EditPrecisionOptions(OptionGroup, path="edit_precision", title="Edit precision"):
    enabled: bool = option(
        True,
        env="EDIT_PRECISION_ENABLED",
        switch="edit-precision",
        chat=ChatKey(_KEY, "session"),
        help="after a failed edit of a file, make the next try less random",
    )
    temperature: float = option(
        0.1,
        env="EDIT_PRECISION_TEMPERATURE",
        flag="--edit-precision-temperature",
        minimum=0,
        maximum=2,
        help="temperature of that try, at most",
    )
    min_top_p: float = option(
        0.3,
        env="EDIT_PRECISION_MIN_TOP_P",
        flag="--edit-precision-min-top-p",
        minimum=0,
        maximum=1,
        help="top_p of that try, at most, with override_top_p",
    )
    override_top_p: bool = option(
        False,
        env="EDIT_PRECISION_OVERRIDE_TOP_P",
        flag="--edit-precision-override-top-p",
        help="lower top_p as well",
    )
    target_top_k: int | None = option(
        None,
        env="EDIT_PRECISION_TARGET_TOP_K",
        flag="--edit-precision-target-top-k",
        minimum=1,
        help="top_k of that try, at most, with override_top_k",
    )
    override_top_k: bool = option(
        False,
        env="EDIT_PRECISION_OVERRIDE_TOP_K",
        flag="--edit-precision-override-top-k",
        help="lower top_k as well",
    )
    exclude_agents_regex: str | None = option(
        None,
        env="EDIT_PRECISION_EXCLUDE_AGENTS_REGEX",
        flag="--edit-precision-exclude-agents",
        check=complaint,
        value_name="REGEX",
        help="agents whose requests stay as they are: a regular expression for the agent's name",
    )
    patterns_path: Path | None = option(
        None,
        env="EDIT_PRECISION_PATTERNS_PATH",
        content=Content("edit_precision_patterns.yaml", read_patterns, optional=True),
        default_text="config/edit_precision_patterns.yaml",
        help="file of the texts by which failed edits are known",
    )


def patterns_of(settings: Settings) -> Patterns:
    """Those of the file, or the built-in ones."""
    found = settings.content("edit_precision.patterns_path")
    return found if isinstance(found, Patterns) else Patterns()


class EditPrecision(Feature):
    """See the module."""

    name = "edit precision"

    def __init__(self, options: EditPrecisionOptions, patterns: Patterns) -> None:
        self._enabled = options.enabled
        self._requests = compiled(patterns.request)
        self._responses = compiled(patterns.response)
        excluded = options.exclude_agents_regex
        self._excluded = compiled((excluded,)) if excluded else None
        self._most: dict[str, float] = {"temperature": options.temperature}
        if options.override_top_p:
            self._most["top_p"] = options.min_top_p
        if options.override_top_k and options.target_top_k is not None:
            self._most["top_k"] = options.target_top_k
        self._tuned: dict[int, bool] = {}
        """The exchanges under way that are tuned, by identity (clients may repeat a request id): did an answer tell of the failure?"""

    def _concerned(self, exchange: ExchangeView) -> bool:
        if exchange.side or not exchange.session.values.get(_KEY, self._enabled):
            return False
        return self._excluded is None or not self._excluded.search(exchange.session.agent or GENERIC)

    def on_request(self, exchange: ExchangeView) -> None:
        session = exchange.session
        reported = not exchange.side and session.marks.pop(_MARK, None) is not None
        if reported:
            session.touch()
        if not self._concerned(exchange):
            return
        if self._responses is not None:
            exchange.keep_answer()
        if reported or self._fails(exchange):
            self._tuned[id(exchange)] = reported
            where = "the last answer" if reported else "this request"
            _LOG.info("%s: %s tells of a failed edit, the try is made more precise", exchange.id, where)

    def _fails(self, exchange: ExchangeView) -> bool:
        pattern = self._requests
        return pattern is not None and any(found_in(pattern, text) for text in exchange.recent_texts())

    def concerns(self, exchange: ExchangeView) -> bool:
        return id(exchange) in self._tuned

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        if id(exchange) not in self._tuned:
            return request
        sampling = request.sampling
        lowered: dict[str, Any] = {
            name: most
            for name, most in self._most.items()
            if (current := getattr(sampling, name)) is None or current > most
        }
        gemini = self._lowered(request.gemini)
        if not lowered and gemini == request.gemini:
            return request
        return msgspec.structs.replace(
            request,
            sampling=msgspec.structs.replace(sampling, **lowered),
            gemini=gemini,
            added=request.added | lowered.keys(),
            filled=request.filled - lowered.keys(),
        )

    def _lowered(self, config: dict[str, Any]) -> dict[str, Any]:
        """What the session wants Gemini to get, which would outdo the tuned values."""
        found = dict(config)
        for name, value in config.items():
            most = self._most.get(_GEMINI.get(name.replace("_", "").lower(), ""))
            if most is not None and isinstance(value, int | float) and value > most:
                found[name] = most
        return found

    def on_finish(self, exchange: ExchangeView) -> None:
        reported = self._tuned.pop(id(exchange), False)
        if exchange.local or exchange.side:
            return
        unanswered = exchange.time_to_first is None and (exchange.cancelled or exchange.fault is not None)
        if (reported and unanswered) or (self._concerned(exchange) and self._reports(exchange)):
            exchange.session.marks[_MARK] = True
            exchange.session.touch()

    def _reports(self, exchange: ExchangeView) -> bool:
        pattern, text = self._responses, exchange.answer_text()
        return pattern is not None and bool(text) and found_in(pattern, text)
