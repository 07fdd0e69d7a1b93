"""OPS-11 and GEN-02: the command line of a real process, against a real proxy with the back-end demo."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llm_proxy import __version__
from llm_proxy.cli import COMMANDS
from llm_proxy.config.backends import BUILT_IN
from llm_proxy.option_groups import GROUPS
from tests.server.process import KEY, Proxy, command, environment, free_pair, run, running
from tests.support.shared import SHARED

KEYED = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("proxy")) as started:
        yield started


def asked(
    proxy: Proxy, folder: Path, name: str, *flags: str, key: str = KEY, end: str = ""
) -> subprocess.CompletedProcess[bytes]:
    host, port = proxy.main
    extra = {"LLM_INTERACTIVE_PROXY_API_KEY": key} if key else {}
    return run(folder, [name, "--url", f"http://{host}:{port}{end}", *flags], extra)


def out(ended: subprocess.CompletedProcess[bytes]) -> str:
    return ended.stdout.decode()


def err(ended: subprocess.CompletedProcess[bytes]) -> str:
    text = ended.stderr.decode()
    assert "Traceback" not in text
    return text


def times(text: str) -> list[float]:
    """The arrival times that `stream-test` prints, in the order of the lines."""
    return [float(found) for found in re.findall(r"^ *(\d+\.\d+) s  ", text, re.MULTILINE)]


# --help


def test_help_lists_every_flag_of_the_options_and_every_command(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--help"])
    assert ended.returncode == 0
    text = out(ended)
    declared = {flag for group in GROUPS for option in group.options for flag in (*option.flags, *option.off_flags)}
    declared |= {flag for built_in in BUILT_IN.values() for flag in (built_in.key_flag, built_in.url_flag) if flag}
    assert len(declared) > 40
    assert [flag for flag in sorted(declared) if not re.search(rf"{flag}(?![\w-])", text)] == []
    listed = text.partition("\ncommands:\n")[2]
    assert re.findall(r"^  ([a-z-]+)  ", listed, re.MULTILINE) == list(COMMANDS)


def test_the_specification_names_no_command_that_does_not_exist() -> None:
    if SHARED is None:
        pytest.skip("the specification is not beside the checkout")
    text = (SHARED / "spec" / "operations.md").read_text().partition("### OPS-11")[2].partition("### ")[0]
    named = set(re.findall(r"`(serve|config|models|usage|routes|stream-test|version)\b", text))
    assert named - set(COMMANDS) == set()


def test_given_help_then_every_flag_of_the_specification_is_listed(tmp_path: Path) -> None:
    """`python -m llm_proxy --help`; spellings in brackets are kept for old scripts and not shown"""
    if SHARED is None:
        pytest.skip("the specification is not beside the checkout")
    rows = [line for line in (SHARED / "spec" / "configuration.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 100
    shown = out(run(tmp_path, ["--help"]))
    shown_cells = [re.sub(r"\([^)]*\)", "", cell) for row in rows for cell in row.split(" | ")]
    flags = {flag for cell in shown_cells for flag in re.findall(r"`(--[a-z][a-z-]+)", cell)}
    assert len(flags) > 80
    assert [flag for flag in sorted(flags) if not re.search(rf"{flag}(?![\w-])", shown)] == []


CONFIG = ("check", "show", "example", "schema")


HELPED = [*(name for name in COMMANDS if name != "config"), *(f"config {one}" for one in CONFIG)]


@pytest.mark.parametrize(("name", "flag"), [*((name, "--help") for name in HELPED), ("serve", "-h"), ("models", "-h")])
def test_each_command_has_a_help_of_its_own(tmp_path: Path, name: str, flag: str) -> None:
    ended = run(tmp_path, [*name.split(), flag])
    assert ended.returncode == 0
    assert "usage: llm-proxy" in out(ended)
    assert ended.stderr == b""


@pytest.mark.parametrize(
    ("name", "flags"),
    [("models", ["--url", "--key", "--json"]), ("stream-test", ["--url", "--model", "--prompt", "--key"])],
)
def test_the_help_of_a_command_names_its_flags_and_an_example(tmp_path: Path, name: str, flags: Sequence[str]) -> None:
    text = out(run(tmp_path, [name, "--help"]))
    assert [flag for flag in flags if flag not in text] == []
    assert f"  llm-proxy {name}" in text


def test_config_alone_and_wrong_words_say_what_there_is(tmp_path: Path) -> None:
    for arguments, status in (
        (["--help"], 0),
        ([], 2),
        (["chekc"], 2),
        (["example", "more"], 2),
        (["check", "--nope"], 2),
    ):
        ended = run(tmp_path, ["config", *arguments])
        assert ended.returncode == status, arguments
        assert "Traceback" not in err(ended)
    listed = out(run(tmp_path, ["config", "--help"]))
    assert re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE) == list(CONFIG)


def test_config_check_says_that_a_file_is_not_there_yet(tmp_path: Path) -> None:
    ended = run(tmp_path, ["config", "check", "later.yaml"])
    assert ended.returncode == 0  # as a start with --config later.yaml
    assert "later.yaml does not exist yet" in err(ended)


def test_nothing_is_coloured_where_no_terminal_is(proxy: Proxy, tmp_path: Path) -> None:
    for ended in (run(tmp_path, ["--help"]), asked(proxy, tmp_path, "models"), asked(proxy, tmp_path, "stream-test")):
        assert b"\x1b" not in ended.stdout + ended.stderr


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_a_terminal_gets_colour(proxy: Proxy, tmp_path: Path) -> None:
    import pty

    host, port = proxy.main
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(
            command("models", "--url", f"http://{host}:{port}"),
            cwd=tmp_path, env=environment(tmp_path, {**KEYED, "TERM": "xterm"}), stdout=theirs, timeout=30, check=False,
        )  # fmt: skip
        assert ended.returncode == 0
        assert b"\x1b[1mdemo\x1b[0m" in os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


# version, exit codes


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["serve", "--version"]])
def test_version(tmp_path: Path, arguments: list[str]) -> None:
    ended = run(tmp_path, arguments)
    assert (ended.returncode, out(ended)) == (0, f"llm-proxy {__version__}\n")


@pytest.mark.parametrize("name", ["models", "routes", "stream-test"])
def test_wrong_configuration_is_exit_2_for_every_command(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, [name, "--no-such-flag"])
    assert ended.returncode == 2
    assert "--no-such-flag" in err(ended)
    (tmp_path / "config.yaml").write_text("no_such_option: 1\n")
    ended = run(tmp_path, [name])
    assert ended.returncode == 2
    assert "config.yaml:1" in err(ended)


@pytest.mark.parametrize("name", ["models", "stream-test"])
def test_without_a_proxy_it_is_exit_1_and_says_how_to_start_one(tmp_path: Path, name: str) -> None:
    port = free_pair()
    ended = run(tmp_path, [name, "--port", str(port)], KEYED)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in err(ended) and "--url" in err(ended)


@pytest.mark.parametrize("name", ["models", "stream-test"])
@pytest.mark.parametrize("flags", [["--url", "ftp://x"], ["--url", "http://u:p@127.0.0.1"], ["--port", "0"]])
def test_an_address_that_is_none_is_exit_2(tmp_path: Path, name: str, flags: list[str]) -> None:
    ended = run(tmp_path, [name, *flags], KEYED)
    assert ended.returncode == 2
    assert "--url" in err(ended)


@pytest.mark.parametrize("name", ["models", "stream-test"])
def test_a_wrong_key_is_exit_1_and_names_where_the_right_one_goes(proxy: Proxy, tmp_path: Path, name: str) -> None:
    ended = asked(proxy, tmp_path, name, key="not-the-key")
    assert ended.returncode == 1
    assert "401" in err(ended) and "LLM_INTERACTIVE_PROXY_API_KEY" in err(ended)
    assert "not-the-key" not in err(ended)
    assert asked(proxy, tmp_path, name, "--key", KEY, key="").returncode == 0


# models


def test_models_lists_each_back_ends_models_of_the_running_proxy(proxy: Proxy, tmp_path: Path) -> None:
    for end in ("", "/", "/v1"):
        ended = asked(proxy, tmp_path, "models", end=end)
        assert ended.returncode == 0
        lines = out(ended).splitlines()
        assert re.fullmatch(r"demo \(\d+\)", lines[0])
        assert "  demo:echo" in lines


def test_models_finds_the_proxy_by_the_configuration(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"proxy:\n  host: 0.0.0.0\n  port: {proxy.main[1]}\n")
    ended = run(tmp_path, ["models", "--json"], KEYED)
    assert {"backend": "demo", "model": "demo:echo"} in json.loads(out(ended))


def test_models_local_needs_no_proxy(tmp_path: Path) -> None:
    ended = run(tmp_path, ["models", "local"])
    assert ended.returncode == 0
    assert "  demo:echo" in out(ended).splitlines()


def test_models_local_says_whose_list_could_not_be_read(tmp_path: Path) -> None:
    flags = ["models", "local", "--set", "backends.near.type=openai", "--set", "backends.near.no_auth=true"]
    ended = run(tmp_path, [*flags, "--set", f"backends.near.base_url=http://127.0.0.1:{free_pair()}/v1"])
    assert ended.returncode == 0
    assert "near" in err(ended)


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_has_enough_is_no_error(proxy: Proxy, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    host, port = proxy.main
    try:
        ended = subprocess.run(
            command("stream-test", "--url", f"http://{host}:{port}"),
            cwd=tmp_path, env=environment(tmp_path, KEYED), stdout=write, stderr=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


# routes


def test_routes_shows_policy_targets_and_what_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "failover_routes:\n  coding: {policy: km, elements: ['demo:echo', 'anthropic:claude-x']}\n  empty: {policy: m}\n"
    )
    ended = run(tmp_path, ["routes"])
    assert ended.returncode == 0
    text = out(ended)
    assert re.search(r"^coding +km +1\. demo:echo +config\.yaml:2", text, re.MULTILINE)
    assert re.search(r"2\. anthropic:claude-x +\(not usable: .*ANTHROPIC_API_KEY", text)
    assert re.search(r"^empty +m +none", text, re.MULTILINE)
    coding = next(route for route in json.loads(out(run(tmp_path, ["routes", "--json"]))) if route["name"] == "coding")
    assert coding["policy"] == "km"
    assert coding["elements"][0] == {"target": "demo:echo", "problem": ""}


def test_routes_counts_what_was_saved_in_the_chat(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "failover_routes:\n  a: {policy: k, elements: ['demo:echo']}\n  b: {policy: k, elements: ['demo:echo']}\n"
    )
    saved = {
        "version": 1,
        "failover_routes": {"a": {"policy": "mk", "elements": ["demo:slow"]}},
        "deleted_routes": ["b"],
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state.json").write_text(json.dumps(saved))
    found = json.loads(out(run(tmp_path, ["routes", "--json"])))
    assert [(route["name"], route["policy"], route["source"]) for route in found] == [("a", "mk", "saved state")]
    assert [element["target"] for element in found[0]["elements"]] == ["demo:slow"]


def test_without_routes_it_says_how_to_make_one(tmp_path: Path) -> None:
    ended = run(tmp_path, ["routes", "--command-prefix", "$/"])
    assert ended.returncode == 0
    assert "$/create-failover-route" in out(ended)


# stream-test


def test_stream_test_prints_several_lines_with_rising_times(proxy: Proxy, tmp_path: Path) -> None:
    ended = asked(proxy, tmp_path, "stream-test", "--model", "demo:slow")
    assert ended.returncode == 0
    arrived = times(out(ended))
    assert len(arrived) > 5
    assert arrived == sorted(arrived)
    assert arrived[-1] > arrived[0]
    assert re.search(
        r"\d+ events, \d+ bytes, \d+ characters; first content after \d+\.\d+ s, end after \d+\.\d+ s", out(ended)
    )
    assert re.search(r"tokens: \d+ in, \d+ out", out(ended))


def test_stream_test_says_what_it_is_told_to_the_default_model(proxy: Proxy, tmp_path: Path) -> None:
    ended = asked(proxy, tmp_path, "stream-test", "--prompt", "zebra")
    assert ended.returncode == 0
    assert "model demo:echo" in out(ended).splitlines()[0]
    assert "zebra" in out(ended).partition("\n")[2]


@pytest.mark.parametrize("model", ["demo:cut", "demo:malformed"])
def test_a_stream_that_fails_is_exit_1_after_what_had_arrived(proxy: Proxy, tmp_path: Path, model: str) -> None:
    ended = asked(proxy, tmp_path, "stream-test", "--model", model)
    assert ended.returncode == 1
    assert times(out(ended))
    assert "failed" in err(ended)


def test_an_error_before_the_stream_is_exit_1_with_its_message(proxy: Proxy, tmp_path: Path) -> None:
    ended = asked(proxy, tmp_path, "stream-test", "--model", "demo:error-500")
    assert ended.returncode == 1
    assert "status 500" in err(ended)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_it_cleanly(proxy: Proxy, tmp_path: Path) -> None:
    host, port = proxy.main
    child = subprocess.Popen(
        command("stream-test", "--url", f"http://{host}:{port}", "--model", "demo:stall"),
        cwd=tmp_path, env=environment(tmp_path, KEYED), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    for _ in range(3):  # the stream has begun, and then stalls
        assert child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=20)
    assert child.returncode == 1
    assert complaint.decode().strip() == "llm-proxy: interrupted"


# GEN-02, OPS-17: the start lines


def test_the_start_lines_name_real_ports_key_features_and_how_to_type_commands(tmp_path: Path) -> None:
    port = free_pair()
    with running(tmp_path, "--port", str(port), "--command-prefix", "$/", keyed=False) as started:
        main, own = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
        for line in (
            rf"OpenAI tools +base URL +{main}/v1$",
            rf"Anthropic tools +base URL +{main}/anthropic  or  {own}$",
            rf"Gemini tools +base URL +{main}$",
            r"default back end +demo ",
            r"data directory +\S+",
            r"config +none$",
            r"features on +.*commands.*usage",
            r"commands +type \$/help in any chat$",
            r"client key +llmp-\S+$",
        ):
            assert re.search(rf"^  {line}", started.banner, re.MULTILINE), line
        assert started.get("/v1/models").status == 200


def test_the_start_lines_name_the_source_of_a_configured_key_and_never_the_key(tmp_path: Path) -> None:
    with running(tmp_path, "--disable-interactive-commands") as started:
        assert re.search(r"client key +as configured \(env LLM_INTERACTIVE_PROXY_API_KEY\)", started.banner)
        assert KEY not in started.banner
        assert "/help" not in started.banner
