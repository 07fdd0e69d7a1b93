"""A process that has imported the program once and becomes a proxy as often as it is asked, for a tenth of the work of a start.

Run as a program with the number of its control socket. Owns forking and telling how each proxy ended; `tests.support.forked`
is its other side. It must not run anything of the program itself, and has no thread, no loop and no state that a proxy could inherit.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

MOST = 1 << 20
"""Bytes of one order: arguments and environment."""


def serve(control: socket.socket) -> None:
    """Forks for each order until the other side is gone. An order is one datagram of JSON with standard input, output, error and
    the pipe for news; the news are the process id and, when it has ended, the status as `os.waitpid` gives it."""
    watching: set[int] = set()
    while True:
        data, handed, _, _ = socket.recv_fds(control, MOST, 4)
        if not data:
            break
        watcher = os.fork()
        if watcher == 0:
            control.close()
            _watch(json.loads(data), handed[:3], handed[3])
        watching.add(watcher)
        for number in handed:
            os.close(number)
        while (ended := _reap(os.WNOHANG)) != 0:
            watching.discard(ended)
    # A run that was killed has stopped none of its proxies.
    for watcher in watching:
        os.kill(watcher, signal.SIGTERM)
    while _reap(0):
        pass


def _reap(how: int) -> int:
    """The watcher that has ended; 0: none has, or none is left."""
    try:
        return os.waitpid(-1, how)[0]
    except ChildProcessError:
        return 0


def _watch(order: dict[str, Any], streams: list[int], news: int) -> None:
    """The parent of one proxy; waits for it and never returns. Told to end, it kills the proxy first."""
    pid = os.fork()
    if pid == 0:
        os.close(news)
        _become(order, streams)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGKILL))
    for number in streams:
        os.close(number)
    os.write(news, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        os.write(news, b"%d\n" % status)
    os._exit(0)


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """What the kernel and the interpreter do for `python -m llm_proxy …`; never returns."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["llm_proxy", *order["arguments"]]
    gc.unfreeze()
    from llm_proxy.__main__ import main

    # As the interpreter does at its end, after the program's own clearing up.
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    import atexit

    atexit._run_exitfuncs()
    for out in (sys.stdout, sys.stderr):
        out.flush()
    os._exit(status)


def _import_all() -> None:
    import importlib
    import pkgutil

    import llm_proxy

    for module in pkgutil.walk_packages(llm_proxy.__path__, "llm_proxy."):
        if module.name != "llm_proxy.__main__":
            importlib.import_module(module.name)
    assert threading.active_count() == 1, "a thread does not survive a fork"


if __name__ == "__main__":
    # Ctrl-C in a terminal is for the run of the tests, which ends this process by closing the socket.
    held = signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_all()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, held)
    serve(socket.socket(fileno=int(sys.argv[1])))
