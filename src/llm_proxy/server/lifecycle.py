"""Start and stop: sockets, the two servers, signals, the grace for open streams (OPS-17).

First SIGTERM or SIGINT: not ready, nothing new is begun, open answers get their grace, then an in-protocol
error. While they run the ports stay open, so that a supervisor reads "draining" and a client a clean 503 with
Retry-After instead of a refused connection. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import cast

import uvicorn

from llm_proxy.conversation.fault import Fault
from llm_proxy.server import spare_memory
from llm_proxy.server.app import Application
from llm_proxy.server.edge import IDLE_SECONDS, GuardedEdge, edge_protocol
from llm_proxy.server.running import Addresses, Running

_LOG = logging.getLogger(__name__)
_STOPPING = Fault(
    kind="unavailable",
    message="the proxy was stopped before the answer was complete",
    side="proxy",
    retry_after=1,
)


_LAST_WORDS = 1.0  # seconds for the error that ends an open answer to reach its client
_LAST_REQUESTS = 0.2  # seconds for the requests of those who had just connected, who are told to come back
_GIVE_BACK_EVERY = 10.0  # seconds


class PortInUse(Exception):
    """The main port is taken: exit status 3."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortInUse, OSError for an address that is not this machine's."""
    host = host.strip().removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only when the protocol is named.
    server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it: a reader that stops costs no more kernel memory than this.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
    try:
        server.bind((host, port))
        server.listen(4096)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"{host}:{port} is in use; choose another port with --port, or --port 0 for any") from None
        raise
    server.setblocking(False)
    return server


def url_of(server: socket.socket) -> str:
    host, port = server.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the lifecycle owns signals."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _config(app: Application) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=edge_protocol(app.crowd),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_keep_alive=int(IDLE_SECONDS),
    )


def _connections(servers: list[_Server]) -> list[GuardedEdge]:
    return [cast(GuardedEdge, one) for server in servers for one in server.server_state.connections]


def _is_busy(servers: list[_Server]) -> bool:
    return any(server.server_state.tasks for server in servers)


def _is_awaiting(servers: list[_Server]) -> bool:
    return any(connection.awaited for connection in _connections(servers))


class Lifecycle:
    """Runs the servers until a signal ends them."""

    def __init__(
        self,
        running: Running,
        main: socket.socket,
        anthropic: socket.socket | None,
        announce: Callable[[], None],
        close: Callable[[], object],
    ) -> None:
        self._running = running
        self._sockets = [(main, False), *([(anthropic, True)] if anthropic is not None else [])]
        self._announce = announce
        self._close = close
        self._signals = 0
        self._reloads: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        running.addresses = Addresses(main=url_of(main), anthropic=url_of(anthropic) if anthropic else "")

    async def run(self) -> None:
        spare_memory.settle()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._signalled)
            except NotImplementedError:
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._signalled))
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        servers = [_Server(_config(Application(self._running, special))) for _, special in self._sockets]
        for server, (listening, _) in zip(servers, self._sockets, strict=True):
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[listening])
        self._running.ready = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 5, 10)  # requests leave no circles behind
        self._announce()
        tickers = [loop.create_task(server.main_loop()) for server in servers]
        tickers.append(loop.create_task(self._give_back_memory()))
        await self._stop.wait()
        await self._drain(servers)
        for ticker in tickers:
            ticker.cancel()
        result = self._close()
        if asyncio.iscoroutine(result):
            await result

    async def _give_back_memory(self) -> None:
        gateway = self._running.gateway
        while True:
            await asyncio.sleep(_GIVE_BACK_EVERY)
            if gateway is not self._running.gateway:  # a reload leaves circles of objects behind
                gateway = self._running.gateway
                gc.collect()
            await asyncio.to_thread(spare_memory.give_back)

    def _reload(self) -> None:
        for reopen in self._running.on_hangup:
            reopen()
        task = asyncio.get_running_loop().create_task(self._running.reload_quietly())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _signalled(self) -> None:
        self._signals += 1
        self._running.draining = True
        self._stop.set()
        if self._signals > 1:
            self._at_once.set()

    async def _drain(self, servers: list[_Server]) -> None:
        running = self._running
        grace = running.gateway.limits.shutdown_grace
        for connection in _connections(servers):
            if connection.answering:
                connection.shutdown()  # the others are told when they ask
        if running.active and not self._at_once.is_set():
            _LOG.info("stopping: %d open answers have %g s", len(running.active), grace)
        await self._wait_while(lambda: _is_busy(servers), grace)
        await asyncio.sleep(0)  # who is connected already is accepted, and answered
        for server in servers:
            for listening in server.servers:
                listening.close()
        for exchange in list(running.active):
            exchange.interrupt(_STOPPING)
        await self._wait_while(lambda: _is_busy(servers), _LAST_WORDS)
        await self._wait_while(lambda: _is_busy(servers) or _is_awaiting(servers), _LAST_REQUESTS)
        for connection in _connections(servers):
            connection.transport.close()
        for server in servers:
            server.should_exit = True

    async def _wait_while(self, holds: Callable[[], bool], most: float) -> None:
        """As long as `holds()`, at most `most` seconds, or until a second signal."""
        deadline = asyncio.get_running_loop().time() + most
        while holds() and not self._at_once.is_set():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(0.05, left)):
                    await self._at_once.wait()
