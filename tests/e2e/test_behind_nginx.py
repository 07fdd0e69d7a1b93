"""A real nginx in front, set up as docs/access.md says: two users are two, nobody is whom he claims to be, streams are not held back."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import KEY, Proxy, free_pair, running
from tests.server.test_paths import CHAT
from tests.support.upstream import Pause, Reply, Send, upstream_in_thread

NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "access.md"
ANNE: Final = "127.0.0.2"
BERT: Final = "127.0.0.3"
_SECONDS: Final = 10

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def _can_be(address: str) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


needs_addresses = pytest.mark.skipif(
    not (_can_be(ANNE) and _can_be(BERT)), reason="this system gives a process one loopback address only"
)


def configuration(folder: Path, port: int, proxy_port: int) -> str:
    """The page's own server block, on other ports and without certificates."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    server = re.sub(r"\n\s*ssl_certificate.*", "", found[1])
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    assert "127.0.0.1:8000" in server
    server = server.replace("127.0.0.1:8000", f"127.0.0.1:{proxy_port}")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{server}\n}}\n"
    )


@dataclass
class House:
    """The proxy, and the port at which nginx answers for it."""

    proxy: Proxy
    port: int

    def ask(self, user: str, key: str | None, claims: str = "", path: str = "/v1/models") -> int:
        """The status of a request that comes from address `user` to nginx."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS, source_address=(user, 0))
        headers = {"Host": "llm.example"} | ({"Authorization": f"Bearer {key}"} if key else {})
        headers |= {"X-Forwarded-For": claims} if claims else {}
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


@contextmanager
def behind_nginx(folder: Path, *flags: str, config: dict[str, Any] | None = None) -> Iterator[House]:
    assert NGINX is not None
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    with running(folder, "--trusted-proxy", "127.0.0.1", "--allowed-host", "llm.example", *flags) as proxy:
        port = free_pair()
        file = folder / "nginx.conf"
        file.write_text(configuration(folder, port, proxy.main[1]))
        server = subprocess.Popen(
            [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_for(port, server, folder)
            yield House(proxy, port)
        finally:
            server.terminate()
            server.wait(_SECONDS)


def _wait_for(port: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    last = time.monotonic() + _SECONDS
    while time.monotonic() < last and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)  # another program's start has no other sign
    raise AssertionError(f"nginx did not start: {(folder / 'error.log').read_text()}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("nginx")
    with behind_nginx(folder, "--trusted-ip", "127.0.0.4") as found:
        yield found


@needs_addresses
def test_two_users_behind_it_are_two(house: House) -> None:
    for number in range(5):
        assert house.ask(ANNE, f"guess-{number}") == 401
    assert house.ask(ANNE, "guess-6") == 429
    assert house.ask(ANNE, "guess-7", claims=BERT) == 429, "a claim of her own changes nothing"
    assert house.ask(ANNE, "guess-8", claims="203.0.113.5, 198.51.100.7") == 429
    assert house.ask(BERT, "guess-9") == 401
    assert house.ask(BERT, KEY) == 200


@needs_addresses
def test_only_who_comes_from_a_trusted_address_needs_no_key(house: House) -> None:
    assert house.ask("127.0.0.4", None) == 200
    assert house.ask(BERT, None) == 401
    assert house.ask(BERT, None, claims="127.0.0.4") == 401
    assert house.ask("127.0.0.4", None, claims="garbage, unknown, 203.0.113.5") == 200
    # nginx's own address is the proxy's, and lets nobody in.
    assert house.ask("127.0.0.1", None) == 401
    # Who goes past nginx is whom he connects as.
    past = House(house.proxy, house.proxy.main[1])
    assert past.ask(BERT, None, claims="127.0.0.4") == 401


def _chunk(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def test_a_stream_is_not_held_back(tmp_path: Path) -> None:
    """Events leave one by one, and nginx buffers by default; generous, since other work shares the machine."""
    steps: list[Any] = []
    for number in range(8):
        steps += [Send(_chunk(f"word-{number} ")), Pause(0.15)]
    steps += [Send(_chunk("", "stop")), Send(b"data: [DONE]\n\n")]
    with upstream_in_thread(Reply.sse(*steps)) as upstream:
        back_end = {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True}
        with behind_nginx(tmp_path, "--config", "config.json", config={"backends": {"up": back_end}}) as house:
            connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=_SECONDS)
            body = json.dumps({**CHAT, "model": "up:m", "stream": True})
            headers = {"Host": "llm.example", "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            assert answer.status == 200
            arrived: list[float] = []
            for line in iter(answer.readline, b""):
                if b"word-" in line:
                    arrived.append(time.monotonic())
            connection.close()
    assert len(arrived) == 8
    between = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert arrived[-1] - arrived[0] > 0.15 * 7 * 0.8, "held back, they would come together"
    assert sorted(between)[len(between) // 2] > 0.1, between
