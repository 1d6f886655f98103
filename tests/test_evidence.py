"""The statistics behind the tables of docs/results.md."""

import evidence_report
import numpy as np
import pytest
import scipy.stats
from contenders import CONTENDERS, MISSIONS, SECTIONS
from corrections import TAKEN_BACK

from scout.cli import compose_experiment

RETURNS = {"default": [30.0, 28.0], "one": [27.0], "three": [24.0, 25.0, 29.0]}


@pytest.fixture(autouse=True)
def known_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three contenders, of which each seed's return is known."""
    monkeypatch.setattr(evidence_report, "returns", lambda name: np.array(RETURNS[name]))


def test_the_noise_is_pooled_over_contenders() -> None:
    """Squares 1 + 1, 0 and 4 + 1 + 9 over one, no and two degrees of freedom: sqrt(16 / 3), with three."""
    assert evidence_report.deviation_of_seeds([*RETURNS]) == (pytest.approx((16 / 3) ** 0.5), 3)


def test_two_groups_are_compared_as_students_test_does() -> None:
    """With the noise of these two alone, the interval is scipy's of the test for equal variances."""
    noise = evidence_report.deviation_of_seeds(["default", "three"])
    found = scipy.stats.ttest_ind(RETURNS["three"], RETURNS["default"]).confidence_interval(0.95)
    assert evidence_report.difference("three", "default", noise) == f"-3.00 ({found.low:+.2f} to {found.high:+.2f})"


def test_a_single_seed_has_an_interval_by_the_others_noise() -> None:
    """27 against 29: t of three degrees of freedom (3.182) x sqrt(16 / 3) x sqrt(1 + 1 / 2) is 9.00."""
    noise = evidence_report.deviation_of_seeds([*RETURNS])
    assert evidence_report.difference("one", "default", noise) == "-2.00 (-11.00 to +7.00)"


@pytest.mark.parametrize("name", CONTENDERS)
def test_each_contender_is_a_valid_run(name: str) -> None:
    """Its overrides compose, its script is one of the two, and it is judged on missions that there are."""
    contender = CONTENDERS[name]
    compose_experiment(*contender.overrides)
    assert contender.script == ("train.py",) or contender.script[1] in TAKEN_BACK
    assert set(contender.judged_on) <= set(MISSIONS)
    assert sum(name in section for section in SECTIONS.values()) == 1
