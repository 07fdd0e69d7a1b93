"""A proxy inside the test's own process, on real sockets, for tests that break one of its rooms on purpose.

Owns starting and ending it in a thread of its own, its log records, and plain HTTP to it. Everything but that is what a user runs:
the configuration is a file, the provider is called over HTTP.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_proxy.boot import House
from llm_proxy.cli.serve import loop_factory
from llm_proxy.config.reload import Reloader
from llm_proxy.features import Feature
from llm_proxy.option_groups import GROUPS
from llm_proxy.server import lifecycle
from llm_proxy.server.app import Application
from llm_proxy.server.running import Addresses
from tests.server.process import KEY, Answer

_LONGEST = 20.0


class Records(logging.Handler):
    """What the proxy logs. The last line of each exchange, which names its id, comes after everything that rooms do."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._kept: list[logging.LogRecord] = []
        self._ended: set[str] = set()
        self._news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._news:
            if record.name == "llm_proxy.server.exchange" and record.levelno == logging.INFO:
                self._ended.add(str(record.args[0]) if isinstance(record.args, tuple) and record.args else "")
                self._news.notify_all()
            elif record.levelno > logging.INFO:
                self._kept.append(record)

    def wait_for_end(self, request_id: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: request_id in self._ended, _LONGEST), "the exchange did not end"

    def taken(self, level: int) -> list[str]:
        """The messages of that level since the last time, with the last line of their traceback."""
        with self._news:
            kept, self._kept = self._kept, []
        return [_told(record) for record in kept if record.levelno == level]


def _told(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return f"{record.getMessage()} ({error})" if error else record.getMessage()


class InProcess:
    """`rooms` are those of the configuration in force."""

    def __init__(self, house: House, records: Records) -> None:
        self.house = house
        self.records = records
        self._address = house.main.getsockname()[:2]

    @property
    def rooms(self) -> Sequence[Feature]:
        return self.house.gateway.features

    def post(self, path: str, body: bytes, request_id: str, session: str = "") -> Answer:
        """One generating request to its very end; in a session of its own, or in the one named."""
        answer = self._request("POST", path, body, {"x-request-id": request_id, "x-session-id": session or request_id})
        self.records.wait_for_end(request_id)
        return answer

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None, {})

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(*self._address, timeout=_LONGEST)
        headers = {**headers, "content-type": "application/json", "authorization": f"Bearer {KEY}"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        finally:
            connection.close()


async def _serve(house: House) -> lifecycle._Server:
    await house.sessions.start()
    house.open()
    house.running.addresses = Addresses(main=lifecycle.url_of(house.main))
    server = lifecycle._Server(lifecycle._config(Application(house.running)))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[house.main])
    house.running.ready = True
    return server


async def _end(house: House, server: lifecycle._Server) -> None:
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.close()
    await house.close()


@contextmanager
def in_process(folder: Path, config: Mapping[str, Any]) -> Iterator[InProcess]:
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    flags = [
        "--port",
        "0",
        "--anthropic-port",
        "off",
        "--data-dir",
        str(folder),
        "--config",
        str(file),
        "--disable-config-watch",
    ]
    house = House(Reloader(flags, {"LLM_INTERACTIVE_PROXY_API_KEY": KEY}, folder, GROUPS))
    records, logger = Records(), logging.getLogger("llm_proxy")
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    loop = (loop_factory() or asyncio.new_event_loop)()
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(_serve(house), loop).result(_LONGEST)
        try:
            yield InProcess(house, records)
        finally:
            asyncio.run_coroutine_threadsafe(_end(house, server), loop).result(_LONGEST)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_LONGEST)
        loop.close()
        logger.removeHandler(records)
        logger.setLevel(level)
