"""Files with keys that every user of the machine can read (S-14): said at the start, not refused.

Owns what counts as exposed. Reads modes only, no contents; which values are keys it learns from the sources.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llm_proxy.config.backends import BackendOptions
from llm_proxy.config.document import Node
from llm_proxy.config.location import display, find_env_file
from llm_proxy.config.settings import Settings


def exposed_files(settings: Settings) -> list[str]:
    """One warning for each file with keys in it that others can reach and read."""
    sources = settings.sources
    files: list[Path] = []
    if sources.environment.file:
        named = sources.flags.options.get("--env-file") or sources.environment.find(("LLM_PROXY_ENV_FILE",))
        env_file = find_env_file(named, sources.cwd, [])
        files += [env_file] if env_file else []
    if sources.config_file is not None and any(map(_is_literal, _secret_nodes(settings))):
        files.append(sources.config_file)
    return [
        f"{display(path, sources.cwd)} holds keys and every user of this machine can read it; chmod 600 {path}"
        for path in files
        if readable_by_all(path)
    ]


def readable_by_all(path: Path) -> bool:
    """Can users who are neither the owner nor of the group read the file? False where nobody can tell."""
    if os.name != "posix":
        return False
    try:
        if not path.stat().st_mode & stat.S_IROTH:
            return False
        # A directory that lets nobody pass protects all that is below it.
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
    except OSError:
        return False


def _secret_nodes(settings: Settings) -> Iterator[Node]:
    """The values of secret options and back ends in the configuration file."""
    sources = settings.sources
    for path, node in sources.file_values.items():
        if sources.by_path[path].kind.secret:
            yield node
    secret = {name for option in BackendOptions.options if option.kind.secret for name in option.paths}
    for backend in sources.file_backends.values():
        if isinstance(backend.value, dict):
            yield from (node for name, node in backend.value.items() if name in secret)


def _is_literal(node: Node) -> bool:
    """Does a text stand there that is no reference to a variable?"""
    match node.value:
        case dict():
            return any(map(_is_literal, node.value.values()))
        case list():
            return any(map(_is_literal, node.value))
        case str():
            return bool(node.value) and not node.reference
        case _:
            return False
