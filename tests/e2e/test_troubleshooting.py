"""GEN-03, docs/troubleshooting.md: each symptom is made to happen, and the words that the page quotes are the words that a user sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from llm_proxy.conversation.fault import CODE
from tests.e2e.symptoms import SYMPTOMS, Proxies, answering, calling, starting
from tests.support.proxy import ROOT
from tests.support.shared import SHARED

PAGE: Final = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
SECTIONS: Final = (
    "installation", "configuration", "authentication", "connections", "commands", "sessions", "streaming", "loops", "tool calls",
    "repair", "limits", "performance", "debugging", "logs",
)  # fmt: skip
PRODUCERS: Final = (starting, calling, answering)
"""The modules that register what makes the symptoms happen."""


class Entry(msgspec.Struct, frozen=True):
    """What the page says under one heading: quoted lines, the status (0 = none named) and the codes beside it."""

    heading: str
    quoted: tuple[str, ...]
    status: int
    codes: tuple[str, ...]
    text: str


def entries() -> list[Entry]:
    found = []
    for part in re.split(r"(?m)^### ", PAGE)[1:]:
        heading, _, text = part.partition("\n")
        text = re.split(r"(?m)^## ", text)[0]
        told = re.search(r"(?m)^Status (\d{3})((?:, `[a-z_]+`)*)\.", text)
        found.append(
            Entry(
                heading,
                tuple(line.replace("\\<", "<") for line in re.findall(r"(?m)^> (.+)$", text)),
                int(told[1]) if told else 0,
                tuple(re.findall("`(.+?)`", told[2])) if told else (),
                text,
            )
        )
    return found


ENTRIES: Final = entries()


def holds(seen: str, quoted: str) -> bool:
    """Whether these words stand in one line of `seen`, in this order; `…` is anything."""
    pieces = [piece.strip() for piece in quoted.split("…") if piece.strip()]
    return any(_in_order(line, pieces) for line in seen.splitlines())


def _in_order(line: str, pieces: list[str]) -> bool:
    at = 0
    for piece in pieces:
        found = line.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    made = Proxies(Path(tmp_path_factory.mktemp("troubled")))
    yield made
    made.close()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.heading for entry in ENTRIES])
def test_the_words_of_the_page_are_those_that_a_user_sees(proxies: Proxies, entry: Entry) -> None:
    seen = SYMPTOMS[entry.heading](proxies)
    assert entry.quoted, "an entry quotes what it is about"
    missing = [quoted for quoted in entry.quoted if not holds(seen, quoted)]
    assert not missing, seen
    if entry.status:
        assert re.search(rf"(?m)^{entry.status}$", seen), seen
    assert [code for code in entry.codes if f'"code":"{code}"' not in seen] == [], seen
    assert "Traceback" not in seen


def test_every_entry_has_something_that_makes_it_happen_and_the_other_way_round() -> None:
    headings = [entry.heading for entry in ENTRIES]
    assert len(headings) == len(set(headings)) > 40
    assert set(headings) == set(SYMPTOMS)
    assert {function.__module__ for function in SYMPTOMS.values()} == {module.__name__ for module in PRODUCERS}


def test_every_entry_that_names_a_status_names_its_code_and_says_what_to_do() -> None:
    for entry in ENTRIES:
        assert bool(entry.status) == bool(entry.codes), entry.heading
        words = re.sub(r"(?m)^(>.*|Status .*?\.)", "", entry.text).split()
        assert words, entry.heading


def test_every_section_of_the_specification_is_there_and_linked_at_the_top() -> None:
    headings = re.findall(r"(?m)^## (.+)$", PAGE)
    named = " ".join(headings).lower()
    assert [section for section in SECTIONS if section not in named] == []
    links = re.findall(r"\]\(#([a-z-]+)\)", PAGE.partition("\n## ")[0])
    assert links == [heading.lower().replace(" ", "-") for heading in headings]


def test_given_each_detail_code_then_troubleshooting_has_an_entry() -> None:
    written = set(re.findall(r"`([a-z_]+)`", "".join(entry.text for entry in ENTRIES)))
    assert sorted(set(CODE.values()) - written) == []
    in_source = {
        code
        for file in (ROOT / "src" / "llm_proxy").rglob("*.py")
        for code in re.findall(r'(?<![a-z_])code="([a-z_]+)"', file.read_text("utf-8"))
    }
    assert len(in_source) > 5 and sorted(in_source - written) == []


def test_given_each_code_of_the_specification_then_troubleshooting_has_an_entry() -> None:
    if SHARED is None:
        pytest.skip("the specification is not beside the checkout")
    text = (SHARED / "spec" / "frontends.md").read_text("utf-8").partition("### FE-11")[2].partition("### ")[0]
    rows = [row.split("|")[3] for row in text.splitlines() if row.startswith("| ") and row.count("|") > 6][1:]
    named = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    further = text.partition("Further `detail.code` values under the row of their status:")[2].partition("422")[0]
    named |= set(re.findall(r"`([a-z_]+)`", further))
    assert len(named) > 15
    assert sorted(named - set(re.findall(r"`([a-z_]+)`", PAGE))) == []
    assert "_credentials_invalid`" in PAGE  # whose beginning is a back end's id
