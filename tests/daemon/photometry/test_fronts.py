"""Fronts of halves made from the tables themselves: places, speeds, modes, and the reasons for none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.photometry.blocks import Block, History
from daemon.photometry.curves import half_curves
from daemon.photometry.fronts import FrontFinder, RestDrift
from daemon.photometry.fronts_geometry import AXIAL, CORE, GRID
from daemon.photometry.halves import Half
from daemon.photometry.slices import completed
from tests.interiors import InteriorScene
from tests.measuring import true_masks

POINTS, STEP_S = 300, 0.5
NOISE = 4e-4


@pytest.fixture(scope="module")
def scene() -> InteriorScene:
    return InteriorScene(seed=83, height=160, width=200, particles=3, radius_px=(9, 12), elongation=(1.4, 1.7))


@pytest.fixture(scope="module")
def masks(scene):
    return replace(true_masks(scene), pixel_size_nm=100.0)


@pytest.fixture(scope="module")
def reference(scene):
    return scene.reference(50)


def _finder(masks, reference) -> FrontFinder:
    finder = FrontFinder(masks)
    finder.see(reference)
    finder._geometry.work(100)
    return finder


def _way(finder, way, i, place_px, back=False):
    """(n, K) responses to places from the begin, and the passed share."""
    made = finder._geometry.ways[way]
    at = np.clip(np.asarray(place_px) / made.length_px[i], 0, 1) * GRID
    grid = np.arange(GRID + 1)
    tables = [*made.response[i].T, made.passed[i]]
    if back:
        tables = [1 - table[::-1] for table in tables]
    seen = np.stack([np.interp(at, grid, table) for table in tables], axis=1)
    return seen[:, :-1], seen[:, -1]


def _half(finder, axial, layers, seed=1, half=None, rest_px=(0.0, 0.0)):
    """Rows of a half in which bins and layers, (P, n, K) relative changes, were seen."""
    rng, count = np.random.default_rng(seed), len(axial)
    history = History(count, POINTS + 2)
    for k in range(axial.shape[1]):
        shares = (1 + axial[:, k]) / 8 + rng.normal(0, NOISE, (count, 8))
        values = np.column_stack([shares.sum(axis=1) - 1, layers[:, k] + rng.normal(0, 2 * NOISE, (count, 4))])
        history.append(Block(k * STEP_S, values, np.full(count, NOISE**2), shares, rest_px))
    last = axial.shape[1] * STEP_S
    half = half or Half(0, 1, 0.0, end_t_s=last, drive_end_t_s=last)
    curves = half_curves(half, history)
    assert curves is not None
    return {row["particle_id"]: row for row in completed(finder.end_half(curves, history))}


def _crossing(length, speed=0.3, start_s=20.0):
    return np.clip((np.arange(POINTS) * STEP_S - start_s) * speed, 0, length)


def _fronts(finder, way, step, back=False):
    """Bins and layers (P, n, K) of a front along `way` in every particle, and its places."""
    count = len(finder.modes)
    length = finder._geometry.ways[way].length_px
    places = np.stack([_crossing(length[i]) for i in range(count)])
    axial, layers = np.empty((count, POINTS, 8)), np.empty((count, POINTS, 4))
    for i in range(count):
        seen, passed = _way(finder, way, i, places[i], back)
        axial[i] = step * (seen if way == AXIAL else passed[:, None])
        layers[i] = step * (seen if way == CORE else passed[:, None])
    return axial, layers, places


@pytest.mark.parametrize(
    ("way", "back", "mode", "begin"),
    [(CORE, False, "core", "edge"), (AXIAL, False, "axial", "first"), (AXIAL, True, "axial", "last")],
)
@pytest.mark.parametrize("step", [0.1, -0.15])
def test_fronts_are_told_where_they_are(masks, reference, way, back, mode, begin, step):
    finder = _finder(masks, reference)
    axial, layers, places = _fronts(finder, way, step, back)
    rows = _half(finder, axial, layers)
    for i, row in enumerate(rows.values()):
        assert (row["mode"], row["begin"], row["reason"]) == (mode, begin, "")
        true = np.interp(row["t_s"], np.arange(POINTS) * STEP_S, places[i])
        assert np.sqrt(np.mean((row["front_px"] - true) ** 2)) < 0.15
        assert row["speed_px_per_s"] == pytest.approx(0.3, rel=0.05)
        assert row["speed_nm_per_s"] == pytest.approx(100 * row["speed_px_per_s"])
        assert 0 < row["speed_sigma_px_per_s"] < 0.02
        onset, end = (
            np.interp(share, _way(finder, way, i, places[i], back)[1], np.arange(POINTS) * STEP_S)
            for share in (0.05, 0.95)
        )
        assert row["onset_t_s"] == pytest.approx(onset, abs=2.0) and row["end_t_s"] == pytest.approx(end, abs=2.0)
        assert (np.diff(row["fraction"]) > -0.02).all() and row["fraction"][0] < 0.1 < 0.9 < row["fraction"][-1]
    assert (finder.modes == (CORE if mode == "core" else AXIAL)).all()


def test_a_front_from_the_core_outwards_has_falling_depths(masks, reference):
    finder = _finder(masks, reference)
    axial, layers, _ = _fronts(finder, CORE, 0.1, back=True)
    for row in _half(finder, axial, layers).values():
        assert (row["mode"], row["begin"]) == ("core", "core")
        assert row["front_px"][0] > row["front_px"][-1] and row["speed_px_per_s"] < 0


def test_a_front_that_stops_half_way_has_no_end(masks, reference):
    finder = _finder(masks, reference)
    axial, layers, places = _fronts(finder, AXIAL, 0.1)
    stop = [int(np.argmax(place > 0.55 * place[-1])) for place in places]
    for i, k in enumerate(stop):
        axial[i, k:], layers[i, k:] = axial[i, k], layers[i, k]
    for i, row in enumerate(_half(finder, axial, layers).values()):
        assert row["mode"] == "axial" and np.isnan(row["end_t_s"]) and np.isfinite(row["onset_t_s"])
        true = np.interp(row["t_s"], np.arange(POINTS) * STEP_S, np.minimum(places[i], places[i, stop[i]]))
        assert np.abs(np.median(row["front_px"] - true)) < 0.3


def test_drift_that_the_masks_did_not_follow_is_taken_off(masks, reference):
    finder = _finder(masks, reference)
    axial, layers, places = _fronts(finder, AXIAL, 0.1)
    made, rest = finder._geometry.ways[AXIAL], (0.4, -0.3)
    for i in range(len(axial)):
        at = np.clip(places[i] / made.length_px[i], 0, 1) * GRID
        moved = [np.interp(at, np.arange(GRID + 1), (made.drift[i] @ rest)[:, k]) for k in range(8)]
        axial[i] += 0.1 * np.stack(moved, axis=1)
    followed = _half(finder, axial, layers, rest_px=rest)
    ignored = _half(finder, axial, layers)
    for i, (good, bad) in enumerate(zip(followed.values(), ignored.values(), strict=True)):
        errors = [
            np.mean(row["front_px"] - np.interp(row["t_s"], np.arange(POINTS) * STEP_S, places[i]))
            for row in (good, bad)
        ]
        assert abs(errors[0]) < 0.1 < abs(errors[1])


def test_parts_that_change_together_are_no_front(masks, reference):
    finder = _finder(masks, reference)
    ramp = 0.1 * np.clip((np.arange(POINTS) - 50) / 200, 0, 1)[None, :, None]
    rows = _half(finder, np.repeat(np.repeat(ramp, 8, 2), 3, 0), np.repeat(np.repeat(ramp, 4, 2), 3, 0))
    assert {(row["mode"], row["reason"]) for row in rows.values()} == {("none", "all_at_once")}
    assert all("t_s" not in row for row in rows.values())
    assert (finder.modes == 2).all()


def test_a_gradient_is_no_front(masks, reference):
    """A solid solution whose surface leads its core by up to 0.4."""
    finder = _finder(masks, reference)
    charge = np.clip((np.arange(POINTS) - 50) / 200, 0, 1)
    lead = 4 * charge * (1 - charge)
    layers = 0.1 * np.clip(charge[:, None] + lead[:, None] * np.array([0.15, 0.05, -0.05, -0.15]), 0, 1)
    rows = _half(finder, np.repeat(0.1 * charge[None, :, None], 8, 2).repeat(3, 0), layers[None].repeat(3, 0))
    assert {row["mode"] for row in rows.values()} == {"none"}


def test_steps_and_stillness_have_their_reasons(masks, reference):
    finder = _finder(masks, reference)
    step = 0.1 * (np.arange(POINTS) > 150)[:, None]
    axial = np.stack([np.repeat(step, 8, 1), np.zeros((POINTS, 8)), np.full((POINTS, 8), np.nan)])
    layers = np.stack([np.repeat(step, 4, 1), np.zeros((POINTS, 4)), np.repeat(step, 4, 1)])
    assert [row["reason"] for row in sorted(_half(finder, axial, layers).values(), key=lambda r: r["particle_id"])] == [
        "too_fast", "no_step", "not_measured",
    ]  # fmt: skip


def test_without_an_outline_there_is_no_front(masks):
    finder = FrontFinder(replace(masks, labels=np.zeros_like(masks.labels)))
    ramp = 0.1 * np.clip((np.arange(POINTS) - 50) / 200, 0, 1)[None, :, None]
    rows = _half(finder, ramp.repeat(8, 2).repeat(3, 0), ramp.repeat(4, 2).repeat(3, 0))
    assert {row["reason"] for row in rows.values()} == {"no_outline"}


def test_rows_say_which_half_it_was(masks, reference):
    finder = _finder(masks, reference)
    axial, layers, _ = _fronts(finder, AXIAL, 0.1)
    last = POINTS * STEP_S
    rows = _half(finder, axial, layers, half=Half(5, -1, 0.0, end_t_s=last, drive_end_t_s=last))
    assert {(row["cycle"], row["half"]) for row in rows.values()} == {(2, "discharge")}
    rows = _half(finder, axial, layers, half=Half(-1, 0, 0.0, end_t_s=last))
    assert {(row["cycle"], row["half"]) for row in rows.values()} == {(0, "none")}


def test_masks_may_grow_between_halves(masks, reference):
    finder = FrontFinder(masks)
    finder.see(reference)
    finder.modes[0] = AXIAL
    grown = replace(
        masks, particle_id=np.arange(1, 5), y_px=np.append(masks.y_px, 0.0), x_px=np.append(masks.x_px, 0.0),
        active=np.array([True, True, True, False]),
    )  # fmt: skip
    finder.change_masks(grown)
    assert finder.modes.tolist() == [AXIAL, 2, 2, 2]
    finder.work()
    flat = np.zeros((4, POINTS, 8))
    assert len(_half(finder, flat, flat[:, :, :4])) == 4


def test_rest_drift_follows_registration():
    rest = RestDrift()
    y = [0.0, 0.5, 0.59, 0.62, 0.45, np.nan, 1.7, -3.0]
    told = rest(np.array(y), np.zeros(8))
    np.testing.assert_allclose([t[0] for t in told], [0, 0.5, 0.59, -0.38, -0.55, 0, -0.3, 0], atol=1e-12)
