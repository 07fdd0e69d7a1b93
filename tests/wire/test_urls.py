"""Addresses: one strict reading, no spelling that parsers read differently, and the classes of IPs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.urls import Origin, address_class, parse_base_url, parse_origin

OPENAI = Origin("https", "api.openai.com", 443)

SAME_ORIGIN = [
    "https://api.openai.com",
    "https://api.openai.com/",
    "https://api.openai.com/v1",
    "HTTPS://API.OpenAI.com/v1",
    "https://api.openai.com:443/v1",
    "https://api.openai.com./v1",
    "https://api.openai.com.:443/v1/",
    "https://ａｐｉ.openai.com/v1",
    "https://api。openai．com/v1",
]

OTHER_ORIGIN = {
    "http://api.openai.com/v1": "http://api.openai.com",
    "https://api.openai.com:8443": "https://api.openai.com:8443",
    "https://api.openai.com.evil.test": "https://api.openai.com.evil.test",
    "https://evil.test/api.openai.com": "https://evil.test",
    "https://evil.test/https:/x": "https://evil.test",
    "https://аpi.openai.com": "https://xn--pi-6kc.openai.com",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://XN--BCHER-KVA.example": "https://xn--bcher-kva.example",
    "http://localhost:1234/v1": "http://localhost:1234",
    "http://llama_cpp:8080": "http://llama_cpp:8080",
    "http://127.0.0.1:11434": "http://127.0.0.1:11434",
    "http://[::1]:80/v1": "http://[::1]",
    "http://[0:0:0:0:0:0:0:1]": "http://[::1]",
    "http://[::FFFF:7F00:1]:8080": "http://[::ffff:7f00:1]:8080",
}

REFUSED = [
    # user names and what hides behind them
    "https://api.openai.com@evil.test",
    "https://api.openai.com:443@evil.test/v1",
    "https://user:password@api.openai.com",
    "https://@api.openai.com",
    "https://api.openai.com%40evil.test",
    "https://evil.test\\@api.openai.com",
    "https://api.openai.com\\.evil.test",
    "https:\\\\api.openai.com",
    "https:/\\api.openai.com",
    # white space and controls
    "https://api.openai.com\t.evil.test",
    "https://api.openai\n.com",
    "https://api.openai.com\r\n/v1",
    " https://api.openai.com",
    "https://api.openai.com ",
    "https://api.openai.com\0.evil.test",
    "https://api.openai.com\x7f",
    "https://api.openai.com\u00a0",
    "java\tscript://api.openai.com",
    # schemes and slashes
    "",
    "api.openai.com",
    "//api.openai.com/v1",
    "https:api.openai.com",
    "https:/api.openai.com",
    "https:///api.openai.com",
    "ftp://api.openai.com",
    "file:///etc/passwd",
    "ws://api.openai.com",
    "javascript:alert(1)",
    # hosts
    "https://",
    "https://.",
    "https://..",
    "https://.openai.com",
    "https://api..openai.com",
    "https://api.openai.com..",
    "https://api%2eopenai.com",
    "https://%61pi.openai.com",
    "https://-evil.test",
    "https://evil-.test",
    "https://a,b.test",
    "https://a!b.test",
    "https://" + "a" * 64 + ".test",
    "https://" + "a." * 130 + "test",
    "https://ex℀mple.test",
    "https://a／b.test",
    "https://a\u200b\u2024.test/\u202e",
    # numbers that some resolvers take for addresses
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://017700000001",
    "http://0177.0.0.1",
    "http://127.1",
    "http://127.0.0.01",
    "http://127.0.0.256",
    "http://1.2.3.4.5",
    "http://127.0.0.0x1",
    "http://①②⑦.1",
    "http://example.123",
    # brackets
    "http://[::1",
    "http://::1",
    "http://[::1%25eth0]",
    "http://[fe80::1%eth0]",
    "http://[::1]evil.test",
    "http://[127.0.0.1]",
    "http://[v1.x]",
    # ports
    "https://api.openai.com:",
    "https://api.openai.com:0",
    "https://api.openai.com:65536",
    "https://api.openai.com:+443",
    "https://api.openai.com:４４３",
    "https://api.openai.com:443:443",
    "https://api.openai.com:443a",
    # paths, queries, fragments
    "https://api.openai.com?x=1",
    "https://api.openai.com/v1?key=1",
    "https://api.openai.com#@evil.test",
    "https://api.openai.com/v1#x",
    "https://api.openai.com/../v1",
    "https://api.openai.com/v1/..",
    "https://api.openai.com/v1/%2e%2E/x",
    "https://api.openai.com/./v1",
    "https://api.openai.com//evil.test",
    "https://api.openai.com/%zz",
    "https://api.openai.com/é",
    "https://api.openai.com/" + "a" * 3000,
]


@pytest.mark.parametrize("text", SAME_ORIGIN)
def test_spellings_of_one_origin_are_equal(text: str) -> None:
    assert parse_base_url(text).origin == OPENAI


@pytest.mark.parametrize("text", OTHER_ORIGIN)
def test_another_scheme_host_or_port_is_another_origin(text: str) -> None:
    origin = parse_base_url(text).origin
    assert origin != OPENAI
    assert str(origin) == OTHER_ORIGIN[text]
    assert parse_origin(str(origin)) == origin


@pytest.mark.parametrize("text", REFUSED)
def test_an_ambiguous_address_is_refused(text: str) -> None:
    with pytest.raises(UrlFault):
        parse_base_url(text)


def test_a_base_address_keeps_its_path_without_the_last_slash() -> None:
    assert parse_base_url("https://x.test/a/v1beta/").path == "/a/v1beta"
    assert parse_base_url("https://x.test/").path == ""
    assert str(parse_base_url("http://x.test:80/a%20b/")) == "http://x.test/a%20b"


@given(st.text(st.sampled_from("abc.:/@[]%\\0x17-_~ é。?#"), max_size=24))
def test_any_text_is_refused_or_read_to_a_form_that_reads_the_same(text: str) -> None:
    for prefix in ("", "http://"):
        try:
            url = parse_base_url(prefix + text)
        except UrlFault:
            continue
        assert parse_base_url(str(url)) == url


CLASSES = {
    "loopback": "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"
    " 2001:0:7f00:1:: 2001:0:808:808::80ff:fffe ::ffff:0:127.0.0.1 2001:db8::5efe:7f00:1",
    "private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 240.0.0.1"
    " 255.255.255.255 fc00::1 fd12::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:c0a8:101::"
    " 64:ff9b:1::808:808",
    "link-local": "169.254.1.1 fe80::1 fe80::1%eth0 ::ffff:169.254.1.1",
    "metadata": "169.254.169.254 fd00:ec2::254 100.100.100.200 168.63.129.16 ::ffff:169.254.169.254"
    " 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: ::ffff:100.100.100.200 ::168.63.129.16",
    "unspecified": "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1",
    "public": "8.8.8.8 1.1.1.1 172.32.0.1 100.128.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::",
}


@pytest.mark.parametrize(("ip", "expected"), [(ip, name) for name, ips in CLASSES.items() for ip in ips.split()])
def test_an_address_has_the_class_of_where_it_leads(ip: str, expected: str) -> None:
    assert address_class(ip) == expected


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "1.2.3.4/8"])
def test_what_is_no_address_has_no_class(text: str) -> None:
    with pytest.raises(UrlFault):
        address_class(text)
