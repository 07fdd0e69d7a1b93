"""OPS-07 and OPS-08 on the wire: the usage pages, and what calls cost."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, keys, path_of, say, started
from tests.e2e.billing import Figures, stream_reply, usage_in, whole_reply
from tests.e2e.keeping import until
from tests.faults.stage import deltas, ending, whole
from tests.server.process import Answer, running
from tests.support.proxy import BACKEND_OF, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

MILLION: Final = 1_000_000
PAGES: Final = ("/usage/stats", "/v1/usage/stats", "/v2/usage/stats")
_NUMBERS = count(1)


def backends(url: str) -> dict[str, Any]:
    return {
        **backends_at(url),
        "paid": {"type": "openai", "base_url": f"{url}/paid/v1", "api_keys": keys("a")},
        "router": {"type": "openrouter", "base_url": f"{url}/router/v1", "api_keys": keys("r")},
        "claude": {"type": "anthropic", "base_url": f"{url}/claude/v1", "api_keys": keys("c")},
        "google": {"type": "gemini", "base_url": f"{url}/google", "api_keys": keys("g")},
        "plan": {"type": "zai-coding-plan", "base_url": f"{url}/plan/v4", "api_keys": keys("z")},
    }


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text("prices:\n  openai:\n    ours: {input: 5, output: 50}\n    gpt-4o: {input: 99, output: 99}\n")
    config = {"backends": backends(""), "usage_tracking": {"price_file": str(prices)}}
    with upstream_in_thread(say) as upstream:
        config["backends"] = backends(upstream.url)
        with started(config=config) as proxy:
            yield Scene(proxy, upstream)


def fresh(what: str) -> str:
    return f"{what}-{next(_NUMBERS)}"


def stats(scene: Scene, **filters: str) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = scene.proxy.get(f"/usage/stats?{query}")
    assert answer.status == 200
    return dict(answer.json["data"])


def row_of(scene: Scene, id: str) -> dict[str, Any]:
    def rows() -> list[dict[str, Any]]:
        return [row for row in scene.proxy.get("/usage/recent?limit=1000").json["data"] if row["id"] == id]

    until(lambda: len(rows()) == 1, "the row")
    return rows()[0]


def ask(scene: Scene, model: str, script: Any, stream: bool = False, **more: Any) -> dict[str, Any]:
    """One OpenAI Chat request; its row."""
    scene.play(script)
    id = fresh("row")
    assert scene.ask("openai-chat", model, stream, headers={"x-request-id": id}, **more).status == 200
    return row_of(scene, id)


# OPS-07


@pytest.mark.parametrize("back", PROTOCOLS)
def test_given_three_requests_totals_are_three_and_the_providers_sums_streams_included(
    used: Scene, back: Protocol
) -> None:
    project = fresh("sums")
    for client, stream in (("openai-chat", False), ("anthropic-messages", True), (back, True)):
        figures = Figures(100, 20, 0, 30, 10)
        reply = stream_reply(back, figures)[0] if stream else whole_reply(back, figures)
        used.play(reply)
        assert used.ask(client, f"{BACKEND_OF[back]}:m", stream, headers={"x-project": project}).status == 200  # type: ignore[arg-type]
    totals = stats(used, project=project)["totals"]
    assert totals["requests"] == 3
    assert (totals["prompt_tokens"], totals["completion_tokens"]) == (360, 120)
    assert (totals["total_tokens"], totals["cached_tokens"], totals["reasoning_tokens"]) == (480, 60, 30)
    assert totals["errors"] == 0


def test_given_a_project_only_its_rows(used: Scene) -> None:
    mine, other = fresh("project"), fresh("project")
    for project in (mine, other, mine):
        used.ask("openai-chat", "up-chat:m", headers={"x-project": project})
    found = stats(used, project=mine)
    assert found["totals"]["requests"] == 2
    assert list(found["by_project"]) == [mine]
    rows = used.proxy.get(f"/usage/recent?project={mine}").json["data"]
    assert [row["project"] for row in rows] == [mine, mine]


def test_filters_narrow_by_backend_model_session_and_username(used: Scene) -> None:
    session, user, model = fresh("session"), fresh("user"), fresh("model")
    used.ask("openai-chat", f"paid:{model}", headers={"x-session-id": session}, user=user)
    used.ask("openai-chat", "up-chat:m")
    for filters in ({"session_id": session}, {"username": user}, {"model": model}, {"model": f"paid:{model}"}):
        found = used.proxy.get("/usage/stats?" + "&".join(f"{name}={value}" for name, value in filters.items())).json
        assert found["data"]["totals"]["requests"] == 1, filters
        assert found["filters"] == {"days": 30, **filters}
    assert {row["backend"] for row in used.proxy.get("/usage/recent?backend=paid").json["data"]} == {"paid"}


@pytest.mark.parametrize("page", ["/usage/stats?days=abc", "/usage/stats?days=1e3", "/usage/recent?limit=0",
                                  "/usage/recent?limit=1001", "/usage/recent?limit=x", f"/usage/recent?limit={'9' * 5000}"])  # fmt: skip
def test_given_a_number_that_is_none_or_too_large_then_400(used: Scene, page: str) -> None:
    answer = used.proxy.get(page)
    assert answer.status == 400
    assert answer.json["error"]["param"] == page.partition("?")[2].partition("=")[0]


@pytest.mark.parametrize("days", ["0", "-1", "3650"])
def test_no_days_or_many_are_all(used: Scene, days: str) -> None:
    used.ask("openai-chat", "up-chat:m")
    assert stats(used, days=days)["totals"]["requests"] >= 1


def test_the_same_body_under_every_version(used: Scene) -> None:
    used.ask("openai-chat", "up-chat:m")
    bodies = [used.proxy.get(page).body for page in PAGES]
    assert bodies[0] == bodies[1] == bodies[2]
    recent = [used.proxy.get(page.replace("stats", "recent")).body for page in PAGES]
    assert recent[0] == recent[1] == recent[2]


def test_the_newest_entry_comes_first(used: Scene) -> None:
    ids = [fresh("order") for _ in range(3)]
    for id in ids:
        used.ask("openai-chat", "up-chat:m", headers={"x-request-id": id})
    assert [row["id"] for row in used.proxy.get("/usage/recent?limit=3").json["data"]] == ids[::-1]


def test_an_entry_says_who_where_and_how_long(used: Scene) -> None:
    row = ask(used, "paid:gpt-5", say, stream=True, user="ada")
    assert (row["username"], row["surface"], row["stream"], row["attempts"], row["kind"]) == (
        "ada",
        "openai-chat",
        True,
        1,
        "turn",
    )
    assert (row["model"], row["requested_model"], row["backend"]) == ("paid:gpt-5", "paid:gpt-5", "paid")
    assert 0 < row["time_to_first_token"] <= row["execution_time"] < 10


def test_without_a_user_in_the_request_it_is_the_systems(used: Scene) -> None:
    assert ask(used, "up-chat:m", say)["username"] == getpass.getuser()


@pytest.mark.parametrize("client", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_whose_provider_reports_nothing_is_estimated(used: Scene, client: Protocol, stream: bool) -> None:
    words = " ".join(f"{n * n:x}" for n in range(500))
    script = without_usage(client, words, stream)
    used.play(script)
    id = fresh("estimated")
    answer = used.ask(
        client, f"{BACKEND_OF[client]}:m", stream, said="a few words " * 300, headers={"x-request-id": id}
    )
    assert answer.status == 200
    row = row_of(used, id)
    assert row["token_source"] == "estimated"
    assert 500 < row["prompt_tokens"] < 2000
    assert 250 < row["completion_tokens"] < 1000


def without_usage(protocol: Protocol, words: str, stream: bool) -> Reply:
    member = "usageMetadata" if protocol == "gemini" else "usage"
    if not stream:
        answer = whole(protocol, words)
        answer.pop(member, None)
        return Reply.json(answer)
    out = []
    for frame in (*deltas(protocol), *ending(protocol)):
        lines = frame.decode().replace("w0 w1 w2 ", words).replace("w1 ", words).split("\n")
        for at, line in enumerate(lines):
            if line.startswith("data: {"):
                value = json.loads(line.removeprefix("data: "))
                for holder in (value, value.get("response"), value.get("message")):
                    if isinstance(holder, dict):
                        holder.pop(member, None)
                lines[at] = "data: " + json.dumps(value)
        out.append("\n".join(lines).encode())
    return Reply.sse(*out)


def test_a_failed_request_is_a_row_with_the_status_that_the_client_saw(used: Scene) -> None:
    used.play(Reply.json({"error": {"message": "no such model", "type": "invalid_request_error"}}, 404))
    id = fresh("failed")
    answer = used.ask("openai-chat", "paid:gpt-5", headers={"x-request-id": id})
    row = row_of(used, id)
    assert row["status"] == answer.status >= 400
    assert (row["total_tokens"], row["attempts"]) == (0, 1)
    assert stats(used, model="paid:gpt-5")["totals"]["errors"] >= 1


def test_a_local_reply_is_no_row(used: Scene) -> None:
    id = fresh("local")
    assert used.ask("openai-chat", "up-chat:m", said="!/hello", headers={"x-request-id": id}).status == 200
    assert id not in {row["id"] for row in used.proxy.get("/usage/recent?limit=1000").json["data"]}


@pytest.mark.parametrize(
    ("client", "path", "body", "answer"),
    [
        ("anthropic-messages", "/v1/messages/count_tokens", {"model": "claude:m"}, {"input_tokens": 11}),
        ("gemini", "/v1beta/models/google:m:countTokens", {}, {"totalTokens": 11}),
    ],
)
def test_a_counting_call_that_went_upstream_is_a_row(
    used: Scene, client: Protocol, path: str, body: dict[str, Any], answer: dict[str, Any]
) -> None:
    used.play(Reply.json(answer))
    id = fresh("count")
    asked = {**body_of(client, "m"), **body}
    assert used.post(path, asked, {"x-request-id": id}).status == 200
    row = row_of(used, id)
    assert (row["kind"], row["status"], row["total_tokens"], row["surface"]) == ("count", 200, 0, client)


def test_counting_that_the_proxy_does_itself_is_no_row(used: Scene) -> None:
    id = fresh("count")
    body = body_of("anthropic-messages", "up-chat:m")
    assert used.post("/v1/messages/count_tokens", body, {"x-request-id": id}).status == 200
    assert id not in {row["id"] for row in used.proxy.get("/usage/recent?limit=1000").json["data"]}


def test_embeddings_are_rows_with_their_cost(used: Scene) -> None:
    usage = {"prompt_tokens": MILLION, "total_tokens": MILLION}
    used.play(Reply.json({"object": "list", "data": [], "usage": usage}))
    id = fresh("embed")
    used.post("/v1/embeddings", {"model": "paid:text-embedding-3-small", "input": "a"}, {"x-request-id": id})
    row = row_of(used, id)
    assert (row["kind"], row["prompt_tokens"], row["completion_tokens"]) == ("embeddings", MILLION, 0)
    assert (row["cost"], row["cost_source"]) == (0.02, "priced")


def test_disabled_it_is_404_with_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, "--disable-accounting") as proxy:
        assert proxy.post(path_of("openai-chat", ""), body_of("openai-chat", "demo:echo")).status == 200
        for page in (*PAGES, "/usage/recent"):
            answer = proxy.get(page)
            assert answer.status == 404
            assert "usage_tracking.enabled" in answer.json["error"]["message"]


def test_with_several_keys_each_sees_its_own_rows_and_an_admin_all(tmp_path: Path) -> None:
    config = {"auth": {"api_keys": {"ann": "key-ann-0001", "bob": "key-bob-0001", "root": "key-root-001"}, "admin_keys": ["root"]}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    environment = {"LLM_INTERACTIVE_PROXY_API_KEY": ""}
    with running(tmp_path, "--config", str(tmp_path / "config.json"), env=environment) as proxy:

        def get(page: str, key: str) -> Answer:
            return proxy.get(page, key=key)

        for key in ("key-ann-0001", "key-bob-0001", "key-bob-0001"):
            assert proxy.post(path_of("openai-chat", ""), body_of("openai-chat", "demo:echo"), key=key).status == 200
        seen = {
            key: get("/usage/stats", key).json["data"]["totals"]["requests"]
            for key in ("key-ann-0001", "key-bob-0001", "key-root-001")
        }
        assert seen == {"key-ann-0001": 1, "key-bob-0001": 2, "key-root-001": 3}
        assert {row["caller_name"] for row in get("/usage/recent", "key-ann-0001").json["data"]} == {"ann"}
        assert set(get("/usage/stats", "key-root-001").json["data"]["by_key"]) == {"ann", "bob"}


# OPS-08


def reporting(protocol: Protocol, figures: Figures, **more: Any) -> Reply:
    member = "usageMetadata" if protocol == "gemini" else "usage"
    return Reply.json({**whole(protocol), member: {**usage_in(protocol, figures), **more}})


def test_given_a_cost_that_openrouter_reports_then_that(used: Scene) -> None:
    row = ask(used, "router:openai/gpt-5", reporting("openai-chat", Figures(MILLION, output=1), cost=0.002))
    assert (row["cost"], row["cost_source"]) == (0.002, "reported")


@pytest.mark.parametrize(
    ("model", "protocol", "cost"),
    [
        ("paid:gpt-5-2025-08-07", "openai-chat", 1.25),
        ("claude:claude-haiku-4-5", "anthropic-messages", 1.0),
        ("google:gemini-2.5-flash", "gemini", 0.3),
        ("paid:ours-2", "openai-chat", 5.0),
        ("paid:gpt-4o", "openai-chat", 99.0),
    ],
)
def test_given_a_priced_model_with_a_million_input_then_its_input_price(
    used: Scene, model: str, protocol: Protocol, cost: float
) -> None:
    row = ask(used, model, reporting(protocol, Figures(MILLION)))
    assert (row["cost"], row["cost_source"]) == (pytest.approx(cost), "priced")


def test_given_cached_tokens_then_billed_once_at_the_cached_price(used: Scene) -> None:
    row = ask(used, "claude:claude-haiku-4-5", reporting("anthropic-messages", Figures(0, cache_read=MILLION)))
    assert (row["cost"], row["cached_tokens"], row["input_tokens"]) == (pytest.approx(0.1), MILLION, 0)


def test_writes_for_an_hour_cost_their_own_price(used: Scene) -> None:
    lasting = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": MILLION}
    figures = Figures(0, cache_write=MILLION)
    row = ask(used, "claude:claude-haiku-4-5", reporting("anthropic-messages", figures, cache_creation=lasting))
    assert row["cost"] == pytest.approx(2.0)


def test_given_an_unknown_model_then_null_and_listed_as_unpriced(used: Scene) -> None:
    model = fresh("nobody-prices")
    row = ask(used, f"paid:{model}", say)
    assert (row["cost"], row["cost_source"]) == (None, "unknown")
    found = stats(used)
    assert f"paid:{model}" in found["unpriced"]
    assert found["by_model"][f"paid:{model}"]["cost"] is None


@pytest.mark.parametrize(
    ("model", "source"), [("up-chat:gpt-5", "local"), ("demo:echo", "local"), ("plan:glm-4.6", "subscription")]
)
def test_what_is_not_paid_by_the_token_costs_nothing(used: Scene, model: str, source: str) -> None:
    row = ask(used, model, say)
    assert (row["cost"], row["cost_source"]) == (0, source)


def test_an_edited_price_file_counts_without_a_restart(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices: {openai: {m: {input: 1, output: 0}}}\n")

    def script(request: Received) -> Reply:
        return reporting("openai-chat", Figures(MILLION))

    with upstream_in_thread(script) as upstream:
        config = {"backends": backends(upstream.url), "usage_tracking": {"price_file": str(prices)}}
        with started(config=config) as proxy:
            scene = Scene(proxy, upstream)
            assert ask(scene, "paid:m", script)["cost"] == 1
            prices.write_text("prices: {openai: {m: {input: wrong}}}\n")
            refused = proxy.request("POST", "/internal/reload")
            assert refused.status == 400 or refused.status == 422
            assert "prices.yaml:1:" in refused.body.decode()
            prices.write_text("prices: {openai: {m: {input: 3, output: 0}}}\n")
            assert proxy.request("POST", "/internal/reload").status == 200
            assert ask(scene, "paid:m", script)["cost"] == 3
