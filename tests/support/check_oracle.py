"""Proof that the reader is right: every recorded answer, read by its own protocol's SDK, against
`semantics.jsonl`.

Run `python -m tests.support.check_oracle`; `--write` records the readings of the project's own exchanges
instead.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import fields

from tests.support.sdk import ask_minimal
from tests.support.semantic import Semantic
from tests.support.shared import OWN, Exchange, generating_exchanges, own_exchanges, semantics
from tests.support.upstream import Reply, replay, upstream_in_thread


def read_all(exchanges: tuple[Exchange, ...]) -> Iterator[tuple[Exchange, Semantic, float]]:
    """Each exchange with what its own SDK reads from it and the seconds that took."""
    with upstream_in_thread(Reply()) as upstream:
        for exchange in exchanges:
            upstream.script = replay(exchange)
            began = time.perf_counter()
            got = ask_minimal(exchange.protocol, upstream.url, "test-key", exchange.model, exchange.stream)
            yield exchange, got, time.perf_counter() - began
            upstream.forget()


def differing(expected: Semantic, got: Semantic) -> list[str]:
    """The fields that are not exactly equal, with both values."""
    return [
        f"{f.name}: expected {getattr(expected, f.name)!r:.300}, got {getattr(got, f.name)!r:.300}"
        for f in fields(expected)
        if getattr(expected, f.name) != getattr(got, f.name)
    ]


def check() -> int:
    """Print every disagreement and the totals; the number of disagreements is the result."""
    known = semantics()
    total = agreed = 0
    seconds = 0.0
    for exchange, got, took in read_all(generating_exchanges()):
        if exchange.file not in known:
            continue
        total += 1
        seconds += took
        wrong = differing(Semantic.from_json(known[exchange.file]["semantic"]), got)
        agreed += not wrong
        if wrong:
            print(exchange.file, *wrong, sep="\n    ")
    print(f"{agreed} of {total} agree exactly; {1000 * seconds / max(total, 1):.1f} ms per exchange")
    return total - agreed


def write() -> None:
    """Record what the SDKs read from the project's own exchanges, for a person to check."""
    lines = []
    for exchange, got, _ in read_all(tuple(e for e in own_exchanges() if e.generates)):
        line = {
            "accepted": exchange.sdk_accepts,
            "file": exchange.file,
            "id": exchange.id,
            "protocol": exchange.protocol,
            "semantic": got.to_json(),
            "status": exchange.response.status,
            "stream": exchange.stream,
        }
        lines.append(json.dumps(line, ensure_ascii=True, sort_keys=True) + "\n")
    (OWN / "semantics.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} written")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        sys.exit(min(check(), 1))
