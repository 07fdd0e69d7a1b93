"""Runs one agent: what it may use is bounded before its program begins, and nothing of it outlives its end (S-12).

Owns limits, Landlock, the filter of system calls, and watching over all that stems from the agent. Run as a script of its own with
`python -I -S`, on Linux only: `launcher.py ORDER PROGRAM ARGUMENT...`, ORDER being JSON (`Order`). Imports nothing of ours and little of
Python's, because every start of an agent waits for it.

It is the agent's parent and adopts whoever loses its own (PR_SET_CHILD_SUBREAPER). So when it has no child left there is nobody left: neither
who changed group and session nor who forgot its environment. It ends all when the agent ends, on SIGTERM, and when the proxy is
gone, which it sees by the other end of its input. Ends as the agent did, or with CANNOT after a line that says why.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from typing import Final, NoReturn, TypedDict

CANNOT: Final = 126
COMPLAINT: Final = "llm-proxy cannot run this agent: "
_AFTER_TERM: Final = 1.0
_SET_NO_NEW_PRIVS: Final = 38
_SET_CHILD_SUBREAPER: Final = 36
_SET_SECCOMP: Final = 22
_DROP_FROM_BOUNDS: Final = 24
_KEPT_POWERS: Final = (
    0,
    1,
    3,
)  # over owner and mode of files: for a root of a container, whose project belongs to somebody else
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Order(TypedDict):
    """`temporary`: a directory to make for it and to remove afterwards. `read`, `write`: all that it may see and change, by Landlock; None for
    no such bound; with it go root's powers. `lonely`: may it not reach others by signals and by Unix sockets without a path. `filtered`:
    may it make no Unix socket at all. `processes`: how many threads it may add to those of its user.
    """

    temporary: str
    read: list[str] | None
    write: list[str] | None
    lonely: bool
    filtered: bool
    processes: int


# ---- Landlock (https://docs.kernel.org/userspace-api/landlock.html); the numbers are the same on all machines

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_DEVICES: Final = 1 << 6 | 1 << 11  # making them: a disk is a file to root
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_SCOPES: Final = 1 << 0 | 1 << 1  # Unix sockets without a path, signals
_KNOWN: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))


def landlock_version() -> int:
    """What this kernel knows; 0 for nothing. Changes nothing, takes microseconds."""
    return max(int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)), 0)


def _confine(read: list[str] | None, write: list[str] | None, lonely: bool) -> None:
    version = landlock_version()
    handled = sum(bits for since, bits in _KNOWN if version >= since) if read is not None else 0
    scoped = _SCOPES if lonely and version >= 6 else 0
    if not handled and not scoped:
        return
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", handled, 0, scoped))
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _check("landlock_create_ruleset", _LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    for paths, allowed in ((read or [], _READ), (write or [], ~_DEVICES)):
        for path in paths:
            _allow(rules, path, allowed & handled)
    _check("landlock_restrict_self", _LIBC.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _allow(rules: int, path: str, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        allowed &= _OF_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, place))
    _check(f"landlock_add_rule for {path}", _LIBC.syscall(_ADD_RULE, rules, 1, rule, 0))
    os.close(place)


# ---- seccomp: Landlock knows no sockets with a path, behind which wait who would run things for the agent (D-Bus, docker, tmux, ssh-agent)

# machine: its number, and its calls socket, socketpair, keyctl, add_key, request_key
_CALLS: Final = {"x86_64": (0xC000003E, 41, 53, 250, 248, 249), "aarch64": (0xC00000B7, 198, 199, 219, 217, 218)}
_IO_URING_SETUP: Final = 425  # could make sockets past this filter
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000
_CALL, _MACHINE, _FIRST, _SECOND = 0, 4, 16, 24  # places in what a filter looks at


def can_filter() -> bool:
    return os.uname().machine in _CALLS


def _filter() -> None:
    machine, socket, pair, *keys = _CALLS[os.uname().machine]
    program: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _REFUSE | errno.EPERM),
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, 0, 1, 0x40000000),  # x86's third set of calls
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        (_EQUAL, 0, 1, _IO_URING_SETUP),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
    ]
    for key in keys:
        program += [(_EQUAL, 0, 1, key), (_RETURN, 0, 0, _REFUSE | errno.EPERM)]
    program += [
        (_EQUAL, 0, 3, socket),
        (_LOAD, 0, 0, _FIRST),
        (_EQUAL, 5, 0, 1),  # AF_UNIX
        (_RETURN, 0, 0, _ALLOW),
        (
            _EQUAL,
            0,
            4,
            pair,
        ),  # its streams are what node and Python talk to their children by; datagrams could be sent anywhere
        (_LOAD, 0, 0, _SECOND),
        (_AND, 0, 0, 0xF),
        (_EQUAL, 0, 1, 2),  # SOCK_DGRAM
        (_RETURN, 0, 0, _REFUSE | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    _check("seccomp", _LIBC.prctl(_SET_SECCOMP, 2, head, 0, 0))


def _check(what: str, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


# ---- limits

# Of one process; NPROC beyond what the user runs already. Address space is bounded by what no program needs: node reserves tens of GiB.
_TERABYTE: Final = 2**40
_LIMITS: Final = {
    resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 8192, resource.RLIMIT_FSIZE: 4 * 2**30, resource.RLIMIT_AS: _TERABYTE,
    resource.RLIMIT_DATA: 16 * 2**30,
}  # fmt: skip


def _limit(processes: int) -> None:
    for kind, most in {**_LIMITS, resource.RLIMIT_NPROC: _running() + processes}.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _running() -> int:
    """How many threads our user has, as the kernel counts for NPROC."""
    user, threads = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    threads += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return threads


def _drop_powers() -> None:
    """Root's, from the next program on; others have none to drop."""
    for power in range(64):
        if power not in _KEPT_POWERS:
            _LIBC.prctl(_DROP_FROM_BOUNDS, power, 0, 0, 0)


# ---- watching over it


def _become(order: Order, command: list[str]) -> None:
    """In the child: the agent's program with all its bounds. Does not return."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _check("no_new_privs", _LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _limit(order["processes"])
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _confine(order["read"], order["write"], order["lonely"])
        if order["filtered"]:
            _filter()
        if order["read"] is not None:  # bubblewrap needs them, and drops them itself
            _drop_powers()
        os.execv(command[0], command)
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        os.write(2, f"{COMPLAINT}{reason}\n".encode())
        os._exit(CANNOT)


def _stems_from_us() -> list[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):  # it has just ended
                continue
    found, fresh = set[int](), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return list(found)


def _end_all(patience: float) -> None:
    """Returns when there is nobody left. `patience`: seconds between asking and killing."""
    deadline = time.monotonic() + patience
    if patience:
        _signal(signal.SIGTERM)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if time.monotonic() >= deadline:
            _signal(signal.SIGKILL)
        time.sleep(0.005)


def _signal(number: int) -> None:
    for pid in _stems_from_us():
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _watch(agent: int, wake: int) -> int:
    """The agent's status, once it and all others have ended."""
    poll = select.poll()
    poll.register(0, 0)  # it only hangs up
    poll.register(wake, select.POLLIN)
    while True:
        told = dict(poll.poll())
        signals = os.read(wake, 1024) if wake in told else b""
        if 0 in told or signal.SIGTERM in signals:
            _end_all(_AFTER_TERM)
            return 0
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == agent:
                _end_all(0)
                return status
            if pid == 0:
                break


def main(order: Order, command: list[str]) -> NoReturn:
    _check("subreaper", _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    ready, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    if order["temporary"]:
        os.mkdir(order["temporary"], 0o700)
    agent = os.fork()
    if agent == 0:
        _become(order, command)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # only the agent's own end of these counts
    os.dup2(nowhere, 2)
    status = _watch(agent, ready)
    if order["temporary"]:
        import shutil

        shutil.rmtree(order["temporary"], ignore_errors=True)
    # At once: while Python tidies up, a SIGTERM would change what we say.
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
