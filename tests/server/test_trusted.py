"""Trusted addresses and reverse proxies (OPS-03, S-13): who the client is, and who needs no key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.config import ConfigError, load_settings
from llm_proxy.config.groups import AuthOptions
from llm_proxy.option_groups import GROUPS
from llm_proxy.server.client_address import Sender, Senders
from tests.server.process import KEY, run, running
from tests.server.test_brute_force import Door
from tests.server.test_paths import CHAT

PROXY = "10.0.0.1"
STRANGER = "203.0.113.9"


def sender(
    peer: str,
    claims: Sequence[str] | str = (),
    *,
    trusted: Sequence[str] = (),
    proxies: Sequence[str] = (PROXY, "10.0.0.2", "2001:db8:f::/48"),
    name: bytes = b"x-forwarded-for",
) -> Sender:
    lines = [claims] if isinstance(claims, str) else claims
    headers = [(b"host", b"x"), *((name, line.encode("latin-1")) for line in lines)]
    return Senders(trusted, proxies).of(peer, headers)


# Who the client is


def test_the_client_is_the_peer() -> None:
    assert sender(STRANGER).address == STRANGER
    assert sender(f"::ffff:{STRANGER}").address == STRANGER
    assert sender("fe80::1%eth0").address == "fe80::1"


@pytest.mark.parametrize(
    "claims",
    [
        STRANGER,
        f"192.0.2.66, {STRANGER}",
        f"192.0.2.66,{STRANGER},10.0.0.2",
        f"  192.0.2.66  ,\t{STRANGER} , 10.0.0.2, {PROXY}",
        f"garbage, {STRANGER}",
        f"unknown, {STRANGER}, 10.0.0.2",
        f"{STRANGER}:51234",
        f"::ffff:{STRANGER}",
        f"[::ffff:{STRANGER}]:51234",
        f"{STRANGER},",
        f", ,{STRANGER}, ,",
        ["192.0.2.66", STRANGER],
        ["192.0.2.66, 10.0.0.2", f"{STRANGER}, 10.0.0.2", PROXY],
    ],
)
def test_behind_a_trusted_proxy_it_is_the_right_most_hop_that_is_none(claims: Any) -> None:
    assert sender(PROXY, claims).address == STRANGER


@pytest.mark.parametrize("hop", ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", "2001:DB8:0::7", "2001:db8::7%3"])
def test_a_hop_may_be_ipv6(hop: str) -> None:
    assert sender("2001:db8:f::1", f"192.0.2.66, {hop}").address == "2001:db8::7"


def test_a_proxy_in_ipv6_clothes_is_the_same_proxy() -> None:
    assert sender(f"::ffff:{PROXY}", STRANGER).address == STRANGER


@pytest.mark.parametrize(
    "hop",
    [
        "unknown",
        "_secret",
        "example.test",
        "300.1.1.1",
        "1.2.3.4:port",
        "1.2.3.4:123456",
        "[::1",
        "[::1]x",
        "é",
        "1" * 900,
    ],
)
def test_a_hop_that_is_no_address_ends_the_search_at_the_proxy_that_told_of_it(hop: str) -> None:
    assert sender(PROXY, f"{STRANGER}, {hop}").address == PROXY
    assert sender(PROXY, f"{STRANGER}, {hop}, 10.0.0.2").address == "10.0.0.2"


def test_where_all_hops_are_proxies_it_is_the_first_of_them() -> None:
    assert sender(PROXY, "10.0.0.2, 10.0.0.1").address == "10.0.0.2"
    assert sender(PROXY).address == PROXY
    assert sender(PROXY, "").address == PROXY


def test_of_an_endless_list_only_the_last_hops_are_looked_at() -> None:
    assert sender(PROXY, f"{STRANGER}, " + ", ".join(["10.0.0.2"] * 4000)).address == "10.0.0.2"


def test_from_an_untrusted_peer_the_header_is_ignored() -> None:
    assert sender(STRANGER, "192.0.2.66").address == STRANGER
    assert sender(STRANGER, "127.0.0.1").address == STRANGER


@pytest.mark.parametrize("name", [b"forwarded", b"x-real-ip", b"x-forwarded-host", b"x_forwarded_for"])
def test_no_other_header_tells_the_client(name: bytes) -> None:
    assert sender(PROXY, STRANGER, name=name).address == PROXY


@settings(max_examples=80, deadline=None)
@given(
    claimed=st.text(st.characters(max_codepoint=255)),
    lines=st.lists(st.text(st.characters(max_codepoint=255)), max_size=3),
)
def test_whatever_a_client_writes_stands_left_of_what_the_proxy_adds(claimed: str, lines: list[str]) -> None:
    assert sender(PROXY, [*lines, f"{claimed}, {STRANGER}"]).address == STRANGER
    assert sender(STRANGER, [*lines, claimed]).address == STRANGER


@settings(max_examples=80, deadline=None)
@given(
    hops=st.lists(
        st.sampled_from([PROXY, "10.0.0.2", "[2001:db8:f::9]:80", "unknown", "", "1.2.3.4:x", STRANGER, "::1"])
    )
)
def test_any_list_ends_at_a_hop_of_it_or_at_the_peer(hops: list[str]) -> None:
    assert sender(PROXY, ",".join(hops)).address in {PROXY, "10.0.0.2", "2001:db8:f::9", STRANGER, "::1"}


# Who is trusted


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_trusted_address_needs_no_key(peer: str) -> None:
    door = Door(Senders(["10.0.0.0/8"]))
    assert door.knock(None, peer) == 200
    assert door.knock("wrong", peer) == 200
    assert door.knock(None, "11.1.2.3") == 401


def test_a_trusted_address_behind_a_trusted_proxy_needs_no_key() -> None:
    door = Door(Senders(["192.168.0.0/16"], [PROXY]))
    assert door.knock(None, PROXY, headers=[(b"x-forwarded-for", b"192.168.1.5")]) == 200
    assert door.knock(None, PROXY, headers=[(b"x-forwarded-for", STRANGER.encode())]) == 401


def test_a_spoofed_header_from_an_untrusted_peer_is_ignored() -> None:
    door = Door(Senders(["10.0.0.0/8"], ["192.0.2.1"]))
    assert door.knock(None, STRANGER, headers=[(b"x-forwarded-for", b"10.1.2.3")]) == 401
    assert door.knock(None, "192.0.2.1", headers=[(b"x-forwarded-for", b"10.1.2.3, 203.0.113.9")]) == 401


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-proto"])
def test_a_trusted_address_that_passes_on_requests_of_others_needs_a_key(name: bytes) -> None:
    """It is a reverse proxy that nobody has named: whoever is behind it would be let in."""
    door = Door(Senders(["10.0.0.0/8"]))
    assert door.knock(None, "10.1.2.3", headers=[(name, b"10.1.2.4")]) == 401
    assert door.knock(KEY, "10.1.2.3", headers=[(name, b"10.1.2.4")]) == 200


def test_a_reverse_proxy_that_names_no_client_is_not_trusted_itself() -> None:
    door = Door(Senders(["10.0.0.0/8"], [PROXY]))
    assert door.knock(None, PROXY) == 401
    assert door.knock(None, PROXY, headers=[(b"x-forwarded-for", b"unknown")]) == 401
    assert door.knock(None, PROXY, headers=[(b"forwarded", b"for=10.1.2.3")]) == 401


def test_users_behind_one_proxy_are_blocked_one_by_one() -> None:
    door = Door(Senders((), [PROXY]))
    guesser = [(b"x-forwarded-for", b"203.0.113.9")]
    for number in range(5):
        assert door.knock(f"guess-{number}", PROXY, headers=guesser) == 401
    assert door.knock(KEY, PROXY, headers=guesser) == (429, 30)
    assert door.knock(KEY, PROXY, headers=[(b"x-forwarded-for", b"203.0.113.10")]) == 200
    spoofed = [(b"x-forwarded-for", b"203.0.113.77, 203.0.113.9")]
    assert door.knock(KEY, PROXY, headers=spoofed) == (429, 30)


def test_only_who_connects_from_this_machine_for_itself_is_local() -> None:
    assert sender("127.0.0.1").local
    assert sender("::1").local
    assert not sender(STRANGER).local
    assert not sender("127.0.0.1", "127.0.0.1").local
    assert not sender("127.0.0.1", "127.0.0.1", proxies=["127.0.0.0/8"]).local
    assert not sender(PROXY, "127.0.0.1").local


# The whole of it


def auth_options(folder: Path, *flags: str, **environ: str) -> AuthOptions:
    return load_settings(flags, {"HOME": str(folder), **environ}, folder, GROUPS).get(AuthOptions)


def test_lists_come_from_flags_and_variables(tmp_path: Path) -> None:
    flags = ("--trusted-ip", "10.0.0.0/8", "--trusted-ip", "::1", "--trusted-proxy", "192.0.2.1")
    assert auth_options(tmp_path, *flags).trusted_ips == ("10.0.0.0/8", "::1")
    found = auth_options(tmp_path, TRUSTED_IPS="10.0.0.0/8, 192.168.1.5", TRUSTED_PROXIES="127.0.0.1")
    assert found.trusted_ips == ("10.0.0.0/8", "192.168.1.5")
    assert found.trusted_proxies == ("127.0.0.1",)


@pytest.mark.parametrize("value", ["300.1.1.1", "0.0.0.0/0", "::/0", "somewhere", "10.0.0.1/8"])
@pytest.mark.parametrize("flag", ["--trusted-ip", "--trusted-proxy"])
def test_an_invalid_entry_is_named(tmp_path: Path, flag: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        auth_options(tmp_path, flag, value)
    assert refused.value.errors[0].startswith(f"flag {flag}: auth.trusted_")
    assert value in refused.value.errors[0]


def test_a_trusted_client_has_sessions_of_its_address_and_changes_nothing_for_all(tmp_path: Path) -> None:
    with running(tmp_path, "--trusted-ip", "127.0.0.1") as proxy:
        assert proxy.post("/v1/chat/completions", CHAT, key=None).status == 200
        assert proxy.post("/v1/chat/completions", CHAT, key="not-the-key").status == 200
        told = proxy.get("/internal/sessions", key=None)
        assert told.status == 200
        # A wrong key is no key, a right one makes its holder who it is.
        assert proxy.get("/internal/backends", key=None).status == 403
        assert proxy.get("/internal/backends", key=KEY).status == 200
        assert proxy.get("/v1/models", {"X-Forwarded-For": "127.0.0.1"}, key=None).status == 401


def test_lists_change_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("auth: {trusted_ips: []}\n")
    with running(tmp_path, "--disable-config-watch") as proxy:
        for number in range(5):
            assert proxy.get("/v1/models", key=f"guess-number-{number}").status == 401
        file.write_text("auth: {trusted_ips: [10.0.0.0/8], brute_force_protection: {initial_block_seconds: 31}}\n")
        assert proxy.get("/v1/models", key=None).status == 429
        assert proxy.post("/internal/reload", {}).status == 200, "the right key of this machine, which ends the block"
        for number in range(5):
            assert proxy.get("/v1/models", key=f"guess-number-{number}").status == 401
        assert int(proxy.get("/v1/models", key=None).headers["retry-after"]) <= 31
        file.write_text("auth: {trusted_ips: [127.0.0.1]}\n")
        assert proxy.post("/internal/reload", {}).status == 200
        assert proxy.get("/v1/models", key=None).status == 200


def test_300_1_1_1_is_exit_2(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--trusted-ip", "300.1.1.1"])
    assert ended.returncode == 2
    assert "300.1.1.1" in ended.stderr.decode()
    assert ended.stdout == b""
