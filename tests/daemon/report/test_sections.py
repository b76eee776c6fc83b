"""What sections compute, against runs whose truth is a formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.report import accuracy, average, cycles, derivatives, ensemble, particle_map, pictures
from daemon.report.choice import crack_counts, first_cracks, last_retention, standing_cycle
from daemon.report.material import Look, gather
from daemon.report.style import TimeAxis, duration
from tests.daemon.report.synthetic_run import SPAN, SyntheticRun

MADE = SyntheticRun(particles=16, frames=1200, cycles=2, events=0, lag_sigma_s=40.0)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return gather(MADE.write(tmp_path_factory.mktemp("sections") / "r.db"), None, lambda share: None)


def test_the_share_outside_the_mean(material):
    truth = MADE.soc(material.traces.t_s)[:, :-1]
    away = np.abs(truth - truth.mean(axis=1, keepdims=True)) > average.NEAR
    found = average.hidden(material)
    assert found.share == pytest.approx(away.mean(), abs=0.03)
    assert 0 < found.sure <= found.share <= found.worst
    np.testing.assert_allclose(ensemble.mean_soc(material), truth.mean(axis=1), atol=0.02)


def test_the_spread_over_time(material):
    found = ensemble.spread_over_time(ensemble.active_soc(material))
    truth = np.percentile(MADE.soc(material.traces.t_s)[:, :-1], ensemble.QUANTILES, axis=1)
    assert np.nanmax(np.abs(found - truth)) < 0.04
    few = np.full((3, 5), np.nan)
    few[:, :3] = 1.0
    assert np.isnan(ensemble.spread_over_time(few)).all()


def test_a_crack_ends_a_particles_soc(material):
    half_way = MADE.length_s / 2
    events = [Event(EventKind.CRACK, t, t, 3, -0.05) for t in (half_way, half_way + 99)]
    cracked = replace(material, run=replace(material.run, events=events))
    assert crack_counts(cracked.run).tolist() == [0, 0, 2] + [0] * 13
    assert first_cracks(cracked.run)[2] == half_way and np.isinf(first_cracks(cracked.run)[3])
    known = np.isfinite(ensemble.active_soc(cracked))
    assert (known[:, 2] == (cracked.traces.t_s < half_way)).all() and known[:, 3].all()


def test_particles_peaks_follow_the_cells_by_their_lag(material):
    """A ramp has no peak: the potential is bent so that the cell has one in the middle."""
    halves = derivatives.slowest(material)
    assert [half.half for half in halves] == ["charge", "discharge"]
    half = halves[0]
    share = np.abs(half.charge_mah - half.charge_mah[0])
    bent = replace(half, voltage_v=3.5 + 0.5 * (share + 1.6 * (share - 0.5) ** 3))
    found = derivatives.differentiated(material, bent)
    inner = slice(20, -20)
    truth = 1.0 / (0.5 * (1.0 + 4.8 * (np.interp(found.cell.voltage_v, bent.voltage_v, share) - 0.5) ** 2))
    np.testing.assert_allclose(found.cell.slope[inner], truth[inner], rtol=0.05)
    assert len(found.index) == 15, "the dead one does not count"
    assert 4.0 <= found.width_mv < 60.0
    lags = MADE.lags_s[found.index]
    late, early = found.particles.peak_v[lags > 20], found.particles.peak_v[lags < -20]
    assert np.nanmedian(late) > found.cell.peak_v > np.nanmedian(early)


def test_charge_retained_by_the_cell(material):
    numbers, kept = cycles.cell_retention(material.halves, "charge")
    assert numbers.tolist() == [0, 1]
    np.testing.assert_allclose(kept, 1.0, atol=0.02)
    slow = replace(material.halves[2], mean_current_ma=material.halves[0].mean_current_ma / 2, passed_mah=2.0)
    assert cycles.cell_retention([material.halves[0], slow], "charge")[1].tolist() == [1.0, 1.0]


def test_retention_says_nothing_where_each_half_was_the_first_of_its_rate(material):
    np.testing.assert_allclose(last_retention(material.run)[:15], 0.99)
    firsts = dict(material.run.cycles, retention=np.ones(len(material.run.cycles["retention"])))
    assert np.isnan(last_retention(replace(material.run, cycles=firsts))).all()


def test_the_cycle_that_stands_for_the_run_is_not_cut(material):
    assert standing_cycle(material.run, material.halves) == 0
    whole = [replace(half, whole=True) for half in material.halves]
    assert standing_cycle(material.run, whole) == 1
    only = dict(material.run.cycles, lag_s=np.where(material.run.cycles["cycle"] == 1, 1.0, np.nan))
    assert standing_cycle(replace(material.run, cycles=only), material.halves) == 1, "there is no other"


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_scatter_over_the_predicted_noise(material, factor):
    rng = np.random.default_rng(2)
    sigma = np.full((60, 16), 1e-3)
    ramp = np.linspace(0, 0.5, 60)[:, None]
    looks = [Look(ramp + rng.normal(0, factor * 1e-3, (60, 16)), sigma, np.zeros((60, 16), int)) for _ in range(8)]
    looks[0].contrast[30:, 3] += 0.3  # a step is not noise
    ratio = accuracy.noise_ratio(replace(material, looks=looks))
    assert np.median(ratio) == pytest.approx(factor, rel=0.06) and ratio[3] < 1.3 * factor
    came_late = [Look(each.contrast[:, :10], each.contrast_sigma[:, :10], each.flags[:, :10]) for each in looks]
    found = accuracy.noise_ratio(replace(material, looks=came_late))
    assert np.isnan(found[10:]).all() and np.isfinite(found[:10]).all()


def test_frames_missing_by_their_spacing():
    t_s = np.delete(np.arange(100.0), [10, 40, 41, 42])
    assert accuracy.missing_frames(t_s) == 4
    assert accuracy.missing_frames(np.arange(5.0)) == accuracy.missing_frames(np.empty(0)) == 0


def test_the_last_known_value():
    values = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, np.nan]])
    np.testing.assert_array_equal(particle_map.last_known(values), [2.0, np.nan, 3.0])
    assert np.isnan(particle_map.last_known(np.empty((0, 2)))).all()


def test_a_clip_shows_the_mask_and_its_scale(material):
    text = pictures.clip_html(material.reference_dn, material.labels, 4, 0.096, "<5>")
    assert text.count("<polygon") == 1 and "µm</text>" in text and "&lt;5&gt;" in text
    assert "µm" not in pictures.clip_html(material.reference_dn, material.labels, 4, float("nan"), "5")
    assert pictures.clip_html(material.reference_dn, material.labels, 99, 0.096, "none") == ""


def test_an_even_picture_is_grey_and_unknown_pixels_are_black():
    assert (pictures.grey(np.full((3, 3), 7.0)) == 128).all()
    image = np.arange(100.0).reshape(10, 10)
    image[0, 0] = np.nan
    assert pictures.grey(image)[0, 0] == 0 and pictures.grey(image)[-1, -1] == 255


@pytest.mark.parametrize(("length_s", "unit"), [(10, "s"), (900, "min"), (20_000, "h"), (1e6, "d")])
def test_times_in_the_unit_of_the_run(length_s, unit):
    assert TimeAxis.of(length_s).unit == unit
    assert TimeAxis.of(length_s).at(length_s).endswith(f" {unit}")
    assert duration(float("nan")) == "an unknown time"


def test_contrast_spans_what_was_written(material):
    assert material.traces.contrast[:, :-1].max() == pytest.approx(SPAN, abs=0.01)


def test_losses_are_told_once_and_by_their_reason(material):
    event = Event(EventKind.FRAMES_DROPPED, 1.0, 1.0, magnitude=5.0)
    older = replace(material, run=replace(material.run, events=[event]), drops=[])
    assert accuracy._losses(older)[0] == "The camera's own counter misses 5 frames."
    rows = [{"stage": "camera", "reason": "lost", "count": 2}, {"stage": "camera", "reason": "lost", "count": 1},
            {"stage": "recording", "reason": "unreadable", "count": 2}]  # fmt: skip
    table, *words = accuracy._losses(replace(older, drops=rows))
    assert [list(row) for row in table.rows] == [["camera", "lost", 3], ["recording", "unreadable", 2]]
    assert not [each for each in words if "counter" in each]
    assert accuracy._losses(replace(older, run=replace(material.run, events=[])))[0].startswith("No frame was lost")
