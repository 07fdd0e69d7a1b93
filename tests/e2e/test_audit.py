"""OPS-09: the audit log, as a page and as a file."""

from __future__ import annotations

import http.client
import json
import os
import stat
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, frames, keys, path_of, say, started
from tests.e2e.keeping import until
from tests.faults.stage import deltas, ending, whole
from tests.server.process import Answer, Proxy, running
from tests.support.proxy import BACKEND_OF, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Hang, Reply, upstream_in_thread

PAGES: Final = ("/audit/logs", "/v1/audit/logs", "/v2/audit/logs")
IDS: Final = {"openai-chat": "c", "openai-responses": "resp_1", "anthropic-messages": "msg_1", "gemini": "r"}
SECRET: Final = "provider-key-a"
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "sub" / "audit.jsonl"


@pytest.fixture(scope="module")
def audited(file: Path) -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        backends = {**backends_at(upstream.url), "paid": {"type": "openai", "base_url": f"{upstream.url}/v1", "api_keys": keys("a")}}  # fmt: skip
        with started("--enable-audit", config={"backends": backends, "audit": {"file": str(file)}}) as proxy:
            yield Scene(proxy, upstream)


def fresh(what: str) -> str:
    return f"{what}-{next(_NUMBERS)}"


def entry_of(scene: Scene, session: str) -> dict[str, Any]:
    def entries() -> list[dict[str, Any]]:
        return list(scene.proxy.get(f"/audit/logs?session_id={session}").json["data"])

    until(lambda: len(entries()) == 1, "the entry")
    return entries()[0]


def asked(scene: Scene, client: Protocol, model: str, script: Any, stream: bool = False, **more: Any) -> dict[str, Any]:
    """One request in a session of its own; its entry."""
    scene.play(script)
    session = fresh("audit")
    scene.ask(client, model, stream, headers={"x-session-id": session}, **more)
    return entry_of(scene, session)


def spoken(protocol: Protocol, text: str, stream: bool) -> Reply:
    if not stream:
        return Reply.json(whole(protocol, text))
    quoted = json.dumps(text)[1:-1].encode()
    frames = [*deltas(protocol, 1), *ending(protocol)]
    return Reply.sse(*(frame.replace(b"w0 w1 w2 ", quoted).replace(b"w0 ", quoted) for frame in frames))


@pytest.mark.parametrize("page", PAGES)
def test_given_audit_off_then_404_with_the_options_name(demo: Proxy, page: str) -> None:
    answer = demo.get(page)
    assert answer.status == 404
    assert "audit.enabled" in answer.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("back", PROTOCOLS)
@pytest.mark.parametrize("client", PROTOCOLS)
def test_given_audit_on_then_the_response_text_is_the_whole_text(
    audited: Scene, client: Protocol, back: Protocol, stream: bool
) -> None:
    text = " ".join(f"{n * n:x}" for n in range(3000))  # far more than a session's history keeps
    entry = asked(audited, client, f"{BACKEND_OF[back]}:m", spoken(back, text, stream), stream, said="what is it")
    assert entry["response_text"] == text
    assert entry["prompt_text"] == "what is it"
    assert (entry["log_type"], entry["model"]) == ("chat_completion", f"{BACKEND_OF[back]}:m")
    assert entry["remote_completion_id"] == IDS[back]


def test_an_entry_says_when_who_and_where(audited: Scene) -> None:
    audited.play(say)
    session, project = fresh("audit"), fresh("project")
    headers = {"x-session-id": session, "x-project": project, "user-agent": "opencode/1.2", "x-request-id": "audit-who"}
    audited.ask("openai-chat", "up-chat:m", headers=headers, user="ada")
    entry = entry_of(audited, session)
    assert entry["timestamp"].endswith("Z") and "T" in entry["timestamp"]
    assert (entry["user_name"], entry["project"], entry["session"]) == ("ada", project, session)
    assert (entry["app_name"], entry["request_id"]) == ("opencode", "audit-who")
    assert entry["key_name"]


def test_a_local_command_is_an_entry_of_its_own_type(audited: Scene) -> None:
    entry = asked(audited, "openai-chat", "up-chat:m", say, said="!/hello")
    assert (entry["log_type"], entry["prompt_text"]) == ("command", "!/hello")
    assert entry["response_text"]
    assert not audited.upstream.requests


def test_a_failed_request_is_an_error_with_its_reason(audited: Scene) -> None:
    refused = Reply.json({"error": {"message": "the model is on holiday", "type": "invalid_request_error"}}, 400)
    entry = asked(audited, "openai-chat", "up-chat:m", refused)
    assert entry["log_type"] == "error"
    assert "the model is on holiday" in entry["response_text"]


@pytest.mark.parametrize("back", PROTOCOLS)
def test_no_secret_stands_in_an_entry(audited: Scene, file: Path, back: Protocol) -> None:
    entry = asked(audited, "openai-chat", f"{BACKEND_OF[back]}:m", spoken(back, f"it is {SECRET}", True), True, said=f"my {SECRET}")  # fmt: skip
    assert (entry["prompt_text"], entry["response_text"]) == ("my ***", "it is ***")
    until(lambda: entry["session"] in file.read_text(), "the line")
    assert SECRET not in file.read_text()


def test_a_text_is_at_most_64_kib_and_marked_when_it_was_cut(audited: Scene) -> None:
    entry = asked(audited, "openai-chat", "up-chat:m", say, said="é" * 100_000)
    assert len(entry["prompt_text"].encode()) <= 65536
    assert entry["prompt_text"].startswith("éé") and entry["prompt_text"].endswith("[cut]")


def test_a_text_that_was_broken_off_is_kept_as_far_as_it_came(audited: Scene) -> None:
    session = fresh("audit")
    audited.play(Reply.sse(*deltas("openai-chat"), Hang()))
    connection = http.client.HTTPConnection(*audited.proxy.main, timeout=10)
    headers = {"authorization": f"Bearer {audited.proxy.key}", "content-type": "application/json", "x-session-id": session}  # fmt: skip
    connection.request(
        "POST", path_of("openai-chat", ""), json.dumps(body_of("openai-chat", "up-chat:m", True)), headers
    )
    response = connection.getresponse()
    seen = b""
    while b"w2" not in seen:
        seen += response.read1(1000)
    connection.close()
    entry = entry_of(audited, session)
    assert (entry["log_type"], entry["response_text"]) == ("chat_completion", "w0 w1 w2 ")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_legacy_completion_is_a_generating_request_too(audited: Scene, stream: bool) -> None:
    def piece(text: str) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": None, "logprobs": None}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}

    audited.play(Reply.sse(*frames([piece("well "), piece("done")], done=True)) if stream else Reply.json(piece("well done")))  # fmt: skip
    session = fresh("audit")
    body = {"model": "paid:m", "prompt": ["one", f"two {SECRET}"], "stream": stream}
    assert audited.post("/v1/completions", body, {"x-session-id": session}).status == 200
    entry = entry_of(audited, session)
    assert (entry["prompt_text"], entry["response_text"]) == ("one\ntwo ***", "well done")
    assert (entry["log_type"], entry["remote_completion_id"], entry["model"]) == ("chat_completion", "cmpl-1", "paid:m")


# The page


def test_the_page_lists_the_newest_first_and_counts_all(audited: Scene) -> None:
    audited.play(say)
    project = fresh("page")
    sessions = [fresh("audit") for _ in range(3)]
    for session in sessions:
        audited.ask("openai-chat", "up-chat:m", headers={"x-session-id": session, "x-project": project})
    until(lambda: audited.proxy.get(f"/audit/logs?project={project}").json["total"] == 3, "all entries")
    for page in PAGES:
        found = audited.proxy.get(f"{page}?project={project}&limit=2").json
        assert (found["object"], found["total"]) == ("audit_logs", 3)
        assert [entry["session"] for entry in found["data"]] == sessions[:0:-1]


def test_the_page_can_be_asked_for_a_user_and_a_time(audited: Scene) -> None:
    user = fresh("user")
    entry = asked(audited, "openai-chat", "up-chat:m", say, user=user)
    day = entry["timestamp"][:10]

    def total(query: str) -> int:
        answer = audited.proxy.get(f"/audit/logs?username={user}&{query}")
        assert answer.status == 200, answer.body
        return int(answer.json["total"])

    assert (
        total("") == total(f"start_date={day}") == total(f"end_date={day}") == total(f"start_date={day}T00:00:00Z") == 1
    )
    assert total(f"start_date={entry['timestamp']}&end_date={day}T23:59:59%2B00:00") == 1
    assert (
        total("start_date=2999-01-01")
        == total("end_date=2020-01-01")
        == total("end_date=2020-01-01T10:00:00+02:00")
        == 0
    )


@pytest.mark.parametrize(
    "query",
    [
        "start_date=2025-13-01",
        "end_date=2025-02-30T00:00:00Z",
        "start_date=yesterday",
        "end_date=9999-12-31",
        "limit=0",
        "limit=1001",
        "limit=ten",
    ],
)
def test_given_a_date_or_a_limit_that_is_none_then_400(audited: Scene, query: str) -> None:
    answer = audited.proxy.get(f"/audit/logs?{query}")
    assert answer.status == 400
    assert answer.json["error"]["param"] == query.partition("=")[0]


def test_given_two_keys_and_no_admin_then_403_and_with_one_he_may(tmp_path: Path) -> None:
    for admins, expected in (([], 403), (["bob"], 200)):
        config = {"auth": {"api_keys": {"ann": "key-ann-0001", "bob": "key-bob-0001"}, "admin_keys": admins}, "audit": {"enabled": True}}  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        environment = {"LLM_INTERACTIVE_PROXY_API_KEY": ""}
        with running(tmp_path, "--config", str(tmp_path / "config.json"), env=environment) as proxy:

            def get(key: str, proxy: Proxy = proxy) -> Answer:
                return proxy.get("/audit/logs", key=key)

            assert get("key-bob-0001").status == expected
            assert get("key-ann-0001").status == 403


# The file


def test_given_a_file_then_one_json_line_per_entry(audited: Scene, file: Path) -> None:
    entry = asked(audited, "anthropic-messages", "up-anthropic:m", say)

    def lines() -> list[dict[str, Any]]:
        return [line for line in map(json.loads, file.read_text().splitlines()) if line["session"] == entry["session"]]

    until(lambda: len(lines()) == 1, "the line")
    assert lines() == [entry]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
def test_the_file_is_for_its_owner_only(audited: Scene, file: Path) -> None:
    asked(audited, "openai-chat", "up-chat:m", say)
    until(file.exists, "the file")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_a_file_that_cannot_be_written_costs_a_warning_and_no_request(tmp_path: Path) -> None:
    with running(tmp_path, "--enable-audit", env={"AUDIT_FILE": str(tmp_path)}) as proxy:
        for _ in range(3):
            assert proxy.post(path_of("openai-chat", ""), body_of("openai-chat", "demo:echo")).status == 200
        assert proxy.get("/audit/logs").json["total"] == 3
        until(lambda: "the audit log cannot be written" in proxy.printed.text, "the warning")
        assert proxy.printed.text.count("the audit log cannot be written") == 1
