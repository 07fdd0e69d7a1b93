"""OPS-05 and OPS-06 through a running proxy: what a capture holds of real calls, and that requests never suffer from it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from llm_proxy.store.capture.reading import Following, Reading, files
from tests.e2e.asking import PAIRS, body_of, keys, path_of, say, started, target
from tests.faults.stage import deltas, ending, whole
from tests.server.process import Answer, Proxy
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Close, Hang, Moment, Pause, Reply, Send, Upstream, upstream_in_thread

SOON: Final = 0.05
NOT_THERE = "http://127.0.0.1:9"


class Captured:
    """A proxy that captures, and its provider."""

    def __init__(self, proxy: Proxy, upstream: Upstream, path: Path) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self.path = path

    def ask(
        self,
        model: str,
        stream: bool = False,
        client: Protocol = "openai-chat",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        return self.proxy.post(path_of(client, model, stream), body_of(client, model, stream, **more), headers)

    def entries(self, answer: Answer | str, calls: int = 1) -> list[dict[str, Any]]:
        """The lines of a request, when so many of its calls have ended."""
        id = answer if isinstance(answer, str) else answer.headers["x-request-id"]
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [line for line in lines(self.path) if line["metadata"].get("request_id") == id]
            return sum(line["direction"] in ("stream_end", "inbound_response") for line in found) >= calls

        until(there)
        return found

    def everything(self) -> str:
        return "".join(path.read_text() for path in files(self.path))


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines; fails when one is no JSON."""
    return [json.loads(line) for name in files(path) for line in name.read_bytes().split(b"\n") if line]


def until(condition: Callable[[], bool], within: float = 15.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextmanager
def capturing(folder: Path, name: str = "capture.jsonl", **logging: Any) -> Iterator[Captured]:
    path = folder / name
    options = {
        "capture_file": str(path),
        "capture_flush_interval": SOON,
        **{f"capture_{key}": value for key, value in logging.items()},
    }
    with upstream_in_thread(say) as upstream:
        backends = {
            **backends_at(upstream.url),
            "keyed": {
                "type": "openai",
                "base_url": f"{upstream.url}/keyed/v1",
                "api_keys": keys("a", "b"),
                "policy": "first",
            },
            "gone": {"type": "openai", "base_url": f"{NOT_THERE}/v1", "no_auth": True},
        }
        routes = {"both": {"policy": "m", "elements": ["gone:m1", "up-chat:m2"]}}
        config = {
            "backends": backends,
            "failover_routes": routes,
            "logging": options,
            "redact_api_keys_in_prompts": False,
        }
        with started(config=config) as proxy:
            yield Captured(proxy, upstream, path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with capturing(tmp_path_factory.mktemp("capture")) as captured:
        yield captured


@pytest.fixture
def captured(shared: Captured) -> Captured:
    shared.upstream.script = say
    shared.upstream.forget()
    return shared


def directions(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["direction"] for entry in entries]


# What is captured


def test_given_one_streamed_request_then_request_start_n_chunks_and_end(captured: Captured) -> None:
    pieces = [b"".join(deltas("openai-chat", 1)), deltas("openai-chat", 2)[-1], b"".join(ending("openai-chat"))]
    moments = [Moment(), Moment()]
    steps = [Send(pieces[0]), Pause(moments[0]), Send(pieces[1]), Pause(moments[1]), Send(pieces[2])]
    captured.upstream.script = Reply.sse(*steps)
    stream = captured.proxy.stream(
        path_of("openai-chat", "up-chat:m"), body_of("openai-chat", "up-chat:m", True, session_id="s-one")
    )
    stream.line()
    moments[0].happen()
    while b"w1" not in stream.line():
        pass
    moments[1].happen()
    stream.rest()

    def mine() -> list[dict[str, Any]]:
        return [line for line in lines(captured.path) if line["session_id"] == "s-one"]

    until(lambda: directions(mine())[-1:] == ["stream_end"])
    entries = mine()
    assert lines(captured.path)[0]["payload"] == {"format_version": "buffered_v1"}
    assert directions(entries) == ["outbound_request", "stream_start", *["stream_chunk"] * 3, "stream_end"]
    chunks = entries[2:5]
    assert [chunk["payload"] for chunk in chunks] == [piece.decode() for piece in pieces]
    assert [chunk["metadata"]["chunk_number"] for chunk in chunks] == [1, 2, 3]
    assert [chunk["metadata"]["chunk_bytes"] for chunk in chunks] == [len(piece) for piece in pieces]
    end = entries[-1]["payload"]
    assert (end["complete"], end["total_chunks"], end["total_bytes"]) == (True, 3, sum(map(len, pieces)))
    request = entries[0]
    assert request["payload"] == captured.upstream.requests[0].json
    assert request["destination"] == f"{captured.upstream.url}/v1/chat/completions"
    assert request["source"] == "127.0.0.1"
    assert (request["backend"], request["model"], request["session_id"]) == ("up-chat", "m", "s-one")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "back"), PAIRS)
def test_the_body_is_what_went_upstream_and_the_answer_what_came(
    captured: Captured, client: Protocol, back: Protocol, stream: bool
) -> None:
    answer = captured.ask(target(back), stream, client)
    assert answer.status == 200
    first, *rest = captured.entries(answer)
    assert first["payload"] == captured.upstream.requests[0].json
    assert first["metadata"]["attempt"] == 1
    assert rest[-1]["metadata"]["status"] == 200
    if rest[0]["direction"] == "inbound_response":
        assert rest[0]["payload"] == whole(back, "w0 w1 w2 ")
    else:
        text = "".join(entry["payload"] for entry in rest[1:-1]) + rest[-1]["payload"].get("rest", "")
        assert text.encode() == b"".join([*deltas(back), *ending(back)])


def test_the_source_names_the_agent_and_the_key_its_name(captured: Captured) -> None:
    answer = captured.ask("keyed:m", headers={"User-Agent": "codex_cli_rs/0.50"})
    request, response = captured.entries(answer)
    assert request["source"] == "127.0.0.1(codex_cli_rs/0.50)"
    assert request["metadata"]["client_host"] == "127.0.0.1"
    assert request["metadata"]["user_agent"] == "codex_cli_rs/0.50"
    assert request["key_name"] == "a"
    assert (response["source"], response["destination"]) == ("keyed", request["source"])


def test_given_a_2_attempt_failover_then_two_outbound_requests_with_attempt_1_and_2(captured: Captured) -> None:
    answer = captured.ask("both")
    entries = captured.entries(answer, calls=2)
    assert directions(entries) == ["outbound_request", "inbound_response"] * 2
    requests = entries[::2]
    assert [(entry["backend"], entry["model"], entry["metadata"]["attempt"]) for entry in requests] == [
        ("gone", "m1", 1),
        ("up-chat", "m2", 2),
    ]
    assert entries[1]["metadata"]["status"] is None
    assert "Back end gone" in entries[1]["payload"]["failure"]
    assert entries[3]["metadata"]["status"] == 200


def test_errors_are_captured_with_their_body(captured: Captured) -> None:
    captured.upstream.script = Reply.json(
        {"error": {"message": "no such model", "type": "invalid_request_error"}}, status=404
    )
    answer = captured.ask("up-chat:m")
    _, response = captured.entries(answer)
    assert response["metadata"]["status"] == 404
    assert response["payload"]["error"]["message"] == "no such model"


def test_a_stream_that_breaks_says_so_with_its_totals(captured: Captured) -> None:
    piece = b"".join(deltas("openai-chat"))
    captured.upstream.script = Reply.sse(Send(piece), Close())
    end = captured.entries(captured.ask("up-chat:m", True))[-1]
    assert end["payload"]["complete"] is False
    assert end["payload"]["failure"]
    assert (end["payload"]["total_chunks"], end["payload"]["total_bytes"]) == (1, len(piece))


def test_given_a_client_that_leaves_then_the_end_says_it(captured: Captured) -> None:
    captured.upstream.script = Reply.sse(Send(b"".join(deltas("openai-chat"))), Hang())
    stream = captured.proxy.stream(
        path_of("openai-chat", "up-chat:m"), body_of("openai-chat", "up-chat:m", True, session_id="s-left")
    )
    stream.line()
    stream.close()

    def ends() -> list[dict[str, Any]]:
        return [
            line
            for line in lines(captured.path)
            if line["session_id"] == "s-left" and line["direction"] == "stream_end"
        ]

    until(lambda: bool(ends()))
    assert ends()[0]["payload"]["failure"] == "the client left"
    assert ends()[0]["payload"]["complete"] is False


def test_embeddings_completions_and_counting_are_captured(captured: Captured) -> None:
    body = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    captured.upstream.script = Reply.json(body)
    answer = captured.proxy.post("/v1/embeddings", {"model": "up-chat:m", "input": "x"})
    request, response = captured.entries(answer)
    assert request["payload"] == {"model": "m", "input": "x"}
    assert response["payload"] == body
    captured.upstream.script = Reply.json({"id": "c", "object": "text_completion", "choices": []})
    answer = captured.proxy.post("/v1/completions", {"model": "up-chat:m", "prompt": "x"})
    assert directions(captured.entries(answer)) == ["outbound_request", "inbound_response"]
    captured.upstream.script = Reply.json({"input_tokens": 7})
    answer = captured.proxy.post("/v1/messages/count_tokens", body_of("anthropic-messages", "up-anthropic:m"))
    assert answer.json == {"input_tokens": 7}
    assert captured.entries(answer)[1]["payload"] == {"input_tokens": 7}


def test_several_choices_are_several_calls_of_one_attempt(captured: Captured) -> None:
    answer = captured.ask("up-anthropic:m", n=2)
    entries = captured.entries(answer, calls=2)
    requests = [entry["metadata"] for entry in entries if entry["direction"] == "outbound_request"]
    assert [(one["attempt"], one["call"]) for one in requests] == [(1, 1), (1, 2)]


def test_local_replies_are_not_captured(captured: Captured) -> None:
    answer = captured.ask("up-chat:m", said="!/help")
    assert captured.upstream.requests == []
    after = captured.ask("up-chat:m")
    captured.entries(after)
    assert [
        line for line in lines(captured.path) if line["metadata"].get("request_id") == answer.headers["x-request-id"]
    ] == []


def test_given_the_provider_key_in_a_prompt_with_redaction_off_then_the_file_does_not_contain_it(
    captured: Captured,
) -> None:
    key = keys("a")["a"]
    for stream in (False, True):
        answer = captured.ask("keyed:m", stream, said=f"my key is {key}, and sk-{'Ab1' * 10}")
        [request, *_] = captured.entries(answer)
        assert key in json.dumps(captured.upstream.requests[-1].json)
        assert request["payload"]["messages"][-1]["content"] == "my key is ***, and ***"
    captured.upstream.script = Reply.sse(
        Send(b'data: {"error": "key ' + key[:8].encode()), Pause(0.05), Send(key[8:].encode() + b'"}\n\n')
    )
    captured.entries(captured.ask("keyed:m", True))
    text = captured.everything()
    assert key not in text
    assert key not in "".join(line["payload"] for line in lines(captured.path) if line["direction"] == "stream_chunk")


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX systems")
def test_the_file_is_the_owners_alone(captured: Captured) -> None:
    captured.entries(captured.ask("up-chat:m"))
    assert captured.path.stat().st_mode & 0o777 == 0o600


def test_the_status_page_counts_what_was_written_and_dropped(captured: Captured) -> None:
    captured.entries(captured.ask("up-chat:m"))
    status = captured.proxy.get("/internal/status").json["capture"]
    assert status["file"] == str(captured.path)
    assert status["written"] > 1
    assert (status["dropped"], status["failing"]) == (0, "")


# Where it is written


def test_given_a_path_that_cannot_be_written_then_requests_succeed_and_a_warning_appears(tmp_path: Path) -> None:
    (tmp_path / "capture.jsonl").mkdir()
    with capturing(tmp_path) as captured:
        assert [captured.ask("up-chat:m", stream).status for stream in (False, True, False)] == [200] * 3
        until(lambda: "the capture cannot be written to" in captured.proxy.printed.text)
        (tmp_path / "capture.jsonl").rmdir()
        assert len(captured.entries(captured.ask("up-chat:m"))) == 2
        assert captured.proxy.printed.text.count("the capture cannot be written to") == 1


def test_a_relative_name_lies_in_the_data_directory(tmp_path: Path) -> None:
    with started("--capture-file", "calls.jsonl", data_dir=tmp_path / "data") as proxy:
        proxy.post("/v1/chat/completions", body_of("openai-chat", "demo:echo"))
        proxy.stop()
    assert [line["direction"] for line in lines(tmp_path / "data" / "calls.jsonl")] == [
        "system_init",
        "outbound_request",
        "inbound_response",
    ]


def test_without_the_option_nothing_is_written(tmp_path: Path) -> None:
    with started(data_dir=tmp_path / "data") as proxy:
        proxy.post("/v1/chat/completions", body_of("openai-chat", "demo:echo"))
        proxy.stop()
    assert not any(
        "outbound_request" in path.read_text(errors="replace")
        for path in (tmp_path / "data").iterdir()
        if path.is_file()
    )


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_sighup_reopens_and_a_reload_changes_the_file_or_ends_it(tmp_path: Path) -> None:
    config: dict[str, Any] = {"logging": {"capture_file": str(tmp_path / "a.jsonl"), "capture_flush_interval": SOON}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))

    def ask(proxy: Proxy) -> None:
        assert proxy.post("/v1/chat/completions", body_of("openai-chat", "demo:echo")).status == 200

    def count(name: str) -> int:
        return sum(line["direction"] == "inbound_response" for line in lines(tmp_path / name))

    with started("--config", str(file), "--disable-config-watch") as proxy:
        ask(proxy)
        until(lambda: count("a.jsonl") == 1)
        (tmp_path / "a.jsonl").rename(tmp_path / "moved.jsonl")
        proxy.send_signal(signal.SIGHUP)
        until(lambda: (tmp_path / "a.jsonl").exists() or bool(ask(proxy)))
        until(lambda: count("a.jsonl") >= 1)
        assert count("moved.jsonl") == 1
        config["logging"]["capture_file"] = str(tmp_path / "b.jsonl")
        file.write_text(json.dumps(config))
        assert proxy.post("/internal/reload", {}).status == 200
        before = count("a.jsonl")
        ask(proxy)
        until(lambda: count("b.jsonl") == 1)
        file.write_text("{}")
        assert proxy.post("/internal/reload", {}).status == 200
        ask(proxy)
        proxy.stop()
    assert (count("a.jsonl"), count("b.jsonl")) == (before, 1)


def test_given_kill_9_then_at_most_the_last_line_is_torn(tmp_path: Path) -> None:
    with capturing(tmp_path, flush_interval=0.002) as captured:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(captured.ask, "up-chat:m", True) for _ in range(60)]
            until(lambda: captured.path.exists() and captured.path.stat().st_size > 20_000)
            captured.proxy.send_signal(signal.SIGKILL)
            for future in futures:
                future.exception()
        data = captured.path.read_bytes().split(b"\n")
        for line in data[:-1]:
            json.loads(line)
        reading = Reading(captured.path)
        assert len(list(reading)) >= len(data) - 1
        assert reading.torn <= 1


def test_rotation_while_calls_are_captured_loses_nothing_for_a_reader(tmp_path: Path) -> None:
    with capturing(tmp_path, max_bytes=20_000, max_files=200) as captured:
        following = Following(captured.path, from_start=True)
        followed: list[bytes] = []
        for _ in range(30):
            captured.ask("up-chat:m", True)
            followed += following.poll()
        until(lambda: sum(line["direction"] == "stream_end" for line in lines(captured.path)) == 30)
        followed += following.poll()
        following.close()
        assert len(files(captured.path)) > 2
        assert [json.loads(line) for line in followed] == lines(captured.path)


# Under load (D-04)

RATE, SECONDS, CLIENTS = 200, 15.0, 16


class Load:
    """200 requests a second, half of them streams."""

    def __init__(self, captured: Captured) -> None:
        self.ids: list[str] = []
        self._captured = captured
        self._begun = time.monotonic()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._work = [self._pool.submit(self._client, number) for number in range(CLIENTS)]

    @property
    def lasts(self) -> bool:
        return not all(future.done() for future in self._work)

    def _client(self, number: int) -> None:
        for n in range(int(RATE * SECONDS) // CLIENTS):
            # The pace of the load, not a wait for anything.
            time.sleep(max(0.0, self._begun + (n * CLIENTS + number) / RATE - time.monotonic()))
            answer = self._captured.ask("up-chat:m", n % 2 == 0)
            assert answer.status == 200
            self.ids.append(answer.headers["x-request-id"])

    def end(self) -> None:
        for future in self._work:
            future.result()
        self._pool.shutdown()


def of(everything: list[dict[str, Any]], *wanted: str) -> list[str]:
    return sorted(line["metadata"]["request_id"] for line in everything if line["direction"] in wanted)


@pytest.mark.long
def test_under_load_rotation_loses_and_doubles_nothing_and_the_caps_hold(tmp_path: Path) -> None:
    with capturing(tmp_path, max_bytes=300_000, max_files=10_000, total_max_bytes=0) as captured:
        load, following = Load(captured), Following(captured.path, from_start=True)
        followed: list[bytes] = []
        while load.lasts:
            followed += following.poll()
            time.sleep(0.1)
        load.end()
        captured.proxy.stop()
        followed += following.poll()
        following.close()
        everything = lines(captured.path)
        assert (
            of(everything, "outbound_request") == of(everything, "stream_end", "inbound_response") == sorted(load.ids)
        )
        assert not any("dropped" in line["metadata"] for line in everything)
        assert len(files(captured.path)) > 5
        assert all(path.stat().st_size <= 300_000 for path in files(captured.path))
        assert [json.loads(line) for line in followed] == everything


@pytest.mark.long
def test_under_load_the_sum_of_all_files_stays_below_its_cap(tmp_path: Path) -> None:
    with capturing(tmp_path, max_bytes=100_000, max_files=50, total_max_bytes=400_000) as captured:
        load = Load(captured)
        while load.lasts:
            sizes = []
            for path in files(captured.path):
                with suppress(FileNotFoundError):
                    sizes.append(path.stat().st_size)
            assert sum(sizes) <= 500_000, "a file may be seen under two names while it is renamed"
            time.sleep(0.01)
        load.end()
        captured.proxy.stop()
        assert sum(path.stat().st_size for path in files(captured.path)) <= 400_000
        lines(captured.path)


@pytest.mark.long
def test_under_load_another_program_renames_the_file(tmp_path: Path) -> None:
    moved: list[Path] = []
    with capturing(tmp_path, max_bytes=0) as captured:
        load = Load(captured)
        while load.lasts:
            time.sleep(0.3)
            if captured.path.exists():
                moved.append(tmp_path / f"rotated-{len(moved)}")
                captured.path.rename(moved[-1])
        load.end()
        captured.proxy.stop()
        everything = [json.loads(line) for path in moved for line in path.read_bytes().splitlines()] + lines(
            captured.path
        )
        assert (
            of(everything, "outbound_request") == of(everything, "stream_end", "inbound_response") == sorted(load.ids)
        )
        assert len(moved) > 5


@pytest.mark.long
def test_under_load_another_program_copies_and_empties_the_file(tmp_path: Path) -> None:
    """What is written between its two steps is lost by the nature of the method; nothing is doubled, and what follows is whole."""
    copies: list[bytes] = []
    with capturing(tmp_path, max_bytes=0) as captured:
        load = Load(captured)
        while load.lasts:
            time.sleep(0.3)
            if captured.path.exists():
                copies.append(captured.path.read_bytes())
                os.truncate(captured.path, 0)
        load.end()
        captured.proxy.stop()
        everything = lines(captured.path)
        assert everything[0]["direction"] == "system_init"
        everything += [json.loads(line) for copy in copies for line in copy.split(b"\n")[:-1]]
        requests = of(everything, "outbound_request")
        assert len(requests) == len(set(requests)) > len(load.ids) * 0.9
