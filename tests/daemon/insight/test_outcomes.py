from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.insight.outcomes import covariates, fade_per_cycle, failures, never_active, outcomes, relative_rate
from tests.daemon.insight.runs import particle_columns, plain_cell, run_data, without_pixel_size

COUNT = 10


def particles(**states):
    table = particle_columns(np.random.default_rng(1), COUNT)
    for name, state in states.items():
        table["state"][int(name[1:])] = state
    return table


def halves(cycles=4, **columns):
    """Halves of 100 s, (C, P) values of `columns` by half."""
    found = []
    for k in range(2 * cycles):
        values = {name: np.asarray(each)[k] for name, each in columns.items()}
        base = {
            "swing": np.full(COUNT, 0.1),
            "duration_s": np.full(COUNT, 80.0),
            "onset_t_s": np.full(COUNT, 100.0 * k + 5),
        }
        found.append({"cycle": k // 2, "half": ("charge", "discharge")[k % 2], **base, **values})
    return found


def test_every_property_has_its_column_and_the_centre_is_the_cameras():
    run = run_data(particles())
    found = {each.name: each for each in covariates(run)}
    assert list(found) == [
        "length", "size", "aspect_ratio", "solidity", "brightness", "nearest_neighbour", "neighbours", "y", "x",
        "centre_distance",
    ]  # fmt: skip
    y, x = run.particles["y_px"], run.particles["x_px"]
    np.testing.assert_allclose(found["centre_distance"].values, np.hypot(y - 599.5, x - 959.5))
    nowhere = run_data(particles(), metadata={"camera": None})
    middle = np.hypot(y - (y.min() + y.max()) / 2, x - (x.min() + x.max()) / 2)
    np.testing.assert_allclose(covariates(nowhere)[-1].values, middle)


def test_without_pixel_size_sizes_are_in_pixels():
    found = {each.name: each for each in covariates(run_data(without_pixel_size(particles())))}
    sized = {each.name: each for each in covariates(run_data(particles()))}
    assert found["size"].unit == "px" and np.isnan(found["length"].values).all()
    np.testing.assert_allclose(found["size"].values * 0.096, sized["size"].values)
    np.testing.assert_allclose(found["nearest_neighbour"].values * 0.096, sized["nearest_neighbour"].values)


def test_rates_are_relative_to_the_half_and_few_are_no_ensemble():
    rate = np.full((8, COUNT), 0.5) * np.array([1, 1, 2, 2, 3, 3, 4, 4])[:, None]
    rate[:, 0] *= 2
    rate[0, 1:] = np.nan
    rate[2, 5] = 0.0
    relative = relative_rate(run_data(particles(), halves(rate_per_h=rate)), "charge")
    assert relative[0] == pytest.approx(math.log(2)) and relative[1:] == pytest.approx(0.0)
    assert np.isnan(relative_rate(run_data(particles()), "charge")).all()


def test_fade_is_a_slope_that_one_bad_half_does_not_move():
    retention = 1 - 0.02 * np.repeat(np.arange(4), 2)[:, None] * np.ones(COUNT)
    retention[4, 0], retention[:, 1] = 0.2, np.nan
    fade = fade_per_cycle(run_data(particles(), halves(retention=retention)))
    assert fade[2:] == pytest.approx(-0.02) and np.isnan(fade[1]) and fade[0] == pytest.approx(-0.02, abs=0.21)
    short = run_data(particles(), halves(cycles=2, retention=retention[:4]))
    assert np.isnan(fade_per_cycle(short)).all()


def events(*told):
    return [Event(kind, t_s, t_s, identity) for kind, t_s, identity in told]


def failure(run, name="failure"):
    (found,) = [each for each in failures(run) if each.name == name]
    return found


def test_failures_have_their_half_and_the_others_were_watched_to_the_end():
    retention, duration = np.ones((8, COUNT)), np.full((8, COUNT), 80.0)
    retention[4:, 3] = 0.7
    retention[4, 4] = 0.7
    duration[5:, 5] = np.nan
    told = events(
        (EventKind.DISCONNECTED, 250.0, 1), (EventKind.DISCONNECTED, 250.0, 2), (EventKind.RECONNECTED, 350.0, 2),
        (EventKind.CRACK, 610.0, 7), (EventKind.CRACK, 710.0, 7), (EventKind.DISCONNECTED, 50.0, None),
        (EventKind.STEP, 50.0, 9), (EventKind.CRACK, 50.0, 999),
    )  # fmt: skip
    run = run_data(particles(p5="dead"), halves(retention=retention, duration_s=duration), events=told)
    found = failure(run)
    expected = np.full(COUNT, 4.0)
    expected[[0, 3, 5]] = [1.5, 2.5, 3.0]
    np.testing.assert_array_equal(found.duration, expected)
    assert np.flatnonzero(found.failed).tolist() == [0, 3, 5] and found.unit == "cycles"
    crack = failure(run, "crack")
    assert np.flatnonzero(crack.failed).tolist() == [6] and crack.duration[6] == 3.5


def test_what_left_the_field_did_not_fail():
    run = run_data(particles(p2="lost"), halves(), events=events((EventKind.LOST, 250.0, 3)))
    found = failure(run)
    assert found.duration[2] == 1.5 and not found.failed.any() and "left the field" in found.notes[0]


def test_inactive_from_the_start_was_never_at_risk():
    duration = np.full((8, COUNT), 80.0)
    duration[:, 2] = np.nan
    run = run_data(particles(p2="dead"), halves(duration_s=duration))
    assert np.isnan(failure(run).duration[2]) and never_active(run).nonzero()[0].tolist() == [2]
    inactive = outcomes(run)[-1]
    assert inactive.name == "inactive" and inactive.values[2] == 1 and inactive.values.sum() == 1


def test_particles_added_by_an_edit_are_left_out():
    swing = np.full((8, COUNT), 0.1)
    swing[:4, 8] = np.nan
    found = failure(run_data(particles(), halves(swing=swing)))
    assert np.isnan(found.duration[8]) and "added by an edit" in found.notes[0]


def test_without_cycles_the_clock_is_in_hours():
    told = events((EventKind.CRACK, 1800.0, 1), (EventKind.STEP, 7200.0, 2))
    found = failure(run_data(particles(), events=told), "crack")
    assert found.unit == "h" and found.duration[0] == 0.5 and found.duration[1] == 2.0
    assert np.isnan(failure(run_data(particles())).duration).all(), "nothing says how long it was watched"


def test_halves_without_onsets_keep_their_order():
    run = run_data(particles(), halves(onset_t_s=np.full((8, COUNT), np.nan)))
    assert (failure(run).duration == 4.0).all()
    assert np.isfinite(outcomes(plain_cell(1, count=30))[0].values).sum() > 20
