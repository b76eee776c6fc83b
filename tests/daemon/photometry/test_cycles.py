import numpy as np
import pytest

from daemon.photometry.cycles import CycleBook
from daemon.tables import CYCLES
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

POINTS = 721  # one every 5 s


def linear(contrast: np.ndarray) -> np.ndarray:
    return contrast / 0.2


def book(count: int, weights: list[float] | None = None) -> CycleBook:
    return CycleBook(np.arange(count) + 1, np.array(weights or [1.0] * count))


def rows_of(contrast: np.ndarray, weights: list[float] | None = None) -> list[dict]:
    cycles = book(contrast.shape[1], weights)
    measures = cycles.add(make_curves(make_half(), contrast, 1e-5), np.ones(contrast.shape[1], bool))
    return cycles.rows(measures, linear)


def test_rows_have_the_table_s_columns() -> None:
    assert tuple(rows_of(0.2 * ramp(POINTS, 0, 1)[:, None])[0]) == CYCLES


def test_a_hand_made_ramp_measures_as_drawn() -> None:
    row = rows_of(0.2 * ramp(POINTS, 0.25, 0.75)[:, None])[0]
    assert (row["particle_id"], row["cycle"], row["half"]) == (1, 0, "charge")
    assert row["swing"] == pytest.approx(0.2, rel=1e-3)
    assert row["soc_start"] == pytest.approx(0.0, abs=1e-3)
    assert row["soc_end"] == pytest.approx(1.0, abs=1e-3)
    assert row["onset_t_s"] == pytest.approx(900 + 0.05 * 1800, abs=3)
    assert row["duration_s"] == pytest.approx(0.9 * 1800, abs=4)
    assert row["rate_per_h"] == pytest.approx(2.0, rel=2e-3)
    assert row["lag_s"] == pytest.approx(0.0, abs=1.0)
    assert row["retention"] == 1.0
    assert np.isnan(row["hysteresis_v"])


def test_lag_is_against_the_area_weighted_ensemble() -> None:
    contrast = 0.2 * np.stack([ramp(POINTS, 0.2, 0.6), ramp(POINTS, 0.4, 0.8)], axis=1)
    even = rows_of(contrast)
    assert even[0]["lag_s"] == pytest.approx(-360, abs=4)
    assert even[1]["lag_s"] == pytest.approx(360, abs=4)
    heavy = rows_of(contrast, [99.0, 1.0])
    assert heavy[0]["lag_s"] == pytest.approx(0.0, abs=8)
    assert heavy[1]["lag_s"] == pytest.approx(720, abs=12)


def test_fade_is_told_of_a_particle_that_died() -> None:
    cycles = book(1)
    x = ramp(POINTS, 0, 1)[:, None]
    cycles.add(make_curves(make_half(), 0.2 * x, 1e-5), np.ones(1, bool))
    later = make_half(2, 1, 7200.0, 10800.0)
    measures = cycles.add(make_curves(later, 0.002 * x, 1e-5), np.zeros(1, bool))
    assert measures.retention[0] == pytest.approx(0.01, rel=0.01)
    assert np.isnan(measures.onset_t_s[0])


def test_falling_contrast_measures_like_rising() -> None:
    x = ramp(POINTS, 0.25, 0.75)
    first, second = rows_of(np.stack([0.2 * x, -0.2 * x], axis=1))
    for name in ("swing", "onset_t_s", "duration_s", "rate_per_h"):
        assert first[name] == pytest.approx(second[name], rel=5e-3)


def test_a_still_particle_has_a_swing_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    contrast = np.stack([0.2 * ramp(POINTS, 0, 1), rng.normal(0, 1e-3, POINTS)], axis=1)
    still = rows_of(contrast)[1]
    assert still["swing"] < 0.01
    for name in ("onset_t_s", "duration_s", "rate_per_h", "lag_s", "hysteresis_v", "retention"):
        assert np.isnan(still[name])


def test_retention_compares_equal_rates_and_halves() -> None:
    cycles, alive = book(1), np.ones(1, bool)
    got = []
    for index, (sign, current, swing) in enumerate(
        [(1, 1.0, 0.2), (-1, 1.0, 0.18), (1, 2.0, 0.1), (-1, 1.0, 0.09), (1, 1.02, 0.15)]
    ):
        half = make_half(index, sign, index * 3600.0, (index + 1) * 3600.0, current_ma=current)
        got.append(cycles.add(make_curves(half, swing * ramp(POINTS, 0, 1)[:, None], 1e-5), alive).retention[0])
    assert got == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.75], rel=2e-3)


def test_hysteresis_is_the_voltage_between_the_halves_at_equal_contrast() -> None:
    cycles, alive = book(1), np.ones(1, bool)
    x = ramp(POINTS, 0, 1)[:, None]
    cycles.add(make_curves(make_half(0, 1), 0.2 * x, 1e-5), alive)
    back = make_half(1, -1, 3600.0, 7200.0, start_mah=1.0)
    measures = cycles.add(make_curves(back, 0.2 * x[::-1], 1e-5), alive)
    assert measures.hysteresis_v[0] == pytest.approx(0.2, abs=2e-3)


def test_later_calibrations_reach_kept_halves() -> None:
    cycles = book(1)
    measures = cycles.add(make_curves(make_half(), 0.2 * ramp(POINTS, 0, 1)[:, None], 1e-5), np.ones(1, bool))
    unknown = cycles.rows(measures, lambda contrast: np.full(contrast.shape, np.nan))[0]
    assert np.isnan(unknown["soc_end"])
    assert np.isnan(unknown["rate_per_h"])
    assert cycles.rows(cycles.kept[0], linear)[0]["soc_end"] == pytest.approx(1.0, abs=1e-3)


def test_sigmas_are_what_times_scatter_by() -> None:
    lags, sigmas = [], []
    for seed in range(12):
        contrast = 0.2 * np.stack([ramp(POINTS, 0.0, 1.0)] * 30, axis=1)
        measures = book(30).add(make_curves(make_half(), contrast, 4e-3, seed=seed), np.ones(30, bool))
        lags.append(measures.lag_s)
        sigmas.append(measures.lag_sigma_s)
    assert np.std(lags) == pytest.approx(np.mean(sigmas), rel=0.35)


def test_asymmetry_is_the_ratio_of_the_halves_times() -> None:
    cycles, alive = book(1), np.ones(1, bool)
    cycles.add(make_curves(make_half(0, 1), 0.2 * ramp(POINTS, 0.0, 0.5)[:, None], 1e-5), alive)
    back = make_half(1, -1, 3600.0, 7200.0, start_mah=1.0)
    measures = cycles.add(make_curves(back, 0.2 * (1 - ramp(POINTS, 0.0, 0.75))[:, None], 1e-5), alive)
    assert measures.asymmetry[0] == pytest.approx(np.log(1.5), abs=0.01)
    assert 0 < measures.asymmetry_sigma[0] < 0.01


def test_rows_say_why_times_are_missing() -> None:
    rng = np.random.default_rng(1)
    contrast = np.stack([0.2 * ramp(POINTS, 0, 1), rng.normal(0, 1e-3, POINTS), 0.2 * ramp(POINTS, 0, 1)], axis=1)
    cycles = book(3)
    measures = cycles.add(make_curves(make_half(), contrast, 1e-5), np.array([True, True, False]))
    assert [row["unknown_why"] for row in cycles.rows(measures, linear)] == ["", "within noise", "dead"]


def test_a_half_goes_on_where_the_one_before_left() -> None:
    cycles, alive = book(1), np.ones(1, bool)
    cycles.add(make_curves(make_half(0, 1), 0.2 * ramp(POINTS, 0, 1)[:, None], 1e-5), alive)
    decay = 0.2 * np.exp(-np.linspace(5.0, 3605.0, POINTS) / 40.0)[:, None]
    curves = make_curves(make_half(1, -1, 3605.0, 7205.0), decay, 1e-5)
    joined = cycles.joined(curves)
    assert len(joined.t_s) == len(curves.t_s) + 1
    assert joined.start[0] == pytest.approx(0.2, abs=1e-3)
    assert cycles.add(joined, alive).span_s[0] == pytest.approx(40.0 * np.log(4.0), rel=0.05)


def test_kept_halves_go_on_with_more_particles() -> None:
    cycles = book(2)
    x = 0.2 * np.repeat(ramp(POINTS, 0, 1)[:, None], 3, axis=1)
    cycles.add(make_curves(make_half(0, 1), x[:, :2], 1e-5), np.ones(2, bool))
    cycles.grow(np.arange(3) + 1, np.ones(3))
    why = [row["unknown_why"] for row in cycles.rows(cycles.kept[0], linear)]
    assert why == ["", "", "not measured from its start"]
    back = make_curves(make_half(1, -1, 3600.0, 7200.0), x[::-1], 1e-5)
    measures = cycles.add(cycles.joined(back), np.ones(3, bool))
    assert np.isfinite(measures.asymmetry[:2]).all() and np.isnan(measures.asymmetry[2])
