import numpy as np

from daemon.events import EventKind
from daemon.photometry.cycles import CycleBook
from daemon.photometry.outliers import OutlierBook, robust_score
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

IDS = np.arange(100, 130)
ALL = np.ones(30, bool)


def soc(contrast: np.ndarray) -> np.ndarray:
    return contrast / 0.2


def halves(late: float, cycles: int = 1) -> list:
    """Measures of halves in which particle 107 lags by `late` of the half, both ways."""
    starts = np.linspace(0.10, 0.12, 30)
    starts[7] += late
    book, measures = CycleBook(IDS, np.ones(30)), []
    for index in range(2 * cycles):
        half = make_half(index, 1 - 2 * (index % 2), 3600.0 * index, 3600.0 * (index + 1))
        way = np.stack([ramp(721, start, start + 0.6) for start in starts], axis=1)
        contrast = 0.2 * (way if index % 2 == 0 else 1.0 - way)
        measures.append(book.add(make_curves(half, contrast, 1e-5), ALL))
    return measures


def test_the_particle_that_lags_is_named_with_its_reason_and_told_once() -> None:
    book = OutlierBook()
    events = [event for half in halves(0.2, cycles=3) for event in book.add(half, soc, IDS, ALL, half.end_t_s + 1.0)]
    lag = [event for event in events if event.particle_id == 107 and "lags by" in event.detail]
    assert len(lag) == 1
    assert lag[0].kind is EventKind.OUTLIER
    assert "robust sigmas" in lag[0].detail
    assert lag[0].t_s < lag[0].detected_t_s
    assert book.shown[0]["particle_id"] == 107
    assert book.shown[0]["reason"].startswith("particle 107 ")


def test_it_is_told_again_when_distinctly_worse() -> None:
    book = OutlierBook()
    counts = []
    for late in (0.1, 0.11, 0.2):
        told = [event for half in halves(late) for event in book.add(half, soc, IDS, ALL, 0.0)]
        counts.append(sum("lags by" in event.detail for event in told))
    assert counts == [1, 0, 1]


def test_half_a_cycle_is_shown_but_not_told() -> None:
    book = OutlierBook()
    first = halves(0.2)[0]
    assert [event for event in book.add(first, soc, IDS, ALL, 0.0) if "lags" in event.detail] == []
    assert any(entry["by"] == "lag_s" and "on charge" in entry["reason"] for entry in book.shown)


def test_nothing_stands_out_of_nothing() -> None:
    book = OutlierBook()
    assert book.add(halves(0.2)[0], soc, IDS, np.zeros(30, bool), 0.0) == []
    assert book.shown == []


def test_robust_scores_need_a_population_and_know_noise() -> None:
    assert np.isnan(robust_score(np.array([1.0, 2.0, 3.0]))).all()
    assert np.isnan(robust_score(np.ones(10))).all()
    values = np.array([1, 2, 3, 4, 100.0])
    assert robust_score(values)[4] > 10
    assert robust_score(values, np.array([0, 0, 0, 0, 50.0]))[4] < 3
