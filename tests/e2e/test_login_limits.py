"""BE-15 to BE-17, BE-19: quotas in the vendors' own words, and the next back end where a login does not serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.logins.code_assist_server import QUOTA
from tests.e2e.asking import PROTOCOLS, error_of
from tests.e2e.test_login_vendors import (
    CHATGPT,
    CLAUDE,
    CLOUD,
    PERSONAL,
    QWEN,
    SPARE,
    Account,
    Stage,
    account,
    stage,
)
from tests.support.shared import Protocol
from tests.support.upstream import Reply

__all__ = ["account", "stage"]  # fixtures

every_client = pytest.mark.parametrize("client", PROTOCOLS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
HOUR = 3600


def chatgpt_spent() -> Reply:
    error: dict[str, Any] = {
        "type": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "plan_type": "plus",
    }
    return Reply.json({"error": {**error, "resets_at": int(time.time()) + HOUR, "resets_in_seconds": HOUR}}, 429)


def claude_spent() -> Reply:
    error = {
        "type": "rate_limit_error",
        "message": "This request would exceed your account's rate limit. Please try again later.",
    }
    reset = str(int(time.time()) + HOUR)
    headers = (
        ("anthropic-ratelimit-unified-status", "rejected"),
        ("anthropic-ratelimit-unified-reset", reset),
        ("retry-after", str(HOUR)),
    )
    return Reply.json({"type": "error", "error": error, "request_id": "req_1"}, 429, headers)


def qwen_spent() -> Reply:
    error = {"code": "insufficient_quota", "message": "Free allocated quota exceeded.", "type": "insufficient_quota"}
    return Reply.json({"error": error, "request_id": "r"}, 429, (("retry-after", str(HOUR)),))


def google_spent() -> Reply:
    return Reply.json(QUOTA, 429)


SPENT: dict[str, tuple[Callable[[], Reply], str, int]] = {
    CHATGPT: (chatgpt_spent, "usage limit", HOUR),
    CLAUDE: (claude_spent, "rate limit", HOUR),
    QWEN: (qwen_spent, "quota exceeded", HOUR),
    PERSONAL: (google_spent, "exhausted your capacity", 2 * HOUR + 13 * 60 + 5),
    CLOUD: (google_spent, "exhausted your capacity", 2 * HOUR + 13 * 60 + 5),
}
"""What the vendor says, words of it, and the seconds for which the login rests."""


@pytest.mark.parametrize(("client", "stream"), list(zip(PROTOCOLS, (False, True, False, True), strict=True)))
def test_a_spent_quota_is_told_in_the_vendors_words_and_rests_as_long_as_it_says(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    spent, words, seconds = SPENT[account.kind]
    account.model = f"rests-{client}-{stream}"  # other models go on
    account.answer = lambda request: spent()
    for told in (words, "cooling down"):
        answer = stage.ask(client, account.target, stream)
        assert answer.status == 429, answer.body
        assert seconds - 30 < float(answer.headers["retry-after"]) <= seconds + 1
        assert told in answer.json["error"]["message"]
    assert len(account.calls) == 1


@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages"])
def test_a_spent_login_hands_on_to_the_back_end_with_a_key(stage: Stage, account: Account, client: Protocol) -> None:
    spent, _, _ = SPENT[account.kind]
    account.answer = lambda request: spent()
    stage.world.spare.clear()
    for _ in range(2):
        answer = stage.ask(client, f"{account.id}-or-{SPARE}")
        assert answer.status == 200, answer.body
        assert (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == (SPARE, "m")
    assert len(stage.world.spare) == 2 and len(account.calls) <= 1
    for call in stage.world.spare:
        assert call.header("authorization") == "Bearer key-of-the-spare-0001"
        stage.shows_no_secret(repr(call.headers) + call.body.decode())
        assert not {"chatgpt-account-id", "originator"} & {name.lower() for name, _ in call.headers}


def test_a_refused_login_hands_on_to_the_back_end_with_a_key(stage: Stage, account: Account) -> None:
    account.answer = lambda request: Reply.json({"error": {"message": "no", "type": "authentication_error"}}, 401)
    answer = stage.ask("openai-chat", f"{account.id}-again-or-{SPARE}")
    assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, SPARE)


@pytest.mark.parametrize("account", [CLAUDE], indirect=True)
@every_client
@both
def test_claudes_refusal_of_other_clients_says_what_to_use_instead(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    said = "This credential is only authorized for use with Claude Code and cannot be used for other API requests."
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    account.answer = lambda request: Reply.json(error, 400)
    answer = stage.ask(client, account.target, stream)
    assert answer.status == 502 and f"{CLAUDE}_credentials_invalid" in answer.body.decode()
    assert "API key" in error_of(client, answer)["message"]
    assert (len(account.calls), len(account.renewals)) == (1, 0)


PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>please</body></html>"


@pytest.mark.parametrize("account", [QWEN], indirect=True)
@every_client
@both
def test_a_page_instead_of_an_answer_is_an_error_of_qwen(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    account.answer = lambda request: Reply(headers=(("content-type", "text/html; charset=utf-8"),), body=PAGE)
    answer = stage.ask(client, account.target, stream)
    assert answer.status == 502 and b"<" not in answer.body
    assert error_of(client, answer)["message"]
    handed_on = stage.ask(client, f"{QWEN}-page-or-{SPARE}", stream)
    assert (handed_on.status, handed_on.headers["x-llm-proxy-backend"]) == (200, SPARE)
