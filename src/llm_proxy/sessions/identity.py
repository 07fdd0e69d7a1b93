"""Whose conversation a request belongs to: an id that stays the same from turn to turn, within the client key's scope.

The id is what the client says, or what its agent says, or a keyed hash of how the conversation begins. What is kept
under an id is not known here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

import msgspec

from llm_proxy.dialects.base import Opening
from llm_proxy.sessions.machine_text import without_machine_text

ANONYMOUS = "anonymous"
_ERRAND_PREFIX = "title-"
_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_OWN_FIELDS = ("session_id", "extra_body.session_id")
# Claude Code; Codex; pi; older Codex; opencode and Kilo: as recorded, but for the older Codex.
_AGENT_HEADERS = ("x-claude-code-session-id", "session-id", "session_id", "conversation_id", "x-session-affinity")
_AGENT_FIELDS = ("metadata.user_id", "client_metadata.session_id", "prompt_cache_key")
_LONGEST_USER_ID = 4096

# Beginnings of clauses that change inside one conversation; without the first letter, whose case varies. The line
# that holds one is left out of the fingerprint: Claude Code's billing line differs from request to request, and a
# conversation goes on after midnight.
_CHANGING = (
    "x-anthropic-billing-header:",
    "oday's date",
    "oday is ",
    "urrent date",
    "urrent Date",
    "urrent time",
    "urrent Time",
    "urrent local ",
    "ocal date",
    "ocal time",
    "sing model:",
)
_CHANGING_BLOCKS = ("current_datetime", "environment_details", "environment_context", "env", "git_status")


class Identity(msgspec.Struct, frozen=True):
    """The session's id, where it was found (a header, a body field, `previous_response_id` or `derived`), and whether
    the id itself says that the request is an errand of that session."""

    id: str
    source: str
    errand: bool = False


class _UserId(msgspec.Struct):
    session_id: str = ""


_decode_user_id = msgspec.json.Decoder(_UserId).decode


def scope_of(key_name: str, *, anonymous: bool, trusted_address: str = "") -> str:
    """The scope of a client key. `anonymous`: no key is asked of anybody; `trusted_address`: from where no key is needed."""
    if anonymous:
        return ANONYMOUS
    if key_name:
        return _digest(key_name)[:32]
    return trusted_address or ANONYMOUS


def identify(
    headers: Callable[[str], str],
    opening: Opening,
    scope: str,
    key: bytes,
    *,
    agent: str = "",
    previous_session: str = "",
    redact: Callable[[str], str] = str,
) -> Identity:
    """`headers` gives the value of a header by its lower-case name, "" if absent; `key` makes derived ids unguessable.

    `previous_session` is the session of the response that the request continues. `redact` takes secrets out of a text: an id that
    holds one is never kept as it is.
    """
    for source, value in _named(headers, opening):
        if value:
            errand = value.startswith(_ERRAND_PREFIX) and len(value) > len(_ERRAND_PREFIX)
            return Identity(clean(value.removeprefix(_ERRAND_PREFIX) if errand else value, redact), source, errand)
    if previous_session:
        return Identity(clean(previous_session), "previous_response_id")
    return Identity("auto-" + _fingerprint(headers, opening, scope, key, agent), "derived")


def clean(value: str, redact: Callable[[str], str] = str) -> str:
    """An id as it is, if it is 1 to 128 of the allowed characters and `redact` finds no secret in it, else its hash."""
    return value if _ID.fullmatch(value) and redact(value) == value else _digest(value)


def _named(headers: Callable[[str], str], opening: Opening) -> Iterable[tuple[str, str]]:
    yield "x-session-id", headers("x-session-id").strip()
    ids = opening.ids
    for field in _OWN_FIELDS if ids else ():
        yield field, ids.get(field, "").strip()
    for name in _AGENT_HEADERS:
        yield name, headers(name).strip()
    for field in _AGENT_FIELDS if ids else ():
        value = ids.get(field, "").strip()
        yield field, session_in(value) if field == "metadata.user_id" else value


def session_in(user_id: str) -> str:
    """The session id in Claude Code's `metadata.user_id`: JSON since 2.1, `user_…_account_…_session_<id>` before.

    A plain user id names a person and not a conversation.
    """
    if not user_id or len(user_id) > _LONGEST_USER_ID:
        return ""
    if user_id.startswith("{"):
        try:
            return _decode_user_id(user_id).session_id.strip()
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            return ""
    return user_id.rpartition("_session_")[2] if "_session_" in user_id else ""


def _fingerprint(headers: Callable[[str], str], opening: Opening, scope: str, key: bytes, agent: str) -> str:
    if len(key) > hashlib.blake2b.MAX_KEY_SIZE:
        key = hashlib.blake2b(key).digest()
    digest = hashlib.blake2b(key=key, digest_size=8)
    system = [_lasting(text) for text in opening.system]
    user = [without_machine_text(text, agent).strip() for text in opening.first_user]
    for pieces in ([scope], [_product(headers("user-agent"))], system, user):
        present = [_encoded(piece) for piece in pieces if piece]
        # With the numbers and lengths no two ways to cut the same characters give one hash.
        digest.update(b"%d;" % len(present))
        for piece in present:
            digest.update(b"%d:" % len(piece))
            digest.update(piece)
    return digest.hexdigest()


def _product(user_agent: str) -> str:
    """Gemini CLI puts the model into its first product (`GeminiCLI-tui/V/MODEL`), and the model may change."""
    first, blank, rest = user_agent.strip().partition(" ")
    return "/".join(first.split("/", 2)[:2]) + blank + rest


def _lasting(text: str) -> str:
    """A system text without what changes in one conversation."""
    for name in _CHANGING_BLOCKS:
        text = _without_blocks(text, f"<{name}>", f"</{name}>")
    for clause in _CHANGING:
        text = _without_lines(text, clause)
    return text.strip()


def _without_blocks(text: str, opening: str, closing: str) -> str:
    kept = []
    at = 0
    while (start := text.find(opening, at)) >= 0 and (stop := text.find(closing, start)) >= 0:
        kept.append(text[at:start])
        at = stop + len(closing)
    return "".join((*kept, text[at:])) if kept else text


def _without_lines(text: str, clause: str) -> str:
    kept = []
    at = 0
    while (found := text.find(clause, at)) >= 0:
        kept.append(text[at : text.rfind("\n", at, found) + 1 or at])
        stop = text.find("\n", found)
        at = len(text) if stop < 0 else stop + 1
    return "".join((*kept, text[at:])) if kept else text


def _digest(value: str) -> str:
    return hashlib.sha256(_encoded(value)).hexdigest()


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
