"""RT-12: a session's own server for OpenAI calls; S-01 and S-02 with a canary key and a listener on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llm_proxy.backends.base import Call, Redirect
from llm_proxy.backends.http import HttpBackend
from llm_proxy.backends.transport import Resolver, Transport
from llm_proxy.config.options import OptionGroup
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.routing.options import ChoiceOptions, check_origin
from llm_proxy.routing.redirect import redirect_to, refusal
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import parse_origin
from tests.backends.settings import backend_settings
from tests.backends.test_origins import NEVER, SPELLINGS, spelled
from tests.support.upstream import Reply, Upstream

CANARY = "sk-canary-0123456789abcdef"
OWN_KEY = "sk-of-the-client-42"
OPENAI = parse_origin("https://api.openai.com")

LOOPBACK = [
    "http://127.0.0.1:9/",
    "http://localhost:1234/v1",
    "http://LOCALHOST.:1/v1",
    "http://a.localhost/",
    "http://[::1]:9/v1",
]
PRIVATE = [
    "http://10.0.0.1/v1",
    "http://192.168.1.9:8080",
    "http://172.16.0.1/",
    "http://100.64.0.1/",
    "http://[fd00::1]/v1",
]
INSIDE = [*LOOPBACK, *PRIVATE, "http://[::ffff:127.0.0.1]:9/v1", "http://[64:ff9b::7f00:1]/"]
REFUSED_TO_ALL = [f"http://[{address}]/v1" if ":" in address else f"http://{address}/v1" for address in NEVER]


def redirected(url: str, **changes: Any) -> Redirect:
    given: dict[str, Any] = {"allowed": (), "local": True, "credential": None, "configured": OPENAI, **changes}
    return redirect_to(url, **given)


# The decision


@pytest.mark.parametrize("url", ["https://models.example/v1", "http://models.example:8080", "http://8.8.8.8/v1"])
@pytest.mark.parametrize("local", [True, False])
def test_a_public_server_may_be_chosen_by_everybody_and_gets_no_stored_key(url: str, local: bool) -> None:
    assert refusal(url, allowed=(), local=local) == ""
    redirect = redirected(url, local=local)
    assert redirect == Redirect(base_url=url, policy="local" if local else "public")


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "", "/v1", "//x/v1", "file:///etc/passwd", "http:x", "javascript:alert(1)"]
)
def test_another_scheme_is_refused_and_the_reply_names_http_and_https(url: str) -> None:
    why = refusal(url, allowed=(), local=True)
    assert "http" in why and "https" in why


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///v1",
        "https://user@models.example/v1",
        "https://user:pass-word@models.example/v1",
        "https://models.example/v1#fragment",
        "https://models.example/v1?key=1",
        "https://models.example\\@evil.test/",
        "https://models.example/v1\r\nx: y",
        "https://models.example:99999/v1",
    ],
)
def test_user_info_fragments_and_ambiguous_spellings_are_refused_without_repeating_them(url: str) -> None:
    why = refusal(url, allowed=("https://models.example",), local=True)
    assert why
    assert "pass-word" not in why and "evil" not in why


@pytest.mark.parametrize("url", INSIDE)
def test_loopback_and_private_addresses_are_for_clients_on_this_machine(url: str) -> None:
    assert refusal(url, allowed=(), local=True) == ""
    assert redirected(url).policy == "local"
    assert "allowed_redirect_origins" in refusal(url, allowed=(), local=False)
    with pytest.raises(FaultError) as caught:
        redirected(url, local=False)
    assert caught.value.fault.kind == "permission"
    assert url not in caught.value.fault.message


def test_a_listed_origin_is_for_everybody_and_gets_the_stored_key() -> None:
    """A client at 10.0.0.5 and http://127.0.0.1:9/: refused; listed in allowed_redirect_origins, accepted."""
    url = "http://127.0.0.1:9/"
    assert refusal(url, allowed=(), local=False)
    assert refusal(url, allowed=("http://127.0.0.1:9",), local=False) == ""
    redirect = redirected(url, allowed=("http://127.0.0.1:9",), local=False)
    assert (redirect.policy, redirect.keep_key) == ("local", True)


@pytest.mark.parametrize(
    "listed", ["http://127.0.0.1:10", "https://127.0.0.1:9", "http://localhost:9", "http://127.0.0.1"]
)
def test_scheme_host_and_port_of_a_listed_origin_all_count(listed: str) -> None:
    assert refusal("http://127.0.0.1:9/", allowed=(listed,), local=False)
    assert not redirected("http://127.0.0.1:9/", allowed=(listed,)).keep_key


@pytest.mark.parametrize("url", REFUSED_TO_ALL)
def test_link_local_and_metadata_addresses_are_refused_to_all_even_when_listed(url: str) -> None:
    origin = url.removesuffix("/v1")
    assert refusal(url, allowed=(), local=True)
    assert refusal(url, allowed=(origin,), local=True)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost:8000", "http://[::1]:8000/v1", "http://10.0.0.7:8001"]
)
def test_the_proxys_own_listeners_are_refused_even_when_listed(url: str) -> None:
    own = [("127.0.0.1", 8000), ("::", 8000), ("10.0.0.7", 8001)]
    origin = url.removesuffix("/v1")
    assert "proxy itself" in refusal(url, allowed=(origin,), local=True, own=own)
    assert refusal("http://127.0.0.1:9999/v1", allowed=(), local=True, own=own) == ""


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "HTTPS://API.openai.com:443/other", "https://api.openai.com./v1"]
)
def test_the_configured_origin_keeps_its_key_on_any_path(url: str) -> None:
    assert redirected(url).keep_key


@pytest.mark.parametrize("value", ["sk-ä", "a\nb", "a\x00"])
def test_a_client_key_that_cannot_stand_in_a_header_is_the_clients_fault(value: str) -> None:
    with pytest.raises(FaultError) as caught:
        redirected("https://models.example", credential=Secret(value))
    assert caught.value.fault.kind == "bad_request"
    assert value not in caught.value.fault.message


@pytest.mark.parametrize("origin", ["http://localhost:1234", "https://models.example", "http://[::1]:9"])
def test_an_origin_of_the_list_is_checked_when_it_is_configured(origin: str) -> None:
    assert check_origin(origin) is None


@pytest.mark.parametrize("origin", ["localhost:1234", "http://x/v1", "ftp://x", "https://u:p@x", "*", "https://x#y"])
def test_what_is_no_origin_is_a_configuration_error(origin: str) -> None:
    assert "http" in (check_origin(origin) or "")


def test_the_list_is_one_option_with_flag_and_variable() -> None:
    group: type[OptionGroup] = ChoiceOptions
    declared = next(option for option in group.options if option.name == "allowed_redirect_origins")
    assert declared.path == "allowed_redirect_origins"
    assert declared.flags == ("--allowed-redirect-origin",)
    assert declared.env == ("ALLOWED_REDIRECT_ORIGINS",)
    assert declared.repeatable


# The call


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def make(resolver: Resolver | None = None, **more: Any) -> Transport:
        made.append(Transport(environ={}, resolver=resolver, **more))
        return made[-1]

    yield make
    for transport in made:
        await transport.close()


def openai(transport: Transport, *keys: str, **members: Any) -> HttpBackend:
    members = {"connect_timeout": 0.3, **members}  # some spellings speak TLS to a server that does not
    settings = backend_settings("openai", "openai", *(keys or (CANARY,)), **members)
    return HttpBackend(settings, transport, clock=lambda: 0.0)


async def call(backend: HttpBackend, redirect: Redirect | None) -> None:
    key = backend.keys[0]
    response = await backend.open(Call(dialect="openai-chat", model="m", body=b"{}", key=key, redirect=redirect))
    await response.read()
    response.close()


def _secrets_in(upstream: Upstream) -> list[str]:
    return [
        f"{name}: {value}"
        for request in upstream.requests
        for name, value in request.headers
        if CANARY in value or name.lower() in ("authorization", "x-api-key", "x-llm-proxy-upstream-key")
    ]


async def test_the_next_call_goes_there_without_an_authorization_header(build: Callable[..., Transport]) -> None:
    async with Upstream(Reply.json({})) as local:
        await call(openai(build()), redirected(f"{local.url}/v1"))
        assert local.requests[-1].target == "/v1/chat/completions"
        assert local.requests[-1].header("authorization") is None


async def test_a_listed_origin_is_sent_the_stored_key(build: Callable[..., Transport]) -> None:
    async with Upstream(Reply.json({})) as local:
        await call(openai(build()), redirected(f"{local.url}/v1", allowed=(local.url,)))
        assert local.requests[-1].header("authorization") == f"Bearer {CANARY}"


async def test_the_clients_own_key_is_sent_as_a_bearer_token(build: Callable[..., Transport]) -> None:
    async with Upstream(Reply.json({})) as local:
        await call(openai(build()), redirected(f"{local.url}/v1", credential=Secret(OWN_KEY)))
        assert _secrets_in(local) == [f"authorization: Bearer {OWN_KEY}"]


async def test_credentials_among_the_configured_headers_follow_the_same_rule(build: Callable[..., Transport]) -> None:
    members = {"headers": {"Authorization": f"Basic {CANARY}", "OpenAI-Organization": CANARY}, "no_auth": True}
    async with Upstream(Reply.json({})) as chosen:
        backend = openai(build(), **members)
        await call(backend, redirected(f"{chosen.url}/v1"))
        assert _secrets_in(chosen) == []
        await call(backend, redirected(f"{chosen.url}/v1", allowed=(chosen.url,)))
        assert chosen.requests[-1].header("authorization") == f"Basic {CANARY}"


async def test_a_listed_server_without_a_stored_key_gets_the_clients(build: Callable[..., Transport]) -> None:
    async with Upstream(Reply.json({})) as chosen:
        backend = openai(build(), no_auth=True)
        await call(backend, redirected(chosen.url, allowed=(chosen.url,), credential=Secret(OWN_KEY)))
        assert chosen.requests[-1].header("authorization") == f"Bearer {OWN_KEY}"


async def test_redirects_of_the_chosen_server_are_not_followed(build: Callable[..., Transport]) -> None:
    async with Upstream(Reply.json({})) as second:
        async with Upstream(Reply(status=307, headers=[("location", second.url)])) as first:
            with pytest.raises(FaultError):
                await call(openai(build()), redirected(first.url, allowed=(first.url,)))
        assert second.opened == 0


async def test_no_spelling_brings_the_stored_key_to_another_server(build: Callable[..., Transport]) -> None:
    """S-01: every name leads to the listener, and the client is on this machine, so that only the binding of the key protects it."""
    reached = 0
    async with Upstream(Reply.json({})) as evil:
        backend = openai(build(lambda _: ["127.0.0.1"]))
        for text in SPELLINGS:
            url = spelled(text, evil.port)
            if refusal(url, allowed=(), local=True):
                with pytest.raises(FaultError):
                    redirected(url)
                continue
            redirect = redirected(url)
            if redirect.keep_key:
                assert url.lower().startswith(("https://api.openai.com/@", "https://api.openai.com?@")), url
                continue
            try:
                await call(backend, redirect)
                reached += 1
            except FaultError:
                pass
        assert reached > 5  # plain spellings do reach it, without the key
        assert len(evil.requests) >= reached
        assert _secrets_in(evil) == []


async def test_a_remote_client_reaches_nothing_inside_however_it_is_spelled(build: Callable[..., Transport]) -> None:
    """S-02: what is not refused by its spelling is refused when its name is resolved."""
    async with Upstream(Reply.json({})) as inside:
        backend = openai(build(lambda _: ["127.0.0.1"]))
        for text in SPELLINGS:
            url = spelled(text, inside.port)
            if refusal(url, allowed=(), local=False):
                continue
            redirect = redirected(url, local=False)
            if redirect.keep_key:
                continue
            with pytest.raises(FaultError) as caught:
                await call(backend, redirect)
            assert caught.value.fault.kind == "permission", url
        assert inside.opened == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "ours.test"])
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
async def test_our_own_listener_is_refused_at_the_moment_of_connecting(
    build: Callable[..., Transport], host: str, bound: str
) -> None:
    async with Upstream(Reply.json({})) as ourselves:
        transport = build(
            lambda name: ["127.0.0.1"] if name in ("localhost", "ours.test") else [name],
            own_addresses=lambda: [(bound, ourselves.port)],
        )
        url = f"http://{host}:{ourselves.port}/v1"
        with pytest.raises(FaultError) as caught:
            await call(openai(transport), redirected(url, allowed=(f"http://{host}:{ourselves.port}",)))
        assert caught.value.fault.kind == "permission"
        assert ourselves.opened == 0


# What is known of the model there


def test_nothing_is_known_of_a_chosen_server_and_what_it_teaches_stays_its_own(build: Callable[..., Transport]) -> None:
    backend = openai(build())
    there = Redirect(base_url="http://localhost:1234/v1", policy="local")
    same = Redirect(base_url="https://api.openai.com/v1", policy="local")
    assert backend.dialect_for("openai-responses") == "openai-responses"
    assert backend.dialect_for("openai-responses", same) == "openai-responses"
    assert backend.dialect_for("openai-responses", there) == "openai-chat"
    assert backend.capabilities("my-model", "openai-chat", there).limit_field == "max_tokens"
    assert backend.capabilities("my-model", "openai-chat").limit_field == "max_completion_tokens"
    message = "Unsupported parameter: 'temperature' is not supported with this model."
    fault = Fault(kind="bad_request", message=message, status=400, param="temperature")
    assert backend.learn("my-model", "openai-chat", fault, there)
    assert backend.capabilities("my-model", "openai-chat", there).sampling == "none"
    assert backend.capabilities("my-model", "openai-chat").sampling == "all"
