"""What was billed corrects what is counted, per back end and model, and one odd bill spoils nothing."""

from __future__ import annotations

import pytest

from llm_proxy.tokens import calibration
from llm_proxy.tokens.calibration import Calibration


def taught(*bills: tuple[int, int]) -> float:
    known = Calibration()
    for counted, billed in bills:
        known.learn("b", "m", False, counted, billed)
    return known.factor("b", "m", False)


def test_a_steady_difference_is_learned() -> None:
    assert taught(*[(1000, 1200)] * 20) == pytest.approx(1.2, rel=0.02)
    assert taught(*[(1000, 800)] * 20) == pytest.approx(0.8, rel=0.02)


def test_after_three_bills_most_of_it_is() -> None:
    assert taught(*[(1000, 1200)] * 3) > 1.13


def test_one_odd_bill_moves_little() -> None:
    assert taught(*[(1000, 1000)] * 20, (1000, 100_000)) < 1.1
    assert taught((1000, 100_000)) <= 1.5


def test_a_change_at_the_provider_is_followed() -> None:
    assert taught(*[(1000, 1000)] * 50, *[(1000, 1300)] * 30) == pytest.approx(1.3, rel=0.03)


@pytest.mark.parametrize("bill", [(0, 100), (100, 0), (-5, 100), (10, 500), (500, 10)])
def test_tiny_and_senseless_bills_teach_nothing(bill: tuple[int, int]) -> None:
    assert taught(bill) == 1


def test_back_ends_models_and_ways_of_counting_are_apart() -> None:
    known = Calibration()
    known.learn("b", "m", False, 100, 200)
    assert [known.factor(*key) for key in (("b", "m", True), ("b", "n", False), ("c", "m", False))] == [1, 1, 1]


def test_the_number_of_models_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST", 3)
    known = Calibration()
    for name in ("a", "b", "c", "a", "d"):
        known.learn("x", name, False, 100, 150)
    assert [known.factor("x", name, False) != 1 for name in "abcd"] == [True, False, True, True]
