"""GEN-03, README and docs/: every block of YAML, command, address and link of the pages is tried, so that no page can drift."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import msgspec
import pytest

from llm_proxy import cli
from llm_proxy.commands.registry import COMMANDS
from llm_proxy.config.backends import BUILT_IN
from llm_proxy.features.pytest_output import compressed
from llm_proxy.option_groups import GROUPS
from llm_proxy.server.paths import Operation, Route, resolve
from tests.e2e.asking import started
from tests.server.process import Proxy
from tests.support.proxy import ROOT

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]
FILES: Final = {"prices:": "usage_tracking.price_file", "steering_rules:": "tool_call_reactor.config_path"}
"""First lines of files of their own, and the options that name such a file."""
FRAGMENT: Final = "fragment"
"""The tag of a block that goes on from the first one of its page."""
OTHERS: Final = {"client"}
"""Tags of files of other programs."""
FOREIGN: Final = {"dangerous-commands.md", "clients.md"}
"""Pages that show commands of other programs, such as `make purge`."""
FOREIGN_FLAGS: Final = {"--auth-type", "--hard", "--source"}
"""Those that are named elsewhere."""
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


class Block(msgspec.Struct, frozen=True):
    """A block of code. `tags`: the words behind the fence, the language first."""

    page: str
    line: int
    tags: tuple[str, ...]
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    text = page.read_text("utf-8")
    for match in re.finditer(r"(?ms)^```([^\n]*)\n(.*?)^```$", text):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(str(page.relative_to(ROOT)), line, tuple(match[1].split()), match[2]))
    return found


BLOCKS: Final = [block for page in PAGES for block in blocks(page)]
YAML: Final = [block for block in BLOCKS if block.tags[:1] == ("yaml",) and not OTHERS & set(block.tags)]


def prose(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without any configuration, and an environment without any of our variables."""
    for group in GROUPS:
        for option in group.options:
            for name in (*option.env, *option.env_off, *option.env_numbered):
                monkeypatch.delenv(name, raising=False)
    for name in ("LLM_PROXY_CONFIG", "LLM_PROXY_ENV_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_given_each_yaml_block_then_a_test_runs_it() -> None:
    assert len(YAML) > 15


@pytest.mark.parametrize("block", YAML, ids=[f"{block.page}:{block.line}" for block in YAML])
def test_a_yaml_block_is_a_configuration_without_errors(
    block: Block, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(block.tags) <= {"yaml", FRAGMENT}, "a block that is no configuration says of which program it is"
    for name in re.findall(r"\$\{(\w+)", block.text):
        monkeypatch.setenv(name, f"value-of-{name}")
    first = next(other.text for other in YAML if other.page == block.page)
    file = empty / "block.yaml"
    file.write_text(first + block.text if FRAGMENT in block.tags else block.text, "utf-8")
    option = FILES.get(block.text.partition("\n")[0])
    status = cli.run(["config", "check", *(["--set", f"{option}={file}"] if option else [str(file)])])
    told = capsys.readouterr()
    assert (status, "ok" in told.out) == (0, True), told.err
    assert "not known" not in told.err and "unknown" not in told.err, told.err


# Commands


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every line that starts `llm-proxy`, in blocks and in the text: where it stands, and its words."""
    for block in BLOCKS:
        if block.tags[:1] not in (("sh",), ("console",), ("text",)):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = re.sub(r"\s{3,}.*", "", line.strip().removeprefix("$ "))
            if re.match(r"(?:\w+=\S* )*(?:llm-proxy|python -m llm_proxy)(?: |$)", words):
                yield (
                    f"{block.page}:{block.line}",
                    shlex.split(words.replace("python -m llm_proxy", "llm-proxy"), comments=True),
                )
    for page, name in zip(PAGES, NAMES, strict=True):
        for words in re.findall(r"`(llm-proxy(?: [^`]*)?)`", prose(page)):
            yield name, shlex.split(words.replace("…", ""))


COMMAND_LINES: Final = sorted(
    {(where, tuple(words[words.index("llm-proxy") + 1 :])) for where, words in command_lines()}
)


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        assert cli.run([*words, "--help"]) == 0
    except SystemExit as ended:
        assert not ended.code
    return capsys.readouterr().out


def test_the_pages_show_commands() -> None:
    assert len(COMMAND_LINES) > 15
    assert {words[0] for _, words in COMMAND_LINES if words} >= {"config", "models", "usage", "capture", "logins"}


@pytest.mark.parametrize(
    ("where", "words"), COMMAND_LINES, ids=[f"{where} {' '.join(words)}" for where, words in COMMAND_LINES]
)
def test_a_command_that_a_page_shows_exists_with_its_flags(
    where: str, words: tuple[str, ...], empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = words[0] if words and not words[0].startswith("-") else "serve"
    assert name in cli.COMMANDS
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if name == "serve":
        # Values too: the reader of `config check` takes the options of serve.
        flags = [word for word in words if word not in ("serve", "--help", "--version")]
        assert cli.run(["config", "check", *flags]) == 0, capsys.readouterr().err
        return
    inner = words[1:2] if name in ("config", "capture") and words[1:2] and not words[1].startswith("-") else ()
    text = helped(capsys, name, *inner) + helped(capsys)
    assert [flag for flag in given if not re.search(rf"{re.escape(flag)}(?![\w-])", text)] == []


def shown_in(page: Path) -> Iterator[str]:
    """What the text of a page shows as code, less commands of other programs."""
    if page.name not in FOREIGN and "reference" not in page.parts and "decisions" not in page.parts:
        yield from (span for span in re.findall(r"`([^`\n]+)`", prose(page)) if not FOREIGN_FLAGS & set(span.split()))


@every_page
def test_a_flag_that_the_text_of_a_page_names_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [(), *((name,) for name in cli.COMMANDS if name != "serve"), ("capture", "list"), ("capture", "show")]
    known = set(re.findall(r"--[a-z][a-z-]+", "".join(helped(capsys, *one) for one in words)))
    named = {flag for span in shown_in(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)}
    assert sorted(named - known) == []


@every_page
def test_an_option_that_the_text_of_a_page_names_exists(page: Path) -> None:
    options = [option for group in GROUPS for option in group.options]
    known = {path for option in options for path in (option.path, *option.aliases)}
    known |= {path.rpartition(".")[0] for path in known}
    groups = {path.partition(".")[0] for path in known if "." in path}
    named = [re.match(r"([a-z_]+(?:\.[a-z_]+)+)(?:$|:)", span) for span in shown_in(page)]
    assert [one[1] for one in named if one and one[1].partition(".")[0] in groups and one[1] not in known] == []


@every_page
def test_a_chat_command_that_the_text_of_a_page_names_exists(page: Path) -> None:
    known = {name for command in COMMANDS for name in (command.name, *command.aliases)}
    named = {found[1] for span in shown_in(page) if (found := re.match(r"!/([a-z-]+)", span))}
    assert sorted(named - known) == []


@every_page
def test_a_make_target_that_a_page_shows_exists(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
    shown = (
        set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", page.read_text("utf-8"))) if page.name not in FOREIGN else set()
    )
    assert shown <= targets


# Addresses


@pytest.fixture(scope="module")
def operated() -> Iterator[Proxy]:
    """One client key, and everything that pages ask for switched on."""
    with started(config={"backends": {"demo": {"type": "demo"}}, "audit": {"enabled": True}}) as proxy:
        yield proxy


def curls() -> Iterator[tuple[str, list[str]]]:
    for block in BLOCKS:
        if block.tags[:1] != ("sh",):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("curl "):
                yield f"{block.page}:{block.line}", shlex.split(line.partition(" | ")[0], comments=True)


CURLS: Final = [
    (where, words) for where, words in curls() if any("127.0.0.1:8000" in word or "$URL" in word for word in words)
]


def test_the_pages_show_requests() -> None:
    assert {where.partition(":")[0] for where, _ in CURLS} >= {"README.md", "docs/clients.md", "docs/usage.md"}


@pytest.mark.parametrize(("where", "words"), CURLS, ids=[f"{where} {words[-1][:40]}" for where, words in CURLS])
def test_a_request_that_a_page_shows_is_accepted(operated: Proxy, where: str, words: list[str]) -> None:
    [address] = [word for word in words if word.startswith(("http://", "$URL"))]
    headers = dict(value.split(": ", 1) for flag, value in pairwise(words) if flag == "-H")
    assert re.fullmatch(r"Bearer \$\w+", headers.pop("Authorization"))
    url = urlsplit(address.replace("$URL", "http://x"))
    path = f"{url.path}?{url.query}" if url.query else url.path
    body = next((value for flag, value in pairwise(words) if flag == "-d"), None)
    answer = operated.request("GET" if body is None else "POST", path, body and body.encode(), headers)
    assert answer.status == 200, answer.body
    assert body is None or b"Echo: hi" in answer.body


def test_the_table_of_addresses_names_what_is_served_and_every_kind_of_it() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    found: dict[str, Any] = {}
    for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", page):
        route = resolve(re.sub(r"\{\w+\}", "x", path))
        assert isinstance(route, Route), path
        assert method in route.methods, path
        found[path] = route.operation
    assert set(found.values()) == set(get_args(Operation))


def test_headers_that_a_page_names_are_in_the_program() -> None:
    source = "".join(file.read_text("utf-8").lower() for file in (ROOT / "src" / "llm_proxy").rglob("*.py"))
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    named = set(re.findall(r"`(x-[a-z-]+)`", page))
    assert len(named) > 8
    assert [name for name in sorted(named) if f'"{name}"' not in source] == []


# Links and references


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower()).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if not target.exists():
            dead.append(link)
        elif parts.fragment:
            headings = re.findall(r"(?m)^#+ (.+)$", prose(target))
            if parts.fragment not in map(slug, headings):
                dead.append(link)
    assert dead == []


def test_every_guide_is_linked_in_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text("utf-8")))
    guides = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}
    assert sorted(guides - linked) == []


def test_given_each_option_and_command_then_it_occurs_in_the_reference() -> None:
    options = (ROOT / "docs" / "reference" / "options.md").read_text("utf-8")
    declared = [option for group in GROUPS for option in group.options]
    assert [one.path for one in declared if one.path and f"`{one.path}`" not in options] == []
    assert [name for one in declared for name in one.env if f"`{name}" not in options] == []
    assert [id for id in BUILT_IN if f"`{id}`" not in options] == []
    commands = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    assert [command.name for command in COMMANDS if f"!/{command.name}" not in commands] == []


def test_the_changelog_tells_of_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## ")[0]
    assert re.search(r"(?m)^### (Added|Changed|Fixed)$", unreleased) and unreleased.count("\n- ") > 3
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["name"] == "llm-interactive-proxy"


# Pytest compression


def test_the_example_of_pytest_compression_is_what_becomes_of_it() -> None:
    shown = {
        block.tags[1]: block.text
        for block in BLOCKS
        if block.page == "docs/pytest-compression.md" and len(block.tags) > 1
    }
    assert compressed(shown["before"]) == shown["after"]
