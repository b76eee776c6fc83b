from dataclasses import replace

import numpy as np
import pytest

from daemon.events import EventKind
from daemon.photometry.fade import FADE, LAG, Health
from daemon.photometry.warnings import SHORTER, WARN_SCORE, WarningBook, probability, warning_words

IDS = np.array([11, 12, 13])


def health(risk: list[float], failed: tuple[bool, ...] = (False, False, False), cycle: int = 20) -> Health:
    score = np.array(risk)
    scores = np.zeros((3, 3))
    scores[:, FADE] = score
    return Health(
        cycle, 1000.0, np.full(3, 0.9), np.full((3, 3), 0.01), np.full((3, 3), 0.001), scores, score, np.full(3, 6.0),
        np.zeros((3, 3)), np.array(failed), np.ones(3, bool),
    )  # fmt: skip


def test_a_warning_has_probability_time_and_words() -> None:
    events, rows = WarningBook(IDS).add(health([0.5, WARN_SCORE + 2, np.nan]), 1010.0)
    assert [event.particle_id for event in events] == [12]
    event = events[0]
    assert event.kind is EventKind.WARNING
    assert 0.5 < event.magnitude < 1
    assert (event.t_s, event.detected_t_s, event.score) == (1000.0, 1010.0, WARN_SCORE + 2)
    assert "loses 1 % of its swing a cycle more than the others" in event.detail
    assert [row["warned"] for row in rows] == [0, 1, 0]
    left = [rows[1][name] for name in ("lead_lo_cycles", "lead_cycles", "lead_hi_cycles")]
    assert 0 < left[0] < left[1] < left[2]
    assert f"about {left[1]:.0f} cycles left ({left[0]:.0f} to {left[2]:.0f})" in event.detail
    assert np.isnan(rows[0]["lead_cycles"])


def test_it_is_told_once_and_again_only_when_distinctly_worse() -> None:
    book = WarningBook(IDS)
    counts = [len(book.add(health([0.0, score, 0.0]), 0.0)[0]) for score in (5.0, 5.5, 6.0, 8.0, 9.0)]
    assert counts == [1, 0, 0, 1, 0]
    assert book.summary() == {"particles_warned": 1}


def test_what_has_failed_or_was_not_measured_is_not_warned_of() -> None:
    book = WarningBook(IDS)
    assert book.add(health([9.0, 9.0, 9.0], failed=(True, True, True)), 0.0)[0] == []
    stale = replace(health([9.0, 9.0, 9.0]), fresh=np.zeros(3, bool))
    assert book.add(stale, 0.0)[0] == []


def test_words_when_no_time_can_be_told() -> None:
    assert "how soon cannot be told" in warning_words(health([5.0, 5.0, 5.0]), 0, 11, np.full(3, np.nan))
    lagging = health([5.0, 5.0, 5.0])
    lagging.scores[0] = 0.0
    lagging.scores[0, LAG] = 6.0
    assert "lags more" in warning_words(lagging, 0, 11, np.array([2.0, 6.0, 13.0]))


def test_the_worse_a_particle_gets_the_less_is_left_and_nothing_is_told_when_it_recovers() -> None:
    leads = []
    for score in (WARN_SCORE, 2 * WARN_SCORE, 1.0):
        book = WarningBook(IDS)
        book.add(health([0.0, WARN_SCORE, 0.0]), 0.0)
        leads.append(book.add(health([0.0, score, 0.0], cycle=21), 0.0)[1][1]["lead_cycles"])
    assert leads[1] == pytest.approx(leads[0] / 2**SHORTER)
    assert np.isnan(leads[2])


def test_probability_rises_with_the_score() -> None:
    risk = probability(np.array([0.0, WARN_SCORE, 8.0, np.nan]))
    assert risk[0] < 0.05 < 0.5 < risk[1] < risk[2] < 1
    assert np.isnan(risk[3])


def test_particles_that_came_later_can_be_warned_of() -> None:
    book = WarningBook(IDS[:1])
    book.grow(IDS)
    assert len(book.add(health([0.0, 0.0, 7.0]), 0.0)[0]) == 1
    assert pytest.approx(book.warned.tolist()) == [False, False, True]
