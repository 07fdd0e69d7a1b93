"""What of this machine an agent may see and change, and where it may not work at all (S-12).

Owns the lists and how programs are found that lie outside of them. Knows no means to hold an agent to it. Everything here looks at the file
system: call it in a thread.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

# Programs, libraries, settings of the system, what it says of itself.
_SYSTEM: Final = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/snap", "/gnu", "/home/linuxbrew",
    "/var/lib/snapd", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/current-system",
)  # fmt: skip
# Of the system what only root may read, for those who run the proxy as root.
_SECRETS: Final = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssl/private", "/etc/ssh",
    "/etc/kubernetes", "/etc/docker", "/etc/NetworkManager/system-connections", "/etc/letsencrypt", "/etc/wireguard",
)  # fmt: skip
# Of the home directory: who writes the user's commits, and where version managers keep programs. `.gemini` is the CLI's own.
_READ_AT_HOME: Final = (
    ".gitconfig", ".config/git/config", ".config/git/ignore", ".config/git/attributes", ".nvm", ".volta", ".bun/bin", ".asdf",
    ".pyenv", ".rustup", ".cargo/bin", ".npm-global", ".local/bin", ".local/lib", ".local/share/mise", ".local/share/fnm",
    ".local/share/uv", ".local/share/pnpm",
)  # fmt: skip
_SECRETS_AT_HOME: Final = (
    ".ssh", ".aws", ".gnupg", ".netrc", ".npmrc", ".docker/config.json", ".cargo/credentials", ".cargo/credentials.toml",
)  # fmt: skip
_OWN_STATE: Final = ".gemini"
# No project lies here, whoever names it: these are the system's and the user's own.
_NO_PROJECT: Final = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/dev", "/proc", "/sys", "/run")
# Nor is it one of these as a whole.
_NO_PROJECT_ITSELF: Final = (
    "/", "/home", "/root", "/opt", "/srv", "/var", "/var/lib", "/tmp", "/var/tmp", "/mnt", "/media",
)  # fmt: skip
_NO_PROJECT_AT_HOME: Final = (
    ".ssh", ".aws", ".azure", ".gnupg", ".config", ".gemini", ".kube", ".docker", ".local", ".claude", ".codex", ".qwen", ".netrc",
    ".cache", ".mozilla", ".thunderbird", ".password-store",
)  # fmt: skip
# Certificates that the environment names.
_NAMED: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
_LONGEST_CHAIN: Final = 10


class Places(msgspec.Struct, frozen=True):
    """Real or linked paths. What is in none of them does not exist for the agent; `hidden` ones do not either, wherever they lie."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    hidden: tuple[str, ...]


def places_for(executable: str, directory: str, environment: Mapping[str, str], private: Sequence[str]) -> Places:
    """Those of `executable` at work in `directory`, real paths as `private` are, the proxy's own. `environment`: the agent's."""
    home = home_of(environment)
    read = [*_SYSTEM, os.path.realpath("/etc/resolv.conf"), *(f"{home}/{name}" for name in _READ_AT_HOME if home)]
    read += [place for name in _NAMED if os.path.isabs(place := environment.get(name, ""))]
    read += _programs(executable, environment, home)
    state = [os.path.join(home, _OWN_STATE)] if home else []
    secret = [f"{home}/{name}" for name in _SECRETS_AT_HOME if home]
    return Places(
        tuple(_topmost(path for path in read if os.path.lexists(path))),
        (*(path for path in state if os.path.isdir(path)), directory),
        tuple(dict.fromkeys((*private, *_SECRETS, *secret))),
    )


def is_no_project(directory: str, environment: Mapping[str, str], private: Sequence[str]) -> bool:
    """Is it the home directory itself, the system's, among credentials, or in or above the proxy's own. `directory`: a real path."""
    home = home_of(environment)
    inside = [*_NO_PROJECT, *(f"{home}/{name}" for name in _NO_PROJECT_AT_HOME if home), *private]
    above = any(within(path, directory) for path in private if os.path.isdir(path))
    itself = (*_NO_PROJECT_ITSELF, home)
    return directory in itself or above or any(within(directory, path) for path in inside)


def without(roots: Iterable[str], hidden: Sequence[str]) -> list[str]:
    """Paths that cover all of `roots` but what is `hidden`. A directory that holds something hidden is replaced by its entries."""
    found: list[str] = []
    for root in roots:
        place = os.path.realpath(root)
        if any(within(place, path) for path in hidden):
            continue
        if any(within(path, place) and os.path.lexists(path) for path in hidden) and os.path.isdir(place):
            try:
                found += without([entry.path for entry in os.scandir(place)], hidden)
            except OSError:
                continue
        else:
            found.append(root)
    return found


def _topmost(paths: Iterable[str]) -> Iterator[str]:
    """Those that lie in no other, and where their links lead."""
    known: list[str] = []
    places = {place for path in paths for place in (path, os.path.realpath(path))}
    for path in sorted(places):
        if not any(within(path, other) for other in known):
            known.append(path)
            yield path


def within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def home_of(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME", "")
    return os.path.realpath(home) if os.path.isabs(home) else ""


def _programs(executable: str, environment: Mapping[str, str], home: str) -> Iterator[str]:
    """Where the executable, what interprets it, and the programs of PATH are installed, as far as that is not the system."""
    for entry in environment.get("PATH", "").split(os.pathsep):
        if os.path.isdir(entry):
            yield from _installation(entry, home)
    program: str | None = executable
    for _ in range(_LONGEST_CHAIN):
        if program is None:
            return
        for place in _links(program):
            yield place
            yield from _installation(os.path.dirname(place), home)
        program = _interpreter(program, environment)


def _links(path: str) -> Iterator[str]:
    """`path`, and where its links lead, one after the other."""
    for _ in range(_LONGEST_CHAIN):
        yield path
        try:
            path = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.readlink(path)))
        except OSError:
            break
    yield os.path.realpath(path)


def _installation(directory: str, home: str) -> Iterator[str]:
    """What belongs to programs in `directory`: all packages beside them, or the tree whose `bin` it is."""
    parts = Path(directory).parts
    if "node_modules" in parts:
        yield str(Path(*parts[: parts.index("node_modules") + 1]))
        return
    tree = os.path.dirname(directory)
    shared = tree in ("/", home, "/tmp") or (home and within(home, tree))
    shared = shared or (os.path.dirname(tree) == home and os.path.basename(tree).startswith("."))  # ~/.local, ~/.cargo
    if os.path.basename(directory) == "bin" and not shared:
        yield tree
    elif not (home and within(home, directory)) and directory not in _NO_PROJECT_ITSELF:
        yield directory


def _interpreter(program: str, environment: Mapping[str, str]) -> str | None:
    """That of a script's first line; None for what needs none."""
    try:
        with open(program, "rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if not words:
        return None
    if os.path.basename(words[0]) != "env":
        return words[0]
    named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
    return shutil.which(named, path=environment.get("PATH")) if named else None
