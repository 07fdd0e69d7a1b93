"""Addresses and blocks as operators write them (OPS-03)."""

from __future__ import annotations

import pytest

from llm_proxy.wire.networks import Networks, check_network, read_address, site_of


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ("10.0.0.0/255.0.0.0", "10.255.255.255", "9.255.255.255"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        (" 192.0.2.7 ", "192.0.2.7", "192.0.2.6"),
        ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("2001:DB8:0::/48", "2001:db8::1", "2001:db8:1::1"),
        ("fe80::/10", "fe80::1%eth0", "fec0::1"),
        ("::1", "::1", "::2"),
        ("0.0.0.0/1", "127.0.0.1", "128.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "2001:db8::a00:1"),
    ],
)
def test_a_block_holds_what_lies_in_it(block: str, inside: str, outside: str) -> None:
    networks = Networks([block])
    assert read_address(inside) in networks
    assert read_address(outside) is not None
    assert read_address(outside) not in networks


@pytest.mark.parametrize(
    "text",
    ["300.1.1.1", "", "localhost", "10.0.0.0/33", "10.0.0", "10.0.0.0-10.0.0.9", "10.0.0.*", "[::1]", "010.0.0.1", "1"],
)
def test_what_is_no_block_is_refused(text: str) -> None:
    assert "an IP address or a block such as 10.0.0.0/8" in (check_network(text) or "")


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "0.0.0.0/0.0.0.0"])
def test_a_block_of_everybody_is_refused(text: str) -> None:
    assert f"{text} is everybody" in (check_network(text) or "")


def test_one_machine_with_a_prefix_is_refused_and_both_readings_are_named() -> None:
    found = check_network("172.17.0.1/16") or ""
    assert "172.17.0.0/16" in found
    assert "172.17.0.1 for the one" in found


@pytest.mark.parametrize("text", ["", "unknown", "10.0.0.1:80", "[::1]", "_hidden", "1" * 5000, "١٠.0.0.1"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
    ],
)
def test_an_address_is_counted_by_host_or_by_ipv6_network(address: str, site: str) -> None:
    read = read_address(address)
    assert read is not None
    assert site_of(read) == site
