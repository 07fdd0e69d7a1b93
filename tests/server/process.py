"""A proxy process as a user starts it, and plain HTTP to it.

Owns starting, reading the start lines, and ending by process id. Uses only what a user sees: flags,
environment, standard error, sockets.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.forked import Forked, begin, start

_SOURCE: Final = Path(__file__).resolve().parents[2] / "src"
_LONGEST_START: Final = 30.0
KEY: Final = "key-of-the-tests-0001"


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxy:
    """A running proxy. `banner` is what it had printed when it was ready."""

    child: Forked | subprocess.Popen[bytes]
    printed: Printed
    banner: str
    key: str = KEY

    @property
    def main(self) -> tuple[str, int]:
        return _address(re.search(r"OpenAI tools\s+base URL\s+http://(\S+)/v1\b", self.banner))

    @property
    def anthropic(self) -> tuple[str, int]:
        return _address(re.search(r"/anthropic\s+or\s+http://(\S+)", self.banner))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
        address: tuple[str, int] | None = None,
    ) -> Answer:
        """One request on its own connection. `key`: "" the right one as a bearer token, None none."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key or self.key}")
        host, port = address or self.main
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request(method, path, body, {k: v for k, v in sent.items() if v != ""})
            return _whole(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None, **named: Any) -> Answer:
        return self.request("GET", path, None, headers, **named)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, **named: Any) -> Answer:
        return self.request("POST", path, body, headers, **named)

    def stream(self, path: str, body: Any) -> Stream:
        """Begins a streamed request; returns when the answer's headers are here."""
        connection = http.client.HTTPConnection(*self.main, timeout=10)
        connection.request(
            "POST",
            path,
            json.dumps(body),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        return Stream(connection, connection.getresponse())

    def raw(self, data: bytes, *, address: tuple[str, int] | None = None) -> bytes:
        """Sends bytes as they are; everything that comes back until the proxy closes."""
        with socket.create_connection(address or self.main, timeout=20) as connection:
            connection.sendall(data)
            pieces = []
            while piece := connection.recv(65536):
                pieces.append(piece)
            return b"".join(pieces)

    def send_signal(self, number: int) -> None:
        os.kill(self.child.pid, number)

    def stop(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        """Signals and waits; the exit status."""
        if self.child.poll() is None:
            self.send_signal(number)
        return self.wait(within)

    def wait(self, within: float = 20.0) -> int:
        status = self.child.wait(within)
        self.printed.join(within)
        assert self.child.stdout is not None
        assert self.child.stdout.read() == b"", "nothing may be printed on standard output"
        return status

    @property
    def log(self) -> str:
        """Everything printed on standard error; complete once the process has ended."""
        return self.printed.text


class Printed(threading.Thread):
    """Reads a process's standard error all the time, so that it never waits for a reader."""

    def __init__(self, child: Forked | subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._child = child
        self._bytes = bytearray()
        self._ready = threading.Event()
        self.start()

    def run(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._bytes += line
            if b"stop with Ctrl-C" in line:  # the last start line
                self._ready.set()
        self._ready.set()

    def start_lines(self, within: float) -> str:
        """What was printed up to the last start line, which comes when the ports are open."""
        self._ready.wait(within)
        if "stop with Ctrl-C" not in self.text:
            self._child.kill()
            raise AssertionError(f"the proxy did not start:\n{self.text}")
        return self.text

    @property
    def text(self) -> str:
        return bytes(self._bytes).decode()


class Stream:
    """A streamed answer that a test reads line by line."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status

    def line(self) -> bytes:
        return self._response.readline()

    def rest(self) -> bytes:
        """All that is left. Raises http.client.IncompleteRead when the end was not proper."""
        try:
            return self._response.read()
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def free_pair() -> int:
    """A port that is free together with the next one, outside the range that systems give to clients."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000, 2)
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise AssertionError("no two neighbouring ports are free")


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "llm_proxy", *flags]


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the tester's own set-up: no keys, no files of the home directory."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    return {
        **kept,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "LLM_PROXY_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(_SOURCE),
        **(extra or {}),
    }


def run(
    folder: Path, flags: Sequence[str], extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs to the end, for starts that must fail and commands that print."""
    child = start(flags, folder, environment(folder, extra))
    assert child.stdout is not None and child.stderr is not None
    with child.stdout, child.stderr, ThreadPoolExecutor(2) as readers:
        printed = [readers.submit(stream.read) for stream in (child.stdout, child.stderr)]
        try:
            status = child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        out, err = (one.result() for one in printed)
    return subprocess.CompletedProcess(command(*flags), status, out, err)


@contextmanager
def running(
    folder: Path, *flags: str, env: Mapping[str, str] | None = None, keyed: bool = True, forked: bool = True
) -> Iterator[Proxy]:
    """A proxy on free ports with its own folder, ended with the block. `keyed`: with the tests' key. `forked`: the interpreter and
    the program's modules need not be those of a new start."""
    extra = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY} if keyed else {}
    if "--port" not in flags:
        flags = ("--port", str(free_pair()), *flags)
    child = (start if forked else begin)(flags, folder, environment(folder, {**extra, **(env or {})}))
    printed = Printed(child)
    try:
        proxy = Proxy(child, printed, printed.start_lines(_LONGEST_START))
        if match := re.search(r"client key\s+(llmp-\S+)", proxy.banner):
            proxy.key = match[1]
        yield proxy
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        printed.join(10)
        for stream in (child.stdout, child.stderr):
            assert stream is not None
            stream.close()


def _whole(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def _address(match: re.Match[str] | None) -> tuple[str, int]:
    assert match is not None, "the start lines name no such port"
    host, _, port = match[1].rpartition(":")
    return host.strip("[]"), int(port)
