"""`usage_tracking.file_path`: a file, a directory, or the address of a database."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_proxy.config.document import Node, Place
from llm_proxy.config.groups import UsageOptions
from llm_proxy.store.ledger.places import FILE_NAME, database_at
from llm_proxy.store.ledger.postgres import Postgres
from llm_proxy.store.sessions import StoreUnusable

FILE_PATH = next(option for option in UsageOptions.options if option.name == "file_path")
WITH_PASSWORD = "postgresql://ann:canary-4711@db.example:5433/usage"


def test_a_file_a_directory_and_a_new_path(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    assert database_at(tmp_path).shown == str(tmp_path / FILE_NAME)
    assert database_at(str(tmp_path / "new")).shown == str(tmp_path / "new" / FILE_NAME)
    assert database_at(tmp_path / "plain").shown == str(tmp_path / "plain")
    assert database_at(f"sqlite:///{tmp_path}/a%20b.db").shown == f"{tmp_path}/a b.db"
    assert database_at("sqlite:///some.db").shown == "some.db"


@pytest.mark.parametrize("address", ["mysql://host/name", "sqlite://host/name", "sqlite://", "http://x"])
def test_other_addresses_are_refused_in_words(address: str) -> None:
    with pytest.raises(StoreUnusable, match=r"usage_tracking.file_path: an address begins with"):
        database_at(address)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_postgresql_needs_its_library(scheme: str) -> None:
    address = WITH_PASSWORD.replace("postgresql", scheme)
    if find_spec("psycopg") is None:
        with pytest.raises(StoreUnusable, match=r"pip install 'llm-interactive-proxy\[postgres\]'"):
            database_at(address)
    else:
        assert isinstance(database_at(address), Postgres)


def test_no_password_is_shown() -> None:
    assert Postgres(WITH_PASSWORD).shown == "postgresql://db.example/usage"
    assert FILE_PATH.kind.show(WITH_PASSWORD) == "postgresql://***@db.example:5433/usage"


def test_a_path_in_a_file_is_relative_to_it_and_an_address_stays_what_it_is(tmp_path: Path) -> None:
    def read(text: str) -> object:
        return FILE_PATH.kind.read(Node(text, Place("a.yaml")), tmp_path)

    assert read("usage.db") == str(tmp_path / "usage.db")
    assert read("postgresql://ann@host/usage") == "postgresql://ann@host/usage"
