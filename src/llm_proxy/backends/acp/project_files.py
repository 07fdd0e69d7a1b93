"""The agent's files as we read and write them for it: inside the project directory, wherever links lead (BE-18, S-12).

Owns the check of a path and the two file methods of the protocol. Blocking: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable
from typing import Any, Final

from llm_proxy.backends.acp.protocol import INTERNAL, INVALID_PARAMS, RESOURCE_NOT_FOUND, RpcError

LARGEST_FILE: Final = 8 * 2**20
_LONGEST_PATH: Final = 4096
_PIECES: Final = sys.platform != "win32"
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def resolved_inside(directory: str, path: str) -> str | None:
    """The real place of `path` (relative to `directory` unless absolute) when that is `directory` or below it; None otherwise.
    `directory` is a real path itself. `~` leads home, as it does in a shell.
    """
    if "\0" in path or not path or len(path) > _LONGEST_PATH:
        return None
    try:
        place = os.path.realpath(os.path.join(directory, os.path.expanduser(path)))
    except (OSError, ValueError):
        return None
    root = directory if directory.endswith(os.sep) else directory + os.sep
    return place if place == directory or place.startswith(root) else None


def _nothing_private(place: str) -> bool:
    return False


def read_text_file(
    directory: str, params: dict[str, Any], private: Callable[[str], bool] = _nothing_private
) -> dict[str, Any]:
    """`fs/read_text_file`: `line` counts from 1, `limit` is a number of lines. `private`: is this real path none of the agent's business,
    though it lies in the project. Raises RpcError.
    """
    place = _place(directory, params, private)
    first, most = _number(params, "line"), _number(params, "limit")
    try:
        content = _read(directory, place)
    except OSError as error:
        raise _refused(error) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RpcError(INVALID_PARAMS, "The file is not UTF-8 text.") from None
    if first or most is not None:
        start = max((first or 1) - 1, 0)
        text = "".join(text.splitlines(keepends=True)[start : None if most is None else start + most])
    return {"content": text}


def write_text_file(directory: str, params: dict[str, Any], private: Callable[[str], bool] = _nothing_private) -> None:
    """`fs/write_text_file`: replaced as a whole, so another name of the same file keeps its content. Raises RpcError."""
    place = _place(directory, params, private)
    content = params.get("content")
    if not isinstance(content, str):
        raise RpcError(INVALID_PARAMS, "`content` must be a text.")
    data = content.encode("utf-8", "replace")
    if len(data) > LARGEST_FILE:
        raise RpcError(INVALID_PARAMS, f"The text is longer than {LARGEST_FILE} bytes.")
    try:
        _write(directory, place, data)
    except OSError as error:
        raise _refused(error) from None


def _place(directory: str, params: dict[str, Any], private: Callable[[str], bool]) -> str:
    path = params.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise RpcError(INVALID_PARAMS, "`path` must be an absolute path.")
    place = resolved_inside(directory, path)
    if place is None or place == directory:
        raise RpcError(INVALID_PARAMS, "The path lies outside the project directory.")
    if private(place):
        raise RpcError(INVALID_PARAMS, "The path belongs to the proxy.")
    return place


def _number(params: dict[str, Any], name: str) -> int | None:
    value = params.get(name)
    return value if type(value) is int and value >= 0 else None


def _refused(error: OSError) -> RpcError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return RpcError(RESOURCE_NOT_FOUND, "Resource not found: no such file or directory.")
        case errno.ELOOP:
            return RpcError(INVALID_PARAMS, "The path was turned into a link meanwhile.")
        case number:
            return RpcError(INTERNAL, f"The file cannot be used: {os.strerror(number) if number else 'unknown error'}.")


def _folder(directory: str, place: str, make: bool = False) -> tuple[int, str]:
    """A descriptor of the directory that holds `place`, and the last name. From one directory to the next without following any link,
    so what was checked is what is opened. The caller closes it.
    """
    *folders, name = os.path.relpath(place, directory).split(os.sep)
    folder = os.open(directory, os.O_RDONLY | _DIRECTORY)
    try:
        for step in folders:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, 0o777, dir_fd=folder)
            deeper = os.open(step, os.O_RDONLY | _DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = deeper
    except BaseException:
        os.close(folder)
        raise
    return folder, name


def _read(directory: str, place: str) -> bytes:
    if _PIECES:
        folder, name = _folder(directory, place)
        try:
            file = os.open(name, os.O_RDONLY | _FILE, dir_fd=folder)
        finally:
            os.close(folder)
    else:
        file = os.open(place, os.O_RDONLY | _FILE)
    with os.fdopen(file, "rb") as opened:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise RpcError(INVALID_PARAMS, "That is no ordinary file.")
        content = opened.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise RpcError(INVALID_PARAMS, f"The file is longer than {LARGEST_FILE} bytes.")
    return content


def _write(directory: str, place: str, data: bytes) -> None:
    temporary = f".{secrets.token_hex(8)}.tmp"
    if not _PIECES:
        folder_name = os.path.dirname(place)
        os.makedirs(folder_name, exist_ok=True)
        path = os.path.join(folder_name, temporary)
        with open(path, "xb") as file:
            file.write(data)
        os.replace(path, place)
        return
    folder, name = _folder(directory, place, make=True)
    try:
        mode = _mode(folder, name)
        file_number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=folder)
        try:
            with os.fdopen(file_number, "wb") as opened:
                if mode is not None:
                    os.fchmod(file_number, mode)
                opened.write(data)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def _mode(folder: int, name: str) -> int | None:
    """The permissions of what is there, None for a new file. Only an ordinary file is replaced."""
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise RpcError(INVALID_PARAMS, "That is no ordinary file.")
    return stat.S_IMODE(about.st_mode) & 0o777
