"""OPS-09: what an entry of the audit log holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.fault import Fault
from llm_proxy.features.audit import CUT, MOST_BYTES, Audit
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.store.records import AuditEntry
from llm_proxy.store.usage import MemoryUsage


def clean(text: str) -> str:
    return text.replace("SECRET-SECRET", "***")


def entry_of(prompt: str = "hi", answer: str = "well", **more: Any) -> AuditEntry:
    """The entry of an exchange that says these things."""
    view = SimpleNamespace(
        id="r", started=1000.0, fault=None, cancelled=False, local=False, user="ada", backend="b", model="m",
        requested_model="asked", project="p", key_name="k", client_agent="agent/1",
        session=SimpleNamespace(id="s", agent="generic"), prompt_text=lambda: prompt, answer_text=lambda: answer, answer_id=lambda: "id",
    )  # fmt: skip
    vars(view).update(more)
    kept = MemoryUsage()
    Audit((kept,), clean).on_finish(cast("ExchangeView", view))
    [entry] = kept.audit
    return entry


def test_an_entry_of_an_answered_request() -> None:
    entry = entry_of()
    assert (entry.log_type, entry.prompt_text, entry.response_text) == ("chat_completion", "hi", "well")
    assert (entry.model, entry.app_name, entry.user_name) == ("b:m", "agent/1", "ada")
    assert (entry.session, entry.project, entry.key_name, entry.remote_completion_id) == ("s", "p", "k", "id")


def test_what_never_reached_a_model_names_the_one_that_was_asked_for() -> None:
    assert entry_of(backend="", model="").model == "asked"


def test_a_failure_says_its_reason_behind_what_came() -> None:
    fault = Fault(kind="upstream", message="it broke: SECRET-SECRET")
    entry = entry_of(fault=fault)
    assert (entry.log_type, entry.response_text) == ("error", "well\nit broke: ***")
    assert entry_of(answer="", fault=fault).response_text == "it broke: ***"


def test_who_left_made_no_error() -> None:
    assert entry_of(cancelled=True, fault=Fault(kind="closed", message="left")).log_type == "chat_completion"


def test_a_command_is_told_as_one() -> None:
    assert entry_of(local=True, backend="", model="").log_type == "command"


@pytest.mark.parametrize("offset", range(-20, 20, 3))
def test_no_half_of_a_secret_stays_at_the_cut(offset: int) -> None:
    text = "x" * (MOST_BYTES + offset) + "SECRET-SECRET" + "y" * 5000
    shown = entry_of(prompt=text).prompt_text
    assert "SECRET" not in shown and shown.endswith(CUT)


@given(st.text(max_size=5), st.integers(0, 40_000))
def test_a_text_is_never_larger_than_allowed_and_marked_when_cut(unit: str, times: int) -> None:
    text = (unit * times)[:200_000]
    shown = entry_of(prompt=text, answer=text)
    for one in (shown.prompt_text, shown.response_text):
        assert len(one.encode()) <= MOST_BYTES
        expected = clean(text).encode("utf-8", "replace").decode()
        assert one == expected or (one.endswith(CUT) and expected.startswith(one.removesuffix(CUT)))
