"""Symptoms of keys, addresses and connections: what the proxy says before, or instead of, an answer of a provider."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.e2e.asking import body_of, say, started
from tests.e2e.house import in_process
from tests.e2e.keeping import until
from tests.e2e.symptoms import CHAT, GUEST, Proxies, seen, symptom
from tests.support.upstream import Hang, Received, Reply, Reset, Script, upstream_in_thread

DEMO = body_of("openai-chat", "up-chat:m")


def refusing(status: int, message: str, **headers: str) -> Any:
    body = {"error": {"message": message, "type": "x", "code": None}}
    return lambda _: Reply.json(body, status=status, headers=tuple(headers.items()))


# Authentication


@symptom("No client key")
def no_key(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.post(CHAT, DEMO, key=None))


@symptom("A wrong client key")
def wrong_key(proxies: Proxies) -> str:
    proxy = proxies.scene.proxy
    return seen(proxy.post(CHAT, DEMO, key="wrong")) + seen(proxy.post(CHAT, DEMO, {"Authorization": "Basic eDp5"}))


@symptom("An address is blocked after wrong keys")
def blocked(proxies: Proxies) -> str:
    proxy = proxies.locked
    for _ in range(5):
        proxy.post(CHAT, DEMO, key="wrong")
    answer = proxy.post(CHAT, DEMO, key="wrong")
    assert proxy.get("/v1/models").status == 200, "on loopback a right key ends the block"
    return seen(answer)


@symptom("The Host name is refused")
def host(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.get("/v1/models", {"Host": "llm.example"}))


@symptom("A web page may not call the proxy")
def origin(proxies: Proxies) -> str:
    proxy = proxies.scene.proxy
    foreign = seen(proxy.get("/v1/models", {"Origin": "https://chat.example"}))
    return foreign + seen(proxy.get("/v1/models", {"Sec-Fetch-Site": "cross-site"}))


@symptom("The body has the wrong content type")
def content_type(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.post(CHAT, b"{}", {"Content-Type": "text/plain"}))


@symptom("A page is for the operator only")
def operators_page(proxies: Proxies) -> str:
    pages = [proxies.locked.get(path, key=GUEST) for path in ("/internal/config", "/audit/logs")]
    return "".join(map(seen, pages))


@symptom("The provider refuses the proxy's key")
def credentials(proxies: Proxies) -> str:
    return proxies.ask("dealt:m", refusing(401, "bad key"))


@symptom("A back end has no key")
def keyless(proxies: Proxies) -> str:
    return proxies.ask("keyless:m")


@symptom("A back end has no login")
def no_login(proxies: Proxies) -> str:
    return proxies.ask("chatgpt:m")


# Connections


@symptom("An address is not found")
def path(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.post("/v1/chat/completion", DEMO))


@symptom("An address takes another method")
def method(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.get(CHAT))


@symptom("A client tries a WebSocket")
def websocket(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.get("/v1/responses", {"Connection": "Upgrade", "Upgrade": "websocket"}))


@symptom("A model or back end is not known")
def unknown_model(proxies: Proxies) -> str:
    missing = proxies.ask("route:coding") + seen(proxies.scene.proxy.get("/v1/models/up-chat:gone"))
    return missing + proxies.ask("up-chat:m", refusing(404, "The model `m` does not exist"))


@symptom("The provider's name is not found")
def dns(proxies: Proxies) -> str:
    return proxies.ask("nameless:m")


@symptom("The connection is refused")
def refused(proxies: Proxies) -> str:
    return proxies.ask("closed:m")


@symptom("The provider's certificate is not trusted")
def certificate(proxies: Proxies) -> str:
    return proxies.ask("secure:m")


@symptom("The HTTP proxy on the way out does not answer")
def http_proxy(proxies: Proxies) -> str:
    return seen(proxies.broken.post(CHAT, body_of("openai-chat", "outside:m")))


@symptom("The provider closes the connection")
def reset(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", lambda _: Reply(before=(Reset(),)))


@symptom("The provider answers with nonsense")
def nonsense(proxies: Proxies) -> str:
    page = Reply(body=b"<html>Welcome</html>", headers=(("content-type", "text/html"),))
    return proxies.ask("up-chat:m", lambda _: page)


@symptom("The provider is silent for too long")
def silence(proxies: Proxies) -> str:
    return proxies.ask("hasty:m", lambda _: Reply(before=(Hang(),)))


@symptom("The provider wants to be paid")
def billing(proxies: Proxies) -> str:
    error = {"type": "error", "error": {"type": "billing_error", "message": "Your credit is used up"}}
    return proxies.ask("unpaid:m", lambda _: Reply.json(error, status=402))


@symptom("All keys of a back end rest")
def resting(proxies: Proxies) -> str:
    first = proxies.ask("resting:m", refusing(429, "slow down", **{"retry-after": "60"}))
    return first + proxies.ask("resting:m")


@symptom("A request goes round in circles")
def circle(proxies: Proxies) -> str:
    return proxies.ask("circle:circle:m")


# Streaming


@symptom("A stream ends with an error")
def broken_stream(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", cut_short, stream=True)


def cut_short(request: Received) -> Reply:
    reply = say(request)
    assert reply.steps is not None
    return Reply(headers=reply.headers, steps=(*reply.steps[:2], Reset()))


@symptom("A stream ends when the proxy is stopped")
def stopped(proxies: Proxies) -> str:
    def begins(request: Received) -> Reply:
        reply = say(request)
        assert reply.steps is not None
        return Reply(headers=reply.headers, steps=(*reply.steps[:2], Hang()))

    return stop_during(begins)


def stop_during(script: Script) -> str:
    with upstream_in_thread(script) as upstream:
        config = {"backends": {"up": {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True}}}
        with started("--shutdown-grace", "0.1", config=config) as proxy:
            stream = proxy.stream(CHAT, body_of("openai-chat", "up:m", True))
            first = stream.line()
            proxy.send_signal(signal.SIGTERM)
            rest = stream.rest().decode()
            until(lambda: proxy.child.poll() is not None, "the end")
    return first.decode() + "\n".join([rest, *(json.dumps(line) for line in rest.splitlines())])


# Limits


@symptom("A configured rate limit is reached")
def rate_limit(proxies: Proxies) -> str:
    proxies.ask("limited:m")
    return proxies.ask("limited:m")


@symptom("The input is longer than the model takes")
def context(proxies: Proxies) -> str:
    words = "the quick brown fox jumps " * 60
    total = proxies.ask("up-chat:windowed", said=words, max_tokens=900)
    return proxies.ask("up-chat:small", said=words) + total


@symptom("The body is too large")
def too_large(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", said="x" * 210_000)


@symptom("The proxy has too much to do")
def overloaded(proxies: Proxies) -> str:
    folder = proxies.folder / "overloaded"
    folder.mkdir(exist_ok=True)
    with in_process(folder, {"backends": {"demo": {"type": "demo"}}}) as proxy:
        proxy.house.running.admission.most = 0
        return seen(proxy._request("POST", CHAT, json.dumps(DEMO).encode(), {}))
