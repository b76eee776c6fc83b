from __future__ import annotations

import json

import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.insight.batches import plain
from daemon.insight.drivers import drivers
from daemon.insight.estimates import normal_scores
from daemon.insight.run_data import RunData
from tests.daemon.insight.runs import correlated, particle_columns, plain_cell, run_data, without_pixel_size, write_run


def cracking(seed: int, beta: float = 1.0, count: int = 150, cycles: int = 10) -> RunData:
    """Longer particles crack first, and nothing drives anything else."""
    run = plain_cell(seed, count=count, cycles=cycles, dead=0.0)
    rng = np.random.default_rng([seed, 1])
    score = normal_scores(run.particles["major_um"])
    when = rng.exponential(1 / (0.03 * np.exp(beta * score)))
    half_s = 7800.0
    run.events.extend(
        Event(EventKind.CRACK, 2 * half_s * t, 2 * half_s * t, int(identity))
        for identity, t in zip(run.particle_id, when, strict=True)
        if t < cycles
    )
    return run


@pytest.fixture(scope="module")
def planted():
    """Thin and thick particles of every length, so that length can be told from size."""
    run = cracking(2)
    rng = np.random.default_rng(2)
    noise = np.exp(0.2 * rng.normal(size=(2, 150)))
    run.particles["equivalent_diameter_um"] *= noise[0]
    run.particles["brightness_e"] *= noise[1]
    return drivers(run)


def test_the_driver_is_named_and_what_goes_along_with_it_is_not(planted):
    (crack,) = [fate for fate in planted.fates if fate.outcome == "crack"]
    assert [effect.covariate for effect in crack.drivers] == ["length"]
    (length,) = crack.drivers
    assert length.standing == "driver" and length.rivals == () and length.q >= length.p
    assert 1 < length.lo < np.e < length.hi
    assert crack.concordance > 0.6 and length.changes_p > 1e-4 and crack.failures > 20
    size = next(effect for effect in crack.effects if effect.covariate == "size")
    assert size.standing == "goes along" and size.p < 0.01 < size.beside_p and size.beside < 0.8 * size.effect
    others = [fate for fate in planted.fates if fate.outcome != "crack"]
    assert [fate.outcome for fate in others if fate.drivers] == []


def test_what_cannot_be_told_apart_is_said():
    found = drivers(cracking(1))
    (crack,) = [fate for fate in found.fates if fate.outcome == "crack"]
    (leading,) = crack.drivers
    assert leading.standing == "one of" and {"length", "size"} <= {leading.covariate, *leading.rivals}
    standing = {effect.covariate: effect.standing for effect in crack.effects}
    assert all(standing[name] == "one of" for name in leading.rivals)
    assert "cannot be told apart here: length and diameter" in found.sentences()[0]


def test_rates_that_go_by_place_are_said_to():
    run = plain_cell(6, count=150, cycles=2, dead=0.0, spread=0.1)
    shared = 0.4 * correlated(np.random.default_rng(6), run.particles, 400.0)
    run.cycles["rate_per_h"] *= np.exp(np.tile(shared, 4))
    found = drivers(run)
    by_place = {fate.outcome: fate.by_place for fate in found.fates}
    assert by_place["rate_charge"] and by_place["rate_discharge"] and not by_place["lag_charge"]
    assert any(each.startswith("Rate on charge goes by place: neighbours agree, in ") for each in found.sentences())


def test_it_is_said_in_words(planted):
    told = planted.sentences()
    assert told[0].startswith("Longer particles crack first: hazard ratio ")
    assert "per standard deviation of length (" in told[0] and "q = " in told[0]
    assert any(each.startswith("Nothing measured drives rate on charge") for each in told)
    assert "Failure: 0 of 150 particles failed; at least 5 must, to tell who fails first." in told
    json.dumps(plain(planted.as_dict()), allow_nan=False)


def test_a_slow_rate_is_told_in_quarters():
    run = plain_cell(5, count=80, cycles=2, dead=0.0)
    score = normal_scores(run.particles["brightness_e"])
    for start in range(0, len(run.cycles["rate_per_h"]), 80):
        run.cycles["rate_per_h"][start : start + 80] *= np.exp(-0.3 * score)
    found = drivers(run)
    rate = next(fate for fate in found.fates if fate.outcome == "rate_charge")
    assert "brightness" in [effect.covariate for effect in rate.drivers]
    sentence = next(each for each in found.sentences() if each.startswith("Brighter particles charge more slowly"))
    assert "standard deviations -0." in sentence and "The upper quarter's median rate is -" in sentence
    assert rate.effects[0].particles == 80 and np.isfinite(rate.spatial_share)


def test_without_pixel_size_and_with_constant_columns():
    run = cracking(2, count=120)
    table = without_pixel_size(run.particles)
    table["solidity"] = np.full(120, 1.0)
    found = drivers(run_data(table, events=run.events, metadata={"pixel_size_nm": None}))
    assert found.unknown == {
        "length": "known for 0 particles; the run has no pixel size", "solidity": "the same for all particles",
        "neighbours": "known for 0 particles; the run has no pixel size",
    }  # fmt: skip
    rate = next(fate for fate in found.fates if fate.outcome == "rate_charge")
    assert rate.unknown.startswith("known for 0 particles") and rate.effects == ()
    crack = next(fate for fate in found.fates if fate.outcome == "crack")
    assert not crack.unknown and {"size", "brightness"} <= {effect.covariate for effect in crack.effects}


def test_properties_that_some_particles_lack():
    run = cracking(3, count=120)
    run.particles["aspect_ratio"][:30] = np.nan
    run.particles["nearest_neighbour_um"][:70] = np.nan
    crack = next(fate for fate in drivers(run).fates if fate.outcome == "crack")
    known = {effect.covariate: effect.particles for effect in crack.effects}
    assert known["aspect_ratio"] == 90 and "nearest_neighbour" not in known and known["length"] == 120


@pytest.mark.parametrize("count", [0, 1, 5])
def test_runs_with_hardly_any_particles(count):
    found = drivers(run_data(particle_columns(np.random.default_rng(1), count) if count > 1 else _few(count)))
    assert all(fate.unknown for fate in found.fates) and len(found.sentences()) == len(found.fates)


def _few(count):
    table = particle_columns(np.random.default_rng(1), 2)
    return {name: values[:count] for name, values in table.items()}


def test_from_a_file(tmp_path):
    run = cracking(4, count=60, cycles=3)
    found = drivers(RunData.load(write_run(run, tmp_path)))
    direct = drivers(run)
    assert found.sentences() == direct.sentences()
