import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.engine.measures import FrameFlag, MeasureBatch, ParticleFlag
from daemon.events import EventKind
from daemon.photometry.derive import derive_traces
from daemon.photometry.science import Science, ScienceSettings
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS, CYCLES, ENSEMBLE
from tests.daemon.photometry.synthetic import (
    CAPACITY_MAH,
    Movie,
    Result,
    Step,
    cell_rows,
    charge_at,
    collect,
    gitt,
    lagging,
    mask_set,
    run,
)

P = 24
FAST = [Step(60, 0), Step(3600, 1), Step(3600, -1), Step(3600, 1), Step(3600, -1)]


def response(fractions: np.ndarray, seed: int = 0) -> np.ndarray:
    """A bent, monotone response of each particle: its own size, sign and curvature."""
    rng = np.random.default_rng(seed)
    count = fractions.shape[1]
    size = rng.choice([-1.0, 1.0], count) * rng.uniform(0.08, 0.3, count)
    bend = rng.uniform(-0.7, 0.7, count)
    return size * (fractions + bend * fractions * (1.0 - fractions))


def traces(result: Result) -> dict[str, np.ndarray]:
    rows = [result.calibrations[key] for key in sorted(result.calibrations)]
    ratio = np.array([row["layer_sigma_ratio"] for row in rows])
    return derive_traces(result.contrast, result.contrast_sigma, result.layers, dict(enumerate(rows)), ratio)


def kinds(result: Result) -> list[str]:
    return [result.calibrations[key]["kind"] for key in sorted(result.calibrations)]


def times(rows: list, every_s: float) -> np.ndarray:
    return np.arange(0.0, rows[-1].t_s, every_s)


class Solid:
    """A solid solution, titrated with rests: particles follow the ensemble with their own delay."""

    def __init__(self) -> None:
        self.rows = cell_rows(gitt())
        self.t_s = times(self.rows, 6.0)
        self.fraction = lagging(self.t_s, charge_at(self.rows)(self.t_s), np.random.default_rng(1).uniform(20, 120, P))
        contrast = response(self.fraction)
        contrast[:, 3] = 0.2 * np.sin(1.2 * np.pi * self.fraction[:, 3])
        contrast[:, 7] = 0.0
        self.movie = Movie(self.t_s, contrast)


@pytest.fixture(scope="module")
def solid() -> Solid:
    return Solid()


@pytest.fixture(scope="module")
def solid_run(solid: Solid) -> Result:
    return run(solid.movie, solid.rows)


def test_rests_calibrate_a_solid_solution(solid: Solid, solid_run: Result) -> None:
    good = np.array([kind == "monotone" for kind in kinds(solid_run)])
    assert good.sum() == P - 2
    got = traces(solid_run)
    error = got["soc"][:, good] - solid.fraction[:, good]
    assert np.sqrt(np.mean(error**2)) < 0.01
    covered = (got["soc_lo"] <= solid.fraction + 1e-6) & (solid.fraction <= got["soc_hi"] + 1e-6)
    assert 0.86 < covered[:, good].mean() < 0.98


def test_folded_and_dead_are_found_and_have_no_soc(solid_run: Result) -> None:
    assert kinds(solid_run)[3] == "folded"
    assert kinds(solid_run)[7] == "none"
    assert [solid_run.particles[10 + k]["state"] for k in (3, 7)] == ["active", "dead"]
    assert solid_run.particles[13]["calibration"] == "folded"
    got = traces(solid_run)
    assert np.isnan(got["soc"][:, [3, 7]]).all()
    assert np.isnan(solid_run.cycle("soc_start", 0, "charge")[[3, 7]]).all()
    assert solid_run.science.summary()["active_fraction"] == pytest.approx((P - 1) / P)


def test_gradient_of_even_particles_is_zero_within_its_sigma(solid_run: Result) -> None:
    got = traces(solid_run)
    middle = np.isfinite(got["gradient"]) & (got["soc"] > 0.1) & (got["soc"] < 0.9)
    assert np.mean(got["gradient"][middle]) == pytest.approx(0.0, abs=1e-3)
    assert np.std(got["gradient"][middle] / got["gradient_sigma"][middle]) == pytest.approx(1.0, abs=0.1)
    assert solid_run.calibrations[10]["layer_sigma_ratio"] == pytest.approx([2.0] * 4, rel=1e-3)


def test_columns_are_those_of_the_contracts(solid_run: Result, solid: Solid) -> None:
    batch = solid.movie.batches(50)[0]
    update = Science(mask_set(P), ScienceSettings()).add(batch)
    assert update.frame_columns is not None
    assert update.particle_columns is not None
    assert list(update.frame_columns) == list(CHUNK_FRAME_COLUMNS)
    assert list(update.particle_columns) == list(CHUNK_PARTICLE_COLUMNS)
    assert all(tuple(row) == CYCLES for row in solid_run.cycles.values())
    assert all(tuple(row) == ENSEMBLE for row in solid_run.ensemble)
    assert len(solid_run.cycles) == 2 * P
    assert set(solid_run.particles[10]) == {"particle_id", "state", "calibration", "front_mode", "brightness_e"}


def test_ensemble_follows_the_charge_once_calibrated(solid: Solid, solid_run: Result) -> None:
    t_s = np.array([row["t_s"] for row in solid_run.ensemble])
    mean = np.array([row["soc_mean"] for row in solid_run.ensemble])
    end_of_charge = next(k for k, row in enumerate(solid.rows) if row.current_ma < 0)
    before = t_s < solid.rows[end_of_charge].t_s
    assert np.isnan(mean[before]).all()
    truth = np.interp(t_s, solid.t_s, solid.fraction.mean(axis=1))
    assert np.abs(mean - truth)[t_s > solid.rows[end_of_charge].t_s + 60].max() < 0.02


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_do_not_matter(batch: int) -> None:
    rows = cell_rows(FAST)
    t_s = times(rows, 8.0)
    onset = np.linspace(0.05, 0.9, 10)
    movie = Movie(t_s, 0.2 * np.clip((charge_at(rows)(t_s)[:, None] - onset) / 0.05, 0, 1))
    one, other = run(movie, rows, batch), run(movie, rows, 100)
    for name in ("cycles", "ensemble", "particles", "calibrations", "events"):
        assert repr(getattr(one, name)) == repr(getattr(other, name)), name
    np.testing.assert_array_equal(one.contrast, other.contrast)


def test_a_record_that_comes_with_the_frames_ends_in_the_same_tables(solid: Solid, solid_run: Result) -> None:
    live = run(solid.movie, solid.rows, 20, lockstep=True)
    for name in ("cycles", "particles", "calibrations"):
        assert repr(getattr(live, name)) == repr(getattr(solid_run, name)), name


def test_without_a_cell_there_is_no_soc_and_no_cycle_but_the_dead_are_told_at_the_end(solid: Solid) -> None:
    result = run(solid.movie, [])
    assert result.cycles == {}
    assert set(kinds(result)) == {"none"}
    assert np.isnan(traces(result)["soc"]).all()
    assert np.isnan([row["soc_mean"] for row in result.ensemble]).all()
    assert [key for key, row in result.particles.items() if row["state"] == "dead"] == [17]


def test_a_resting_cell_tells_nothing() -> None:
    rows = cell_rows([Step(2000, 0)])
    result = run(Movie(times(rows, 2.0), np.zeros((1000, 5))[: len(times(rows, 2.0))]), rows)
    assert result.cycles == {}
    assert {row["state"] for row in result.particles.values()} == {"active"}


def mosaic(rows: list, every_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Two phases: each particle transforms on its own at its own charge."""
    t_s = times(rows, every_s)
    onset = np.random.default_rng(2).permutation(np.linspace(0.02, 0.93, P))
    return t_s, np.clip((charge_at(rows)(t_s)[:, None] - onset) / 0.05, 0.0, 1.0)


@pytest.mark.parametrize(("steps", "every_s"), [(gitt(), 6.0), (FAST, 4.0)], ids=["rests", "no rests"])
def test_two_phases_get_end_members_and_phase_events(steps: list[Step], every_s: float) -> None:
    rows = cell_rows(steps)
    t_s, fraction = mosaic(rows, every_s)
    result = run(Movie(t_s, -0.2 * fraction), rows)
    assert set(kinds(result)) == {"end_members"}
    got = traces(result)
    assert np.sqrt(np.nanmean((got["transformed_fraction"] - fraction) ** 2)) < 0.02
    halves = len([step for step in steps if step.current_ma]) // (12 if len(steps) > 10 else 1)
    for kind in (EventKind.PHASE_ONSET, EventKind.PHASE_COMPLETE):
        mine = [event for event in result.events if event.kind is kind]
        assert len(mine) == (halves - 1) * P
        assert all(event.magnitude > 0 for event in mine if charge_slope(rows, event.t_s) < 0)


def charge_slope(rows: list, t_s: float) -> float:
    charge = charge_at(rows)
    return float(charge(np.array(t_s + 20.0)) - charge(np.array(t_s - 20.0)))


def test_one_fast_charge_knows_only_its_ends() -> None:
    rows = cell_rows(FAST[:2])
    t_s = times(rows, 4.0)
    fraction = lagging(t_s, charge_at(rows)(t_s), np.linspace(30, 200, P))
    result = run(Movie(t_s, response(fraction)), rows)
    assert set(kinds(result)) == {"end_members"}
    got = traces(result)
    assert ((got["soc_lo"] <= fraction) & (fraction <= got["soc_hi"])).mean() > 0.9
    assert np.isnan(got["transformed_fraction"]).all()
    assert np.isnan(got["gradient"]).all()
    assert len(result.cycles) == P


def test_charge_and_discharge_without_rests_calibrate_by_their_mean() -> None:
    rows = cell_rows(FAST)
    t_s = times(rows, 4.0)
    fraction = lagging(t_s, charge_at(rows)(t_s), np.linspace(10, 60, P))
    result = run(Movie(t_s, response(fraction)), rows)
    assert set(kinds(result)) == {"monotone"}
    got = traces(result)
    assert np.sqrt(np.mean((got["soc"] - fraction) ** 2)) < 0.012
    assert 0.86 < ((got["soc_lo"] <= fraction) & (fraction <= got["soc_hi"])).mean() < 0.99
    assert np.median([row["soc_sigma"] for row in result.calibrations.values()]) > 0.002, "a lag is not known away"
    assert len(result.cycles) == 4 * P


def test_a_slow_cycle_calibrates_without_rests() -> None:
    rows = cell_rows([Step(60, 0), Step(72000, 0.05), Step(72000, -0.05)], every_s=60)
    t_s = times(rows, 40.0)
    fraction = lagging(t_s, charge_at(rows)(t_s), np.linspace(50, 300, P))
    result = run(Movie(t_s, response(fraction)), rows)
    assert set(kinds(result)) == {"monotone"}
    assert np.sqrt(np.mean((traces(result)["soc"] - fraction) ** 2)) < 0.01


def test_a_particle_at_the_edge_is_lost_until_it_returns() -> None:
    t_s = np.arange(60) * 1.0
    contrast = np.zeros((60, 3))
    contrast[20:45, 1] = np.nan
    flags = np.zeros((60, 3), np.uint16)
    flags[20:45, 1] = ParticleFlag.EDGE
    science = Science(mask_set(3), ScienceSettings())
    states, told = [], []
    for batch in Movie(t_s, contrast, particle_flags=flags).batches(1):
        told += science.add(batch).particles
        states.append(int(science.states[1]))
    assert states[40] == 3
    assert states[-1] == 0
    assert [row["state"] for row in told if row["particle_id"] == 11] == ["active", "lost", "active"]


def test_soc_now_is_that_of_the_last_batch(solid: Solid) -> None:
    science = Science(mask_set(P), ScienceSettings(capacity_mah=CAPACITY_MAH))
    science.add_cell(solid.rows)
    batches = solid.movie.batches(25)
    for batch in batches[:-40]:
        science.add(batch)
    last = len(batches[:-40]) * 25 - 1
    known = np.isfinite(science.soc_now)
    assert science.soc_now.dtype == np.float32
    assert known.sum() == P - 2
    assert np.abs(science.soc_now - solid.fraction[last])[known].max() < 0.03


def test_every_frame_is_given_back_once_even_without_a_baseline() -> None:
    movie = Movie(np.arange(30) * 0.1, np.zeros((30, 2)), baseline_frames=1000)
    science = Science(mask_set(2), ScienceSettings())
    updates = [science.add(batch) for batch in movie.batches(7)]
    assert all(update.frame_columns is None for update in updates)
    final = science.finish()
    assert final.frame_columns is not None
    assert final.frame_columns["frame"].tolist() == list(range(30))
    assert science.summary()["baseline_truncated"]
    assert science.finish().frame_columns is None


def test_memory_does_not_grow_with_a_cell_that_stopped_talking() -> None:
    rows = [row for row in cell_rows(FAST) if row.t_s < 1000]
    t_s = times(cell_rows(FAST), 2.0)
    result = run(Movie(t_s, np.zeros((len(t_s), 2))), rows, settings=ScienceSettings(waiting_blocks=50))
    assert result.science.summary()["blocks_without_cell"] > 1000
    assert len(result.science._waiting) <= 51


def test_gaps_become_one_event_a_second() -> None:
    flags = np.zeros(300, np.uint32)
    flags[::10] = FrameFlag.GAP_BEFORE
    block_id = np.arange(300) * 2
    result = run(Movie(np.arange(300) * 0.01, np.zeros((300, 2)), flags=flags, block_id=block_id), [])
    drops = [event for event in result.events if event.kind is EventKind.FRAMES_DROPPED]
    assert 3 <= len(drops) <= 5
    assert sum(event.magnitude for event in drops) == 30


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_particles_are_as_good_as_many(count: int) -> None:
    rows = cell_rows(FAST)
    t_s = times(rows, 10.0)
    fraction = np.repeat(charge_at(rows)(t_s)[:, None], count, axis=1)
    result = run(Movie(t_s, 0.2 * fraction), rows)
    assert len(result.cycles) == 4 * count
    assert set(kinds(result)) <= {"monotone"}
    assert result.science.summary()["particles"] == count


ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


@st.composite
def hostile_batch(draw: st.DrawFn, particles: int) -> MeasureBatch:
    frames = draw(st.integers(0, 4))

    def numbers(*shape: int) -> np.ndarray:
        return draw(arrays(np.float64, shape, elements=ANY))

    def bits(*shape: int) -> np.ndarray:
        return draw(arrays(np.int64, shape, elements=st.integers(0, 127)))

    batch = Movie(np.zeros(frames), np.zeros((frames, particles))).batches(max(frames, 1))
    base = batch[0] if batch else Movie(np.zeros(1), np.zeros((1, particles)))._batch(0, 0)
    return dataclasses.replace(
        base, t_s=numbers(frames), host_t_s=numbers(frames), drift_y_px=numbers(frames), illumination=numbers(frames),
        focus=numbers(frames), flags=bits(frames).astype(np.uint32), flux_e=numbers(frames, particles),
        flux_sigma_e=numbers(frames, particles), layer_flux_e=numbers(frames, particles, 4),
        layer_sigma_e=numbers(frames, particles, 4), particle_flags=bits(frames, particles).astype(np.uint16),
        baseline_flux_e=draw(st.none() | arrays(np.float64, particles, elements=ANY)),
        baseline_layer_flux_e=draw(st.none() | arrays(np.float64, (particles, 4), elements=ANY)),
    )  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data(), particles=st.sampled_from([0, 1, 3]))
def test_nothing_that_comes_in_raises(data: st.DataObject, particles: int) -> None:
    batches = data.draw(st.lists(hostile_batch(particles), max_size=4))
    current = data.draw(st.lists(ANY, max_size=20))
    rows = [
        dataclasses.replace(row, current_ma=value)
        for row, value in zip(cell_rows([Step(100, 0)]), current, strict=False)
    ]
    science = Science(mask_set(particles), ScienceSettings(block_s=0.01))
    given_back = 0
    for batch in batches:
        science.add_cell(rows[:5])
        update = science.add(batch)
        given_back += 0 if update.frame_columns is None else len(update.frame_columns["frame"])
    science.add_cell(rows[5:])
    final = science.finish()
    given_back += 0 if final.frame_columns is None else len(final.frame_columns["frame"])
    assert given_back == sum(len(batch) for batch in batches)
    assert science.states.shape == science.soc_now.shape == (particles,)
    assert all(isinstance(value, (int, float, str, list, bool, type(None))) for value in science.summary().values())


def test_time_that_jumps_is_survived_and_counted() -> None:
    t_s = np.r_[np.arange(100) * 0.1, 1e9 + np.arange(50), np.arange(50) * 0.1]
    result = run(Movie(t_s, np.zeros((200, 2))), cell_rows([Step(100, 1), Step(100, -1)]))
    assert result.science.summary()["frames_out_of_order"] == 50
    assert len(result.t_s) == 200


def test_summary_before_anything_happened() -> None:
    summary = Science(mask_set(3), ScienceSettings()).summary()
    assert summary["particles_active"] == 3
    assert math.isnan(summary["soc_mean"])
    assert summary["half"] is None


def test_what_ends_with_a_half_is_spread_over_the_frames_after_it_however_they_are_batched() -> None:
    """At a camera's rate events are not kept waiting; at a frame every few seconds all is done before the next one."""
    rows = cell_rows([Step(2, 0), Step(20, 180), Step(20, -180), Step(6, 0)], every_s=0.1)
    t_s = times(rows, 0.02)
    fraction = np.repeat(charge_at(rows)(t_s)[:, None], P, axis=1)
    movie = Movie(t_s, response(fraction))
    told = {}
    for size in (1, 50):
        science = Science(mask_set(P), ScienceSettings(capacity_mah=CAPACITY_MAH))
        science.add_cell(rows)
        updates = [science.add(batch) for batch in movie.batches(size)]
        told[size] = collect(science, [*updates, science.finish()])
        if size == 1:
            calibrated = np.flatnonzero([bool(update.calibrations) for update in updates])
            cycled = np.flatnonzero([bool(update.cycles) for update in updates])
    turn = int(np.searchsorted(t_s, 22.0))
    assert turn + 10 < calibrated[0] <= cycled[0] < turn + 250
    np.testing.assert_equal(told[1].calibrations, told[50].calibrations)
    np.testing.assert_equal(told[1].cycles, told[50].cycles)
