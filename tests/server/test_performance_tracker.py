"""OPS-14: the performance tracker: what it measures, and the line that it makes of it."""

from __future__ import annotations

import re
import time

import pytest

from llm_proxy import performance_tracker
from llm_proxy.performance_tracker import PHASES, track_request_performance


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(performance_tracker, "perf_counter", made)
    return made


def test_given_the_context_manager_around_a_pause_then_the_elapsed_time_is_no_shorter() -> None:
    with track_request_performance() as perf:
        time.sleep(0.05)  # the specification's own example
    assert 50 <= perf.elapsed_time_ms < 5000


def test_the_elapsed_time_is_live_inside_and_final_after(clock: Clock) -> None:
    with track_request_performance(session_id="s") as perf:
        assert perf.elapsed_time_ms == 0
        clock.now += 0.25
        assert perf.elapsed_time_ms == pytest.approx(250)
        assert perf.metrics.total_ms is None
    clock.now += 1
    assert perf.elapsed_time_ms == pytest.approx(250)
    assert perf.metrics.total_ms == pytest.approx(250)
    assert perf.metrics.session_id == "s"


def test_given_an_exception_inside_then_it_propagates_and_the_time_is_set(clock: Clock) -> None:
    with (
        pytest.raises(KeyError, match="inside"),
        track_request_performance() as perf,
        perf.phase("backend_call"),
    ):
        clock.now += 0.1
        raise KeyError("inside")
    clock.now += 1
    assert perf.elapsed_time_ms == pytest.approx(100)
    assert perf.metrics.phases == {"backend_call": pytest.approx(100)}


def test_phases_add_up_and_the_inner_one_counts_once(clock: Clock) -> None:
    with track_request_performance() as perf:
        for _ in range(2):
            with perf.phase("response_processing"):
                clock.now += 0.01
                with perf.phase("backend_call"):
                    clock.now += 0.1
                clock.now += 0.02
        clock.now += 0.005
        with perf.phase("mine"):
            clock.now += 0.001
            assert perf.metrics.phases["mine"] == pytest.approx(1)
    assert perf.metrics.phases == {
        "response_processing": pytest.approx(60),
        "backend_call": pytest.approx(200),
        "mine": pytest.approx(1),
    }
    assert perf.metrics.total_ms == pytest.approx(266)


def test_overhead_is_what_neither_the_client_nor_the_provider_took(clock: Clock) -> None:
    with track_request_performance() as perf:
        with perf.phase("request_body"):
            clock.now += 1
        with perf.phase("command_processing"):
            clock.now += 0.002
        with perf.phase("backend_call"):
            clock.now += 3
            assert perf.overhead_ms == pytest.approx(2)
        clock.now += 0.001
    assert perf.metrics.overhead_ms == pytest.approx(3)


def test_overhead_ends_with_the_first_content_of_a_stream(clock: Clock) -> None:
    with track_request_performance() as perf:
        clock.now += 0.004
        perf.answered()
        with perf.phase("response_processing"):
            clock.now += 20
        perf.answered()
    assert perf.metrics.overhead_ms == pytest.approx(4)
    assert perf.metrics.total_ms == pytest.approx(20_004)


def test_the_line_has_all_fields(clock: Clock) -> None:
    with track_request_performance() as perf:
        for number, name in enumerate(PHASES, 1):
            with perf.phase(name):
                clock.now += number / 1000
    assert perf.summary("ses_1", "openai", "gpt-5", True, False) == (
        "PERF_SUMMARY session=ses_1 total=10.0 backend=openai model=gpt-5 streaming=true commands=false "
        "cmd_proc=1.00 backend_sel=2.00 backend_call=3.00 resp_proc=4.00 overhead=7.00"
    )


@pytest.mark.parametrize("model", ["two words", "new\nline", "", "x total=1", "t\tb"])
def test_a_value_ends_at_the_next_blank_whatever_a_client_names(model: str) -> None:
    with track_request_performance() as perf:
        pass
    line = perf.summary("", "openai", model, False, True)
    fields = dict(field.split("=", 1) for field in line.split(" ")[1:])
    assert list(fields) == [
        "session", "total", "backend", "model", "streaming", "commands",
        "cmd_proc", "backend_sel", "backend_call", "resp_proc", "overhead",
    ]  # fmt: skip
    assert fields["session"] == "-"
    assert re.fullmatch(r"\S+", fields["model"])
