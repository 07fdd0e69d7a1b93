"""Secrets on the command line (S-14): which of its words are some, and how the process list is made to forget them.

A key given by flag works, but every user of the machine could read it with `ps`; so its value is blanked as soon as it has been read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from llm_proxy.config.backends import BackendOptions
from llm_proxy.config.built_in import BUILT_IN
from llm_proxy.config.options import Option, OptionGroup

_MARK = "***"
_ADVICE = "a key on the command line is visible to other users; use a variable or a file"


def hide_secrets(arguments: Sequence[str], groups: Sequence[type[OptionGroup]]) -> list[str]:
    """Blanks the secrets of the running process's command line; warnings for the person who typed them.

    Nothing is touched where there are none. Other users can still have seen them in the moment before.
    """
    shown = list(_without_secrets(arguments, groups))
    hidden = [(word, plain) for word, plain in zip(arguments, shown, strict=True) if word != plain]
    if not hidden:
        return []
    warnings = [f"flag --set {_path(plain)}: {_ADVICE}" for _, plain in hidden if _is_set(plain)]
    if sys.platform == "win32":
        return warnings  # the command line of a process cannot be changed there
    try:
        from setproctitle import setproctitle
    except ImportError:
        return [*warnings, "keys on the command line cannot be hidden: pip install setproctitle"]
    setproctitle(" ".join(["llm-proxy", *shown]))
    return warnings


def _without_secrets(arguments: Sequence[str], groups: Sequence[type[OptionGroup]]) -> Iterator[str]:
    options = [option for group in groups for option in group.options]
    flags = {name for option in options if option.kind.secret for name in (*option.flags, *option.hidden_flags)}
    flags |= {built_in.key_flag for built_in in BUILT_IN.values() if built_in.key_flag}
    by_path = {path: option for option in options for path in option.paths}
    before = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if before in flags:
            yield _MARK
        elif before == "--set":
            yield _without_value(word, by_path)
        elif name == "--set" and equals:
            yield f"--set={_without_value(value, by_path)}"
        elif name in flags and equals:
            yield f"{name}={_MARK}"
        else:
            yield _without_password(word)
        before = word if not equals or before == "--set" else ""


def _without_value(assignment: str, by_path: dict[str, Option]) -> str:
    """`PATH=***` where the option at PATH is a secret, or a back end's header, which may be one."""
    path, equals, value = assignment.partition("=")
    option = by_path.get(path.strip())
    secret = option is not None and option.kind.secret
    if option is None and path.strip().startswith("backends."):
        last = path.strip().rpartition(".")[2]
        kinds = {name: declared.kind for declared in BackendOptions.options for name in declared.paths}
        secret = (last in kinds and (kinds[last].secret or kinds[last].base == "headers")) or ".headers." in path
    return f"{path}={_MARK}" if secret and equals and value else _without_password(assignment)


def _without_password(word: str) -> str:
    """A URL without the password that stands in it."""
    before, mark, rest = word.partition("://")
    authority = rest.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    if not mark or not at or ":" not in user:
        return word
    name = user.partition(":")[0]
    return f"{before}://{name}:{_MARK}{rest[len(user) :]}"


def _is_set(word: str) -> bool:
    """Does a blanked word belong to `--set`, whose loader warns of nothing?"""
    return (not word.startswith("--") and word.endswith(f"={_MARK}")) or word.startswith("--set=")


def _path(word: str) -> str:
    return word.removeprefix("--set=").partition("=")[0]
