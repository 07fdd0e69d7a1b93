"""The scripted model behind a socket: judges each request as its provider would, and answers the valid ones.

Owns the record of what was asked and of what was wrong with it. A wrong request gets the provider's own kind
of error, so that the agent fails as it would in life, and stays in `problems`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.agents.errand import Ask, Call, Errand, decide
from tests.agents.providers import PROVIDERS, Provider
from tests.support.requests_check import validate_request
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread


@dataclass
class ScriptedModel:
    """A model of one protocol with one errand. `emitted`: the requests are written by the proxy itself.

    Only then the stricter rules hold, as what an agent writes in its own protocol is none of our doing.
    """

    provider: Provider
    errand: Errand
    emitted: bool
    url: str = ""
    asks: list[Ask] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ends: int = 0
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    _sealed: bool = False

    def answer(self, request: Received) -> Reply:
        """The script of the server."""
        self.requests.append(request)
        generates = request.method == "POST" and "countTokens" not in request.path
        if generates and "count_tokens" not in request.path and "input_tokens" not in request.path:
            wrong = self._wrong(request)
            if wrong:
                self.problems += [f"{request.method} {request.target}: {problem}" for problem in wrong]
                return self.provider.refuse(400, "; ".join(wrong))
        ask = self.provider.read(request)
        if ask is None:
            self.others.append(f"{request.method} {request.target}")
            return self.provider.serve_other(request)
        self.asks.append(ask)
        step = decide(ask, self.errand)
        if isinstance(step, Call):
            self.calls.append(step)
            self._sealed = ask.thinks or self.provider.protocol == "gemini"
        elif step.text == self.errand.last_words:
            missing = self.provider.unreturned(request.json) if self._sealed else None
            if missing is not None:
                self.problems.append(missing)
                return self.provider.refuse(400, missing)
            self.ends += 1
        return self.provider.write(ask, step)

    def _wrong(self, request: Received) -> list[str]:
        try:
            body = request.json
        except ValueError as error:
            return [f"the body is not JSON: {error}"]
        found = validate_request(self.provider.protocol, body, request.target, emitted=self.emitted)
        if self.emitted:
            return found
        # An agent's own liberties work with its provider: Codex gives its messages ids, and its reasoning
        # items a null content.
        return [problem for problem in found if "unknown field" not in problem and "None is no" not in problem]

    def story(self) -> str:
        """What happened, for the message of a failing test."""
        lines = [f"{r.method} {r.target} ({len(r.body)} bytes)" for r in self.requests]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"call: {call.tool.name} {json.dumps(dict(call.arguments))[:300]}" for call in self.calls]
        return "\n".join(lines)


@contextmanager
def scripted_model(protocol: Protocol, errand: Errand, *, emitted: bool) -> Iterator[ScriptedModel]:
    """The model on a port of its own; `url` has no version part."""
    model = ScriptedModel(PROVIDERS[protocol], errand, emitted)
    with upstream_in_thread(model.answer) as upstream:
        model.url = upstream.url
        yield model
