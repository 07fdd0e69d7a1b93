"""What a start does with an address, authentication and keys: all twelve combinations (OPS-01, S-15), as docs/access.md tells them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.server.process import KEY, Answer, Proxy, running
from tests.server.test_paths import CHAT

TOKEN = "token-of-the-tests-0001"
GIVEN = {"a key": {"LLM_INTERACTIVE_PROXY_API_KEY": KEY}, "a token": {"AUTH_TOKEN": TOKEN}, "nothing": {}}


def _ask(proxy: Proxy, key: str | None) -> Answer:
    return proxy.post("/v1/chat/completions", CHAT, key=key, address=("127.0.0.1", proxy.main[1]))


def _listens_everywhere(proxy: Proxy) -> bool:
    """127.0.0.2 is answered by a socket that is bound to every address only."""
    try:
        socket.create_connection(("127.0.0.2", proxy.main[1]), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("given", list(GIVEN))
@pytest.mark.parametrize("flags", [(), ("--disable-auth",)], ids=["auth", "no-auth"])
@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_a_start(tmp_path: Path, bind: str, flags: tuple[str, ...], given: str) -> None:
    log = tmp_path / "proxy.log"
    with running(tmp_path, "--host", bind, "--log", str(log), *flags, env=GIVEN[given], keyed=False) as proxy:
        made = proxy.key if proxy.key != KEY else ""
        if flags:
            assert not made
            assert {_ask(proxy, key).status for key in (None, KEY, "wrong")} == {200}
            assert not _listens_everywhere(proxy)
            assert ("listens on 127.0.0.1 instead of 0.0.0.0" in proxy.banner) == (bind == "0.0.0.0")
        else:
            right = {"a key": KEY, "a token": TOKEN, "nothing": made}[given]
            assert bool(made) == (given == "nothing")
            assert (
                proxy.banner.count(f"client key                 {made}") == 1 if made else "llmp-" not in proxy.banner
            )
            assert _ask(proxy, right).status == 200
            assert _ask(proxy, None).status == 401
            assert _ask(proxy, "wrong").status == 401
            assert _listens_everywhere(proxy) == (bind == "0.0.0.0")
        assert proxy.stop() == 0
        text = log.read_text()
    assert ("unless TLS is in front" in text) == (bind == "0.0.0.0" and not flags)
    assert "llmp-" not in text
