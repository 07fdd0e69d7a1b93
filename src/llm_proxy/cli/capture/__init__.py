"""`llm-proxy capture list|show|follow|export`: reads the wire capture, of a running proxy or of one that has long ended.

Owns the flags and which file is read. What lines mean is `exchanges`' and `meaning`'s, how they look `pages`', `har` writes archives.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from llm_proxy.cli import CommandFault, client
from llm_proxy.cli.capture import har, pages
from llm_proxy.cli.capture.exchanges import Exchange, Exchanges, Wanted
from llm_proxy.config import Settings
from llm_proxy.config.capture import CaptureOptions
from llm_proxy.config.flags import Parser
from llm_proxy.store.capture.reading import Following, Reading, files, read_line

_USAGE = """llm-proxy capture list|show|follow|export [flags] [options of serve]

  list              one line for each call of a provider, the newest last
  show ID           one call, readable: messages, the answer put together, tool calls, timing; ID is a number of `list` or a request id
  follow            calls as they end, until Ctrl-C; follows the file when it is rotated
  export FILE       an HTTP archive (HAR 1.2), which the network page of a browser opens; - is standard output"""
_EXAMPLES = """examples:
  llm-proxy capture list --errors --since 1h        what went wrong in the last hour
  llm-proxy capture list --backend openai --json    for other programs
  llm-proxy capture show 12                         the call with that number
  llm-proxy capture show req_YtK92i3hmBJDal --raw   its lines as they were written
  llm-proxy capture follow --model gpt-5            calls as they end
  llm-proxy capture export calls.har --session s1   for a browser's network page
  llm-proxy capture list --file /backup/capture.jsonl

The capture is written by a proxy that was started with --capture-file FILE (or logging.capture_file)."""
_NAMED = {"show": "the number or the request id of a call", "export": "the FILE to write (- is standard output)"}
_ACTIONS = ("list", "show", "follow", "export")
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def capture(arguments: Sequence[str]) -> int:
    parser = _parser()
    action, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if action in ("", "-h", "--help"):
        print(parser.format_help(), end="")
        return 0 if action else 2
    if action not in _ACTIONS:
        raise CommandFault(f"capture: expected one of {', '.join(_ACTIONS)}, not {action!r}", status=2)
    # A positional argument would also take the values of those options of serve that the parser does not know.
    name = rest.pop(0) if action in _NAMED and rest and (rest[0] == "-" or rest[0][:1] != "-") else ""
    try:
        options, settings = client.read(parser, rest)
    except CommandFault as fault:
        if action in _NAMED and not name and str(fault).endswith("unexpected argument"):
            raise CommandFault(f"capture {action}: {_NAMED[action]} comes right after `{action}`", status=2) from None
        raise
    path = _path(options, settings)
    wanted = _wanted(options)
    match action:
        case "list":
            return _list(path, wanted, options)
        case "show":
            return _show(path, name, options)
        case "follow":
            return _follow(path, wanted, options)
        case _:
            return _export(path, wanted, name, options)


def _parser() -> Parser:
    parser = client.parser("capture", "Read the wire capture: what went to providers and what came back.", _EXAMPLES)
    parser.usage = _USAGE
    parser.add_argument("--file", help="the capture file [default: logging.capture_file of the configuration]")
    parser.add_argument("--session", metavar="ID", help="only calls of this session")
    parser.add_argument("--backend", metavar="ID", help="only calls of this back-end")
    parser.add_argument("--model", metavar="TEXT", help="only calls of models whose name holds this")
    parser.add_argument(
        "--since", metavar="WHEN", help="only calls since: 30s, 10m, 2h, 1d ago, or a date as 2026-11-21T18:00"
    )
    parser.add_argument("--errors", action="store_true", help="only calls that failed or were given up")
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest N")
    parser.add_argument("--json", action="store_true", help="list, show: JSON instead of text")
    parser.add_argument("--raw", action="store_true", help="show, follow: the lines as they were written")
    parser.add_argument(
        "--chunks", action="store_true", help="show: the time of every piece, not only of the first and last"
    )
    parser.add_argument("--from-start", action="store_true", help="follow: begin with what is there already")
    return parser


def _path(options: argparse.Namespace, settings: Settings) -> Path:
    given = Path(options.file).expanduser() if options.file else settings.get(CaptureOptions).capture_file
    if given is None:
        raise CommandFault(
            "no capture is configured: name its file with --file, or start the proxy with --capture-file", status=2
        )
    return Path(os.path.abspath(given if options.file else settings.data_dir / given))


def _wanted(options: argparse.Namespace) -> Wanted:
    return Wanted(
        session=options.session or "",
        backend=options.backend or "",
        model=options.model or "",
        since=_since(options.since) if options.since else 0.0,
        errors=options.errors,
    )


def _since(text: str) -> float:
    """Unix seconds. Raises CommandFault."""
    if found := _SPAN.fullmatch(text):
        return time.time() - int(found[1]) * _SECONDS[found[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFault(
            f"--since: expected 30s, 10m, 2h, 1d or a date such as 2026-11-21T18:00, not {text!r}", status=2
        ) from None
    return (when if when.tzinfo else when.astimezone()).timestamp()


def _all(path: Path, wanted: Wanted, limit: int | None) -> list[Exchange]:
    """Every exchange, with a word on standard error for what cannot be read. Raises CommandFault."""
    if not files(path):
        raise CommandFault(f"there is no capture at {path}")
    reading, exchanges = Reading(path), Exchanges()
    try:
        for line in reading:
            exchanges.add(line)
    except OSError as error:
        raise CommandFault(f"{path} cannot be read: {error.strerror}") from None
    if reading.damaged:
        print(f"llm-proxy: {reading.damaged}", file=sys.stderr)
    if exchanges.dropped:
        print(f"llm-proxy: {exchanges.dropped} entries were dropped while they were captured", file=sys.stderr)
    found = [exchange for exchange in exchanges.all if wanted.takes(exchange)]
    return found[max(0, len(found) - limit) :] if limit is not None and limit >= 0 else found


def _list(path: Path, wanted: Wanted, options: argparse.Namespace) -> int:
    pages.list_of(_all(path, wanted, options.limit), as_json=options.json)
    return 0


def _show(path: Path, name: str, options: argparse.Namespace) -> int:
    if not name:
        raise CommandFault("capture show: name a call right after `show`, by its number or its request id", status=2)
    found = [one for one in _all(path, Wanted(), None) if str(one.number) == name]
    found = found or [one for one in _all(path, Wanted(), None) if name and one.request_id.startswith(name)]
    if not found:
        raise CommandFault(f"no call has the number or request id {name!r}")
    numbers = {one.number for one in found}
    again = Exchanges(keep=numbers)
    for line in Reading(path):
        again.add(line)
    for exchange in again.all:
        if exchange.number not in numbers:
            continue
        if options.raw:
            for line in exchange.lines:
                print(line.raw.decode(errors="replace"))
        else:
            pages.one(exchange, as_json=options.json, all_chunks=options.chunks)
    return 0


def _follow(path: Path, wanted: Wanted, options: argparse.Namespace) -> int:
    following, exchanges = Following(path, from_start=options.from_start), Exchanges()
    print(f"llm-proxy: follows {path}; Ctrl-C ends it", file=sys.stderr)
    try:
        for raw in following.lines():
            line = read_line(raw)
            if line is None:
                continue
            exchange = exchanges.add(line)
            if exchange is None or not wanted.takes(exchange, whole=not options.raw):
                continue
            if options.raw:
                print(raw.decode(errors="replace"), flush=True)
            elif exchange.ended:
                pages.followed(exchange)
            exchanges.forget()
    except KeyboardInterrupt:
        return 0
    finally:
        following.close()
    return 0


def _export(path: Path, wanted: Wanted, target: str, options: argparse.Namespace) -> int:
    if not target:
        raise CommandFault(
            "capture export: name the file to write right after `export`; - is standard output", status=2
        )
    numbers = {one.number for one in _all(path, wanted, options.limit)}
    exchanges = Exchanges(keep=numbers)
    for line in Reading(path):
        exchanges.add(line)
    archive = har.archive([one for one in exchanges.all if one.number in numbers])
    if target == "-":
        sys.stdout.buffer.write(archive + b"\n")
        sys.stdout.flush()
        return 0
    try:
        # What providers were told is nobody else's business.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(archive)
    except OSError as error:
        raise CommandFault(f"{target} cannot be written: {error.strerror}") from None
    print(f"{len(numbers)} call{'s' * (len(numbers) != 1)} in {target}", file=sys.stderr)
    return 0
