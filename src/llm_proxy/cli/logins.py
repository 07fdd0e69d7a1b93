"""`llm-proxy logins`: the logins of vendors' CLIs on this machine, which back-end would use each, and what makes or mends it.

Reads files and nothing else: it asks no provider, renews nothing, starts no program and writes nothing. How a vendor's file is read is
the back-ends' own code.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_proxy.backends.logins import anthropic, google_cloud, openai, personal, qwen
from llm_proxy.backends.logins.document import Unreadable, read_document
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.login_file import sendable
from llm_proxy.backends.logins.places import shown
from llm_proxy.cli import client
from llm_proxy.config import Settings
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.built_in import BUILT_IN
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret

_EXAMPLES: Final = """states:
  valid        good by what its file says; whether the provider still takes it, only a call can tell
  expired      over; where the proxy renews logins of its kind, the next request does that
  unreadable   there is a file, but no login can be read from it
  missing      no file
  unknown      kept where this command does not look

examples:
  llm-proxy logins                                  what there is, and what is missing
  llm-proxy logins --json                           the same for programs; it holds no token either"""

_LONGEST_HINT: Final = 100
_PLATFORM: Final[str] = sys.platform

State = Literal["valid", "expired", "unreadable", "missing", "unknown"]
_COLOURS: Final[Mapping[str, str]] = {"valid": "32", "expired": "33", "unreadable": "31", "missing": "31"}


class Found(msgspec.Struct, frozen=True):
    """One login as far as its file says. `file`: where it is or would be. `expires`: epoch seconds. `renewed_by`: who renews it before or
    after its end, "" for nobody but the vendor's CLI in use. `needs`: what a back-end with it lacks besides, a sentence.
    """

    type: str
    command: str
    file: str
    state: State
    problem: str = ""
    account: str = ""
    expires: float | None = None
    renewed_by: str = ""
    needs: str = ""


class Use(msgspec.Struct, frozen=True):
    """A back-end that would use a login."""

    id: str
    mentioned: bool
    enabled: bool


Listed = tuple[Found, tuple[Use, ...]]


def logins(arguments: Sequence[str]) -> int:
    parser = client.parser("logins", "List the logins of vendors' CLIs on this machine, without any token.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a login")
    options, settings = client.read(parser, arguments)
    now = time.time()
    listed = _listed(settings, now)
    if options.json:
        print(json.dumps([_as_json(found, uses) for found, uses in listed], indent=2))
    else:
        _print(listed, now)
    return 0


# What there is


def _listed(settings: Settings, now: float) -> list[Listed]:
    """Every login that an instance would use; instances that use the same one in the same way stand together."""
    uses: dict[Found, list[Use]] = {}
    for type_, built_in in BUILT_IN.items():
        if not built_in.login:
            continue
        for instance in settings.backends.values():
            if instance.type == type_:
                use = Use(instance.id, instance.mentioned, instance.enabled)
                uses.setdefault(_found(instance, now), []).append(use)
    return [(found, tuple(its)) for found, its in uses.items()]


def _found(settings: BackendSettings, now: float) -> Found:
    match settings.type:
        case "openai-oauth":
            return _of_file(settings, openai.paths(settings), openai.read, openai.refresh_token, now)
        case "anthropic-oauth":
            if settings.macos_keychain:
                return _of_keychain(settings)
            found = _of_file(settings, anthropic.paths(settings), anthropic.read, anthropic.refresh_token, now)
            if found.state == "missing" and _PLATFORM == "darwin":
                advice = f"on macOS Claude Code keeps it in the keychain: set backends.{settings.id}.macos_keychain."
                return msgspec.structs.replace(found, needs=advice)
            return found
        case "gemini-cli-oauth-personal":
            return _of_file(settings, personal.paths(settings.token_path), personal.read, personal.refresh_token, now)
        case "gemini-cli-acp":
            return _of_agent(settings, now)
        case "gemini-cli-cloud-project":
            return _of_cloud(settings, now)
        case _:
            return _of_file(settings, qwen.paths(settings), qwen.read, qwen.refresh_token, now)


def _of_file(
    settings: BackendSettings,
    candidates: Sequence[Path],
    read: Callable[[Mapping[str, Any]], Token],
    refresh_token: Callable[[Mapping[str, Any]], Secret | None],
    now: float,
) -> Found:
    found = Found(settings.type, settings.login, _path(candidates[0]), "missing")
    document = read_document(candidates)
    if document.path is None:
        return found
    found = msgspec.structs.replace(found, file=_path(document.path), state="unreadable")
    if document.members is None:
        return msgspec.structs.replace(found, problem=document.problem)
    try:
        token = sendable(read(document.members))
    except Unreadable as error:
        return msgspec.structs.replace(found, problem=str(error))
    renewal = refresh_token(document.members)
    return msgspec.structs.replace(
        found,
        state="expired" if token.expires is not None and token.expires <= now else "valid",
        account=_account(settings.type, token, renewal),
        expires=token.expires,
        renewed_by=_renewed_by(settings) if renewal is not None else "",
    )


def _of_keychain(settings: BackendSettings) -> Found:
    where = f"macOS keychain, item {anthropic.KEYCHAIN_ITEM}"
    if _PLATFORM != "darwin":
        problem = f"backends.{settings.id}.macos_keychain works on macOS only"
        return Found(settings.type, settings.login, where, "unreadable", problem)
    return Found(settings.type, settings.login, where, "unknown", "looked into when a request needs it")


def _of_agent(settings: BackendSettings, now: float) -> Found:
    """The CLI uses its own login, which is usually this file; it may have a key of its own instead."""
    found = _of_file(settings, personal.paths(None), personal.read, personal.refresh_token, now)
    if _has_program(settings):
        return found
    needs = f"the program {client.printable(settings.gemini_cli_executable)}, which is not in PATH."
    return msgspec.structs.replace(found, needs=needs, renewed_by="")


def _of_cloud(settings: BackendSettings, now: float) -> Found:
    """Google's own library reads the file when a request needs it, and knows other places where a machine in its cloud has a login."""

    path = settings.credentials_path or google_cloud.application_default()
    found = _of_file(settings, (path,), google_cloud.described, lambda members: None, now)
    needs = google_cloud.needs(settings.gcp_project_id or "")
    return msgspec.structs.replace(found, needs=needs, renewed_by="the proxy" if found.state == "valid" else "")


def _renewed_by(settings: BackendSettings) -> str:
    if settings.type == "gemini-cli-acp":
        return "the CLI"
    if settings.refresh == "read-only":
        return ""
    if settings.type != "gemini-cli-oauth-personal" or (settings.oauth_client_id and settings.oauth_client_secret):
        return "the proxy"
    return "the CLI, which the proxy starts" if _has_program(settings) else ""


def _has_program(settings: BackendSettings) -> bool:
    return shutil.which(os.path.expanduser(settings.gemini_cli_executable)) is not None


def _account(type_: str, token: Token, renewal: Secret | None) -> str:
    """Whose it is: a mail address, a plan, or how an account's id ends."""
    hint = "" if type_ == "openai-oauth" and token.account.endswith(token.hint) else token.hint
    if not hint and type_ == "openai-oauth":
        hint = f"account …{token.account[-4:]}"
    if type_ == "anthropic-oauth" and hint and "api_key" not in token.members:
        hint = f"plan {hint}"
    # Other programs write it; nothing hinders them to put a token into the wrong place.
    secrets = [secret for secret in (token.access, renewal) if secret is not None]
    return client.printable(Redactor(secrets).clean(hint))[:_LONGEST_HINT]


def _path(path: Path) -> str:
    return client.printable(shown(path))


# How it is told


def _print(listed: Sequence[Listed], now: float) -> None:
    """What there is, or is named in the configuration, in full; of the rest a line each."""
    rest = [(found, uses) for found, uses in listed if found.state == "missing" and not _is_mentioned(uses)]
    shown = [one for one in listed if one not in rest]
    for number, (found, uses) in enumerate(shown):
        if number:
            print()
        print(client.emphasised(found.type))
        for name, text in _lines(found, uses, now):
            print(f"  {name:<9}  {text}")
    if not shown:
        print("no login was found on this machine")
    if rest:
        print(f"\n{client.emphasised('not found')}{'' if shown else '; what makes one:'}")
        _print_table([(found.type, found.file, f"run `{found.command}`") for found, _ in rest])
    print("\nWhat these logins share with the vendors' CLIs, and what the vendors' terms say: docs/logins.md")


def _lines(found: Found, uses: Sequence[Use], now: float) -> list[tuple[str, str]]:
    lines = [("file", found.file), ("state", _state(found, now))]
    if found.account:
        lines.append(("account", found.account))
    lines.append(("used by", ", ".join(map(_use, uses))))
    if found.needs:
        lines.append(("needs", found.needs.removesuffix(".")))
    if not _is_mentioned(uses):
        lines.append(("switch on", f"{_switch(uses)} in the configuration file"))
    lines.append(("log in", found.command))
    return lines


def _state(found: Found, now: float) -> str:
    text = client.emphasised(found.state, _COLOURS.get(found.state, "1"))
    if found.problem:
        text += f": {client.printable(found.problem)}"
    if found.expires is not None and (moment := _moment(found.expires)) is not None:
        text += f" {'since' if found.state == 'expired' else 'until'} {moment:%Y-%m-%d %H:%M} ({_span(found.expires - now)})"
    if found.renewed_by:
        text += f"; renewed by {found.renewed_by}"
    elif found.state in ("expired", "unreadable", "missing"):
        text += f"; run `{found.command}`"
    return text


def _use(use: Use) -> str:
    if not use.enabled:
        return f"{use.id} (switched off: backends.{use.id}.enabled)"
    return use.id if use.mentioned else f"{use.id} (not in the configuration)"


def _is_mentioned(uses: Sequence[Use]) -> bool:
    return any(use.mentioned for use in uses)


def _switch(uses: Sequence[Use]) -> str:
    return f"backends: {{{uses[0].id}: {{}}}}"


def _moment(expires: float) -> datetime | None:
    """Local time; None for a moment that no calendar holds."""
    try:
        return datetime.fromtimestamp(expires).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def _span(seconds: float) -> str:
    """How long it is until then, in the largest unit of which there are two or more."""
    size = abs(seconds)
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    name, length = next((unit for unit in units if size >= 2 * unit[1]), units[-1])
    text = f"{size / length:.0f} {name}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _as_json(found: Found, uses: Sequence[Use]) -> dict[str, Any]:
    moment = None if found.expires is None else _moment(found.expires)
    return {
        **msgspec.structs.asdict(found),
        "expires": None if moment is None else moment.isoformat(timespec="seconds"),
        "backends": [msgspec.structs.asdict(use) for use in uses],
        "switch_on": "" if _is_mentioned(uses) else _switch(uses),
    }
