"""Science over masks that are edited while the run goes on."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from daemon.engine.measures import Detection, MaskSet
from daemon.events import EventKind
from daemon.photometry.blocks import Block, BlockMeans, History, all_grown, grown
from daemon.photometry.contrast import ContrastMaker
from daemon.photometry.curves import half_curves
from daemon.photometry.halves import Half
from daemon.photometry.science import Science, ScienceSettings
from tests.daemon.photometry.synthetic import (
    CAPACITY_MAH,
    Movie,
    Result,
    Step,
    cell_rows,
    charge_at,
    collect,
    mask_set,
    run,
)

P = 12
CYCLES = [Step(60, 0), Step(3600, 1), Step(3600, -1), Step(3600, 1), Step(3600, -1)]
EDIT_S = 1800.0
"""In the middle of the first charge."""
LATE = P
"""Index of the particle that comes then; `GONE` leaves."""
GONE = 4


def fractions(rows):
    t_s = np.arange(0.0, rows[-1].t_s, 6.0)
    return t_s, np.clip(charge_at(rows)(t_s) / CAPACITY_MAH, 0, 1)


def movie(count):
    """`count` particles that follow the ensemble, each with a size of its own."""
    rows = cell_rows(CYCLES)
    t_s, x = fractions(rows)
    size = 0.1 + 0.02 * np.arange(count)
    return rows, Movie(t_s, x[:, None] * size, sigma=5e-4)


def edited_masks():
    after = mask_set(P + 1)
    return replace(after, version=2, active=np.arange(P + 1) != GONE)


def edited(settings=None, when=EDIT_S, size=50) -> Result:
    """The movie of P + 1 particles, the last one known from `when` on only, and one gone from then on."""
    rows, shown = movie(P + 1)
    first = int(np.searchsorted(shown.t_s, when))
    science = Science(mask_set(P), settings or ScienceSettings(capacity_mah=CAPACITY_MAH))
    science.add_cell(rows)
    updates = []
    for batch in shown.batches(size):
        early, late = batch.frame < first, batch.frame >= first
        if early.any():
            updates.append(science.add(cut(batch, early, slice(0, P))))
        if late.any() and len(science.states) == P:
            updates.append(science.change_masks(edited_masks()))
        if late.any():
            part = cut(batch, late, slice(0, P + 1))
            part.flux_e, part.layer_flux_e = part.flux_e.copy(), part.layer_flux_e.copy()
            part.flux_e[:, GONE], part.layer_flux_e[:, GONE] = np.nan, np.nan
            # its baseline: five frames, and F0 what it is then
            known = part.frame[-1] >= first + 5
            level = float(shown.flux_e[first : first + 5, LATE].mean())
            part.baseline_flux_e, part.baseline_layer_flux_e = f0(level if known else np.nan)
            part.baseline_end_frame = first + 5
            updates.append(science.add(part))
    updates.append(science.finish())
    for update in updates:
        if update.particle_columns:  # as the store does
            update.particle_columns = {
                name: values if values.shape[1] > P else np.pad(
                    values.astype(float), [(0, 0), (0, 1)], constant_values=np.nan
                )
                for name, values in update.particle_columns.items()
            }  # fmt: skip
    return collect(science, updates)


def f0(late):
    flux = np.full(P + 1, 1e6)
    flux[LATE] = late
    return flux, np.repeat(flux[:, None] / 4, 4, axis=1)


def cut(batch, rows, columns):
    changes = {}
    for each in fields(batch):
        values = getattr(batch, each.name)
        if isinstance(values, np.ndarray) and not each.name.startswith("baseline"):
            changes[each.name] = values[rows] if values.ndim == 1 else values[rows][:, columns]
    if batch.baseline_flux_e is not None:
        changes |= {
            "baseline_flux_e": batch.baseline_flux_e[columns],
            "baseline_layer_flux_e": batch.baseline_layer_flux_e[columns],
        }
    return replace(batch, **changes)


@pytest.fixture(scope="module")
def both():
    """(edited run, the same without edits)"""
    rows, shown = movie(P)
    shown.flux_e, shown.layer_flux_e = movie(P + 1)[1].flux_e[:, :P], movie(P + 1)[1].layer_flux_e[:, :P]
    return edited(), run(shown, rows, batch=50)


def test_particles_that_stay_do_as_if_nothing_had_happened(both):
    changed, plain = both
    stay = [i for i in range(P) if i != GONE]
    np.testing.assert_array_equal(changed.contrast[:, stay], plain.contrast[:, stay])
    for i in stay:
        ours, theirs = changed.calibrations[10 + i], plain.calibrations[10 + i]
        assert ours["kind"] == theirs["kind"] != "none"
        # all particles together tell how smooth a curve is
        np.testing.assert_allclose(ours["contrast_knots"], theirs["contrast_knots"], atol=1e-5)
        for cycle, half in ((0, "charge"), (0, "discharge"), (1, "charge"), (1, "discharge")):
            mine, other = changed.cycles[10 + i, cycle, half], plain.cycles[10 + i, cycle, half]
            np.testing.assert_allclose(mine["rate_per_h"], other["rate_per_h"], rtol=1e-3)
            for name in ("swing", "onset_t_s", "duration_s", "hysteresis_v", "retention"):
                np.testing.assert_array_equal(mine[name], other[name], err_msg=name)
        assert changed.particles[10 + i]["state"] == "active"


def test_a_removed_particle_is_lost_from_then_on(both):
    changed, _ = both
    before = changed.t_s < EDIT_S
    assert np.isfinite(changed.contrast[before, GONE]).all() and np.isnan(changed.contrast[~before, GONE]).all()
    assert changed.particles[10 + GONE]["state"] == "lost"
    assert np.isnan(changed.science.soc_now[GONE])
    assert np.isnan(changed.cycles[10 + GONE, 1, "charge"]["swing"])
    assert not [event for event in changed.events if event.kind is EventKind.LOST], "the sample did nothing"


def test_an_added_particle_begins_behind_its_own_baseline(both):
    changed, _ = both
    first = int(np.searchsorted(changed.t_s, EDIT_S))
    own = changed.contrast[:, LATE]
    assert np.isnan(own[: first + 5]).all() and np.isfinite(own[first + 5 :]).all()
    assert np.isnan(changed.contrast_sigma[: first + 5, LATE]).all()
    # F0 is its flux then, not at the run's beginning
    assert abs(own[first + 5]) < 0.01
    row = changed.particles[10 + LATE]
    assert row["state"] == "active"
    assert row["brightness_e"] == pytest.approx(1e6 * (1 + 0.5 * (0.1 + 0.02 * P)), rel=0.02)


def test_half_a_half_says_nothing_of_an_added_particle_but_the_next_do(both):
    changed, plain = both
    swing = {key[1:]: row["swing"] for key, row in changed.cycles.items() if key[0] == 10 + LATE}
    assert np.isnan(swing[0, "charge"])
    expected = (0.1 + 0.02 * P) / (1 + 0.5 * (0.1 + 0.02 * P))  # its own F0 is that much brighter
    assert swing[0, "discharge"] == pytest.approx(expected, rel=0.05)
    retention = {key[1:]: row["retention"] for key, row in changed.cycles.items() if key[0] == 10 + LATE}
    assert retention[0, "discharge"] == 1.0
    assert retention[1, "charge"] == 1.0, "its first charge, where others have had two"
    assert retention[1, "discharge"] == pytest.approx(1.0, abs=0.02)
    assert plain.cycles[10, 1, "charge"]["retention"] != 1.0
    assert changed.calibrations[10 + LATE]["kind"] != "none"


def test_state_of_charge_does_not_depend_on_when_f0_was_measured(both):
    changed, _ = both
    assert changed.science.soc_now[LATE] == pytest.approx(float(changed.science.soc_now[0]), abs=0.05)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_batches_change_nothing(both, size):
    other = edited(size=size)
    changed, _ = both
    np.testing.assert_array_equal(other.contrast, changed.contrast)
    np.testing.assert_array_equal(other.contrast_sigma, changed.contrast_sigma)
    assert other.cycles.keys() == changed.cycles.keys() and other.particles == changed.particles
    for key, row in changed.cycles.items():
        for name, value in row.items():
            np.testing.assert_array_equal(other.cycles[key][name], value, err_msg=f"{key} {name}")


@pytest.mark.parametrize("when", [3.0, 61.0, 3670.0, 14_000.0])
def test_masks_may_change_at_any_time(when):
    changed = edited(when=max(when, 36.0))
    summary = changed.science.summary()
    assert summary["particles"] == P + 1 and summary["particles_lost"] == 1
    assert np.isfinite(changed.contrast[-1, LATE])


def test_events_of_an_added_particle_carry_its_id():
    science = Science(mask_set(P), ScienceSettings())
    contrast = np.zeros((60, P + 1))
    contrast[45:, LATE] += 0.1
    shown = Movie(np.arange(60) * 0.1, contrast)
    first, second, third = shown.batches(20)
    science.add(cut(first, np.ones(20, bool), slice(0, P)))
    science.change_masks(mask_set(P + 1))
    for batch in (second, third):
        batch.baseline_flux_e, batch.baseline_layer_flux_e = f0(1e6)
    third.detections = [Detection(LATE, 45, 47, 0.1, 0.01, 30.0, 0.0)]
    events = [*science.add(second).events, *science.add(third).events, *science.finish().events]
    assert [(event.particle_id, event.kind) for event in events] == [(10 + LATE, EventKind.STEP)]


def test_weights_follow_the_masks():
    science = Science(mask_set(2, np.array([100.0, 300.0])), ScienceSettings())
    science.add(Movie(np.arange(10) * 0.1, np.zeros((10, 2))).batches(10)[0])
    after: MaskSet = mask_set(3, np.array([100.0, 300.0, 50.0]))
    science.change_masks(after)
    np.testing.assert_array_equal(science._weights, [100, 300, 50])
    assert science.soc_now.shape == science.states.shape == (3,)


def test_a_contrast_without_f0_waits_for_one_of_its_own():
    maker = ContrastMaker(1, 10_000_000)
    shown = Movie(np.arange(30) * 0.1, np.zeros((30, 2)), sigma=0.0)
    first, second, third = shown.batches(10)
    maker.add(cut(first, np.ones(10, bool), slice(0, 1)))
    maker.grow(2)
    second.baseline_flux_e = np.array([1e6, np.nan])
    (part,) = maker.add(second)
    assert np.isfinite(part.values[:, 0, 0]).all() and np.isnan(part.values[:, 1]).all()
    third.baseline_flux_e, third.baseline_end_frame = np.array([9.0, 5e5]), 24
    (part,) = maker.add(third)
    assert np.isnan(part.values[:4, 1]).all() and part.values[4:, 1, 0] == pytest.approx(np.ones(6))
    assert part.values[:, 0, 0] == pytest.approx(np.zeros(10)), "F0 stays the first one"


def test_what_came_later_is_unknown_before():
    assert grown(np.array([[1, 2]]), 4, 7, axis=1).tolist() == [[1, 2, 7, 7]]
    block = all_grown(Block(0.5, np.ones((2, 5)), np.ones(2)), 3)
    assert np.isnan(block.values[2]).all() and np.isnan(block.variance[2]) and block.t_s == 0.5
    means = BlockMeans(1, 1.0)
    means.add(0.2, np.ones((1, 5)), np.ones((1, 5), bool), np.ones(1))
    means.grow(2)
    means.add(0.4, np.full((2, 5), 3.0), np.ones((2, 5), bool), np.ones(2))
    done = means.flush()
    assert done.values[:, 0].tolist() == [2.0, 3.0] and done.t_s == pytest.approx(0.3)


def test_a_history_remembers_who_was_there_from_its_start():
    history = History(1, 8)
    history.grow(2)
    assert history.whole.tolist() == [True, True]
    for t in range(12):
        if t == 6:
            history.grow(3)
        history.append(Block(float(t), np.full((len(history.whole), 5), float(t)), np.ones(len(history.whole))))
    assert history.whole.tolist() == [True, True, False]
    half = Half(0, 1, 0.0, end_t_s=12.0, drive_end_t_s=12.0)
    curves = half_curves(half, history)
    assert curves.known.tolist() == [True, True, False]
    assert np.isfinite(curves.contrast).all()
