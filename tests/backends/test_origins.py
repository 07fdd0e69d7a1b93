"""S-01, S-02: a key reaches its own origin only, and addresses chosen by clients never reach inside."""

from __future__ import annotations

import pytest

from llm_proxy.backends.transport import AddressPolicy, Credential, Endpoint, Transport, endpoint
from llm_proxy.conversation.fault import FaultError
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.secrets import Secret
from tests.support.upstream import Reply, Upstream

CANARY = "sk-canary-0123456789abcdef"
HOME = endpoint("https://api.openai.com/v1/chat/completions").origin

# Each leads to the listener in the reading of some parser; EVIL is its port.
SPELLINGS = """
http://127.0.0.1:EVIL/v1
http://127.0.0.1:EVIL
http://127.0.0.1:EVIL/
http://127.0.0.1:EVIL/v1/../v1
http://127.0.0.1:EVIL/%2e%2e/v1
http://127.0.0.1.:EVIL/v1
http://LOCALHOST:EVIL/v1
http://localhost:EVIL/v1
http://localhost.:EVIL/v1
http://evil.test:EVIL/v1
http://EVIL.TEST:EVIL/v1
http://api.openai.com:EVIL/v1
http://API.OPENAI.COM:EVIL/v1
http://api.openai.com.:EVIL/v1
http://api.openai.com.evil.test:EVIL/v1
http://evil.test:EVIL/api.openai.com
http://evil.test:EVIL/https://api.openai.com/v1
http://api.openai.com@127.0.0.1:EVIL/v1
https://api.openai.com@127.0.0.1:EVIL/v1
https://api.openai.com:443@127.0.0.1:EVIL/v1
https://api.openai.com%40127.0.0.1:EVIL/v1
https://api.openai.com%2f@127.0.0.1:EVIL/v1
https://api.openai.com/@127.0.0.1:EVIL/v1
https://api.openai.com\\@127.0.0.1:EVIL/v1
https://api.openai.com\\.evil.test:EVIL/v1
http://127.0.0.1:EVIL\\@api.openai.com/v1
http://127.0.0.1:EVIL#@api.openai.com/v1
http://127.0.0.1:EVIL?@api.openai.com/v1
http://127.0.0.1:EVIL;@api.openai.com/v1
https://api.openai.com#@127.0.0.1:EVIL/v1
https://api.openai.com?@127.0.0.1:EVIL/v1
https://api.openai.com;@127.0.0.1:EVIL/v1
//127.0.0.1:EVIL/v1
///127.0.0.1:EVIL/v1
/v1
127.0.0.1:EVIL/v1
http:127.0.0.1:EVIL/v1
http:/127.0.0.1:EVIL/v1
http:///127.0.0.1:EVIL/v1
http:////127.0.0.1:EVIL/v1
http:\\\\127.0.0.1:EVIL/v1
HTTP://127.0.0.1:EVIL/v1
hTTp://127.0.0.1:EVIL/v1
 http://127.0.0.1:EVIL/v1
http://127.0.0.1:EVIL/v1\\t
http://127.0.0.1\\t:EVIL/v1
http://127.0.0.1\\n:EVIL/v1
http://127.0.0.1\\x00.api.openai.com:EVIL/v1
http://127.1:EVIL/v1
http://127.0.1:EVIL/v1
http://2130706433:EVIL/v1
http://0x7f000001:EVIL/v1
http://0x7f.0.0.1:EVIL/v1
http://0177.0.0.1:EVIL/v1
http://017700000001:EVIL/v1
http://127.0.0.1:0EVIL/v1
http://127.0.0.1:+EVIL/v1
http://[::ffff:127.0.0.1]:EVIL/v1
http://[::ffff:7f00:1]:EVIL/v1
http://[::1]:EVIL/v1
http://[::1%25lo]:EVIL/v1
http://[::1%lo]:EVIL/v1
http://0.0.0.0:EVIL/v1
http://0:EVIL/v1
http://①②⑦.0.0.1:EVIL/v1
http://127。0。0。1:EVIL/v1
http://ａｐｉ.openai.com:EVIL/v1
http://аpi.openai.com:EVIL/v1
http://api%2eopenai%2ecom:EVIL/v1
http://127.0.0.1:EVIL/v1?base_url=https://api.openai.com
http://user:pass@127.0.0.1:EVIL/v1
http://:@127.0.0.1:EVIL/v1
http://@127.0.0.1:EVIL/v1
ftp://127.0.0.1:EVIL/v1
file:///127.0.0.1:EVIL/v1
ws://127.0.0.1:EVIL/v1
javascript://127.0.0.1:EVIL/v1
https://127.0.0.1:EVIL/v1
https://api.openai.com:EVIL/v1
http://api.openai.com/v1
""".strip("\n").split("\n")


def spelled(text: str, port: int) -> str:
    for name, character in (("\\t", "\t"), ("\\n", "\n"), ("\\x00", "\0")):
        text = text.replace(name, character)
    return text.replace("EVIL", str(port))


async def test_a_key_never_reaches_another_origin_however_it_is_spelled() -> None:
    assert len(SPELLINGS) >= 60
    transport = Transport(environ={}, resolver=lambda _: ["127.0.0.1"])
    credential = Credential("authorization", Secret(CANARY), HOME, "Bearer ")
    async with Upstream(Reply.json({})) as evil:
        for text in SPELLINGS:
            try:
                to = endpoint(spelled(text, evil.port))
            except UrlFault:
                continue
            if text.startswith(("https://api.openai.com/@", "https://api.openai.com?@")):
                # What stands behind the first slash or question mark belongs to no host in any reading.
                assert to.origin == HOME
                continue
            assert to.origin != HOME, text
            with pytest.raises(FaultError) as caught:
                await transport.post(to, {}, b"{}", credentials=[credential])
            assert caught.value.fault.kind == "internal"
            assert CANARY not in caught.value.fault.message
        assert evil.opened == 0
    await transport.close()


@pytest.mark.parametrize(
    "url", ["HTTPS://API.OpenAI.com/v1", "https://api.openai.com:443/v1", "https://api.openai.com./v1"]
)
def test_other_spellings_of_the_same_origin_are_the_same(url: str) -> None:
    assert endpoint(url).origin == HOME


@pytest.mark.parametrize("url", ["http://api.openai.com/v1", "https://api.openai.com:444/v1", "https://openai.com/v1"])
async def test_scheme_host_and_port_all_count(transport: Transport, url: str) -> None:
    with pytest.raises(FaultError) as caught:
        await transport.post(endpoint(url), {}, b"{}", credentials=[Credential("x-api-key", Secret(CANARY), HOME)])
    assert caught.value.fault.kind == "internal"


def test_a_target_is_sent_as_it_was_read() -> None:
    assert endpoint("http://h/a%2Fb/?x=%20y") == Endpoint(endpoint("http://h").origin, "/a%2Fb/?x=%20y")
    for url in ("http://h/a b", "http://h/a?b c", "http://h/a?b#c", "http://h/a?\r\nx: y", "http://h/ä"):
        with pytest.raises(UrlFault):
            endpoint(url)


# ---- S-02

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fd00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2001:0:7f00:1::",
    "::127.0.0.1",
]
NEVER = [
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "fe80::1",
    "fd00:ec2::254",
    "::",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "224.0.0.1",
]


async def refused(addresses: list[str], policy: AddressPolicy, port: int = 80) -> bool:
    transport = Transport(environ={}, resolver=lambda _: addresses)
    try:
        with pytest.raises(FaultError) as caught:
            await transport.post(
                endpoint(f"http://chosen.test:{port}/v1"),
                {},
                b"{}",
                address_policy=policy,
                connect_timeout=0.2,
                silence_timeout=0.2,
            )
        assert not any(address in caught.value.fault.message for address in addresses)
        return caught.value.fault.kind == "permission"
    finally:
        await transport.close()


@pytest.mark.parametrize("address", INSIDE)
async def test_a_remote_client_reaches_no_address_inside(address: str) -> None:
    assert await refused([address], "public")


@pytest.mark.parametrize("address", NEVER)
async def test_a_local_client_reaches_no_metadata_and_no_link_local_address(address: str) -> None:
    assert await refused([address], "local")


async def test_one_refused_address_refuses_the_name() -> None:
    assert await refused(["127.0.0.1", "169.254.169.254"], "local")
    assert await refused(["8.8.8.8", "127.0.0.1"], "public")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"])
async def test_literal_addresses_are_checked_too(host: str) -> None:
    async with Upstream(Reply.json({})) as inside:
        transport = Transport(environ={})
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint(f"http://{host}:{inside.port}/"), {}, b"{}", address_policy="public")
        assert caught.value.fault.kind == "permission"
        assert inside.opened == 0
        await transport.close()


async def test_a_local_client_reaches_a_local_server() -> None:
    """S-03: local models are legitimate for who is on the machine."""
    async with Upstream(Reply.json({"ok": 1})) as local:
        transport = Transport(environ={})
        response = await transport.post(endpoint(local.url), {}, b"{}", address_policy="local")
        assert await response.read() == b'{"ok":1}'
        await transport.close()


@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::"])
async def test_our_own_listeners_are_refused_to_clients(own: str) -> None:
    async with Upstream(Reply.json({})) as ourselves:
        transport = Transport(environ={}, own_addresses=lambda: [(own, ourselves.port)])
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint(ourselves.url), {}, b"{}", address_policy="local")
        assert caught.value.fault.kind == "permission"
        assert ourselves.opened == 0
        response = await transport.post(endpoint(ourselves.url), {}, b"{}")
        assert response.status == 200  # the operator's own address book is guarded by the hop header instead
        response.close()
        await transport.close()


async def test_the_address_that_was_checked_is_the_one_that_is_used() -> None:
    """A name service that answers a public address first and then a loopback one never gets a connection
    inside.
    """
    async with Upstream(Reply.json({})) as inside:
        answers = [["127.0.0.1"], ["192.0.2.1"]]
        asked = 0

        def rebind(host: str) -> list[str]:
            nonlocal asked
            asked += 1
            return answers[asked % 2]

        for _ in range(100):
            transport = Transport(environ={}, resolver=rebind)
            with pytest.raises(FaultError):
                await transport.post(
                    endpoint(f"http://rebind.test:{inside.port}/"),
                    {},
                    b"{}",
                    address_policy="public",
                    connect_timeout=0.01,
                )
            await transport.close()
        assert asked == 100
        assert inside.opened == 0


async def test_a_connection_opened_for_the_operator_serves_no_client(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as local:
        response = await transport.post(endpoint(local.url), {}, b"{}")
        await response.read()
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint(local.url), {}, b"{}", address_policy="public")
        assert caught.value.fault.kind == "permission"
        assert len(local.requests) == 1


async def test_addresses_chosen_by_clients_bypass_the_proxy() -> None:
    async with Upstream(Reply.json({})) as proxy:
        transport = Transport(proxy=proxy.url, environ={}, resolver=lambda _: ["127.0.0.1"])
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint("http://chosen.test/"), {}, b"{}", address_policy="public")
        assert caught.value.fault.kind == "permission"
        assert proxy.opened == 0
        await transport.close()
