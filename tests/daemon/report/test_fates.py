"""Fronts, ageing and drivers in the report, from rows as the store gives them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from daemon.errors import InsightError, InsightReason
from daemon.events import Event, EventKind
from daemon.insight.models import FitResult, Models
from daemon.report import ageing, fronts, kinetics, why
from daemon.report.material import gather
from daemon.report.page import Table, page
from daemon.tables import RATES
from tests.daemon.report.synthetic_run import SyntheticRun


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    made = SyntheticRun(particles=40, frames=400, cycles=2, events=0)
    return gather(made.write(tmp_path_factory.mktemp("fates") / "r.db"), None, lambda share: None)


def tables(section):
    return [part for part in section.parts if isinstance(part, Table)]


def figures(section):
    return [part for part in section.parts if isinstance(part, go.Figure)]


def sentences(section):
    return " ".join(part for part in section.parts if isinstance(part, str))


def health(particle_id, cycle, loss, *, warned=False, failed=False):
    row = dict.fromkeys(("loss_trend", "lead_cycles", "risk"), 0.01 * particle_id)
    return row | {"particle_id": particle_id, "cycle": cycle, "loss": loss, "warned": warned, "failed": failed}


def front(particle_id, cycle, half, mode, speed=0.1, reason=""):
    known = mode != "none"
    return {
        "particle_id": particle_id, "cycle": cycle, "half": half, "mode": mode, "reason": reason,
        "speed_px_per_s": speed if known else None, "onset_t_s": 10.0 if known else None,
        "end_t_s": 30.0 if known else None,
    }  # fmt: skip


def test_nothing_to_tell_is_said(material):
    empty = replace(material, fronts=[], front_series=[], health=[])
    assert "No half was measured" in sentences(fronts.section(empty))
    assert "from four whole cycles" in sentences(ageing.section(empty))
    nobody = replace(material.run, particles={name: values[:0] for name, values in material.run.particles.items()})
    assert "no particles" in sentences(why.section(replace(material, run=nobody)))


def test_speeds_are_of_the_standing_cycle_by_half_and_mode(material):
    cycle = material.cycle
    rows = [front(k, cycle, "charge", "core", speed=-0.1 * k) for k in range(1, 10)]
    rows += [front(20, cycle, "discharge", "axial"), front(21, cycle, "charge", "none", reason="no_step")]
    rows += [front(22, cycle + 1, "charge", "core", speed=99.0)]
    series = {"t_s": np.array([0.0, 10.0]), "front_px": np.array([0.0, 4.0])}
    told = fronts.section(replace(material, fronts=rows, front_series=[("core", "charge", series)]))
    (table,) = tables(told)
    assert [row[:3] for row in table.rows] == [("charge", "core", 9), ("discharge", "axial", 1)]
    assert table.rows[0][3] == pytest.approx(0.5)
    assert table.rows[0][6] == pytest.approx(0.5 * 1000 * material.pixel_um)
    assert table.rows[0][7] == pytest.approx(20.0)
    assert "10 crossings in 11" in sentences(told) and "levels do not change enough (1)" in sentences(told)
    (figure,) = figures(told)
    np.testing.assert_allclose(figure.data[0].y, [0.0, 4.0])


def test_no_front_gives_the_reasons_and_no_figure(material):
    rows = [front(k, 0, "charge", "none", reason="not_one_crossing") for k in range(4)]
    told = fronts.section(replace(material, fronts=rows, front_series=[]))
    assert not figures(told) and "does not explain what changed (4)" in sentences(told)


def test_the_warned_are_listed_by_risk_and_counted_ahead_of_failure(material):
    rows = [health(k, cycle, 0.01 * cycle) for cycle in range(4, 8) for k in (1, 2, 3, 4)]
    rows += [health(5, 4, 0.1, warned=True), health(5, 5, 0.3, warned=True, failed=True)]
    rows += [health(6, 4, 0.0), health(6, 5, None, warned=True)]
    rows += [health(7, 5, 0.5, warned=True, failed=True)]
    warning = Event(EventKind.WARNING, 5.0, 5.0, 6, detail="particle 6 <fades>")
    told = ageing.section(replace(material, health=rows, run=replace(material.run, events=[warning])))
    assert "3 particles of 7 warned of, 2 failed; 1 of these were warned of in an earlier cycle" in sentences(told)
    (table,) = tables(told)
    assert [row[0] for row in table.rows] == [7, 6, 5]
    assert [row[1] for row in table.rows] == [5, 5, 4]
    assert table.rows[1][-1] == "particle 6 <fades>"
    assert "<fades>" not in page("", [], [told]).split("</style>")[1].split("plotly.js")[-1].split("<h2")[-1]


def test_every_effect_is_drawn_with_its_interval(material):
    """Diameter is made to follow the lag: that must stand in the figure of lags, and in words."""
    particles = dict(material.run.particles)
    lag = material.run.by_cycle("lag_s", "charge")[1][-1]
    rng = np.random.default_rng(1)
    particles["equivalent_diameter_um"] = np.nan_to_num(lag) * 0.02 + 3.0 + rng.normal(0, 0.02, len(lag))
    told = why.section(replace(material, run=replace(material.run, particles=particles)))
    drawn = json.loads(figures(told)[0].to_json())["data"]
    assert all(trace["error_x"]["array"][0] >= 0 and trace["error_x"]["arrayminus"][0] >= 0 for trace in drawn)
    assert any(row[1] in ("diameter", "size", "equivalent diameter um") for row in tables(told)[0].rows), tables(told)
    assert "lag" in sentences(told)


def models(results, **changes):
    none = np.zeros(0)
    common = {
        "electrode": "cathode", "two_phase": False, "series_resistance_ohm": 1.0, "scale_sigma": 0.1,
        "rate_spread": 0.3, "soc": none, "activity": none, "activity_sigma": none, "equilibrium_soc": none,
        "equilibrium_v": none, "equilibrium_origin": "rests",
    }  # fmt: skip
    return Models(results, **common | changes)


def test_predictions_lie_over_traces_and_bounds_in_the_table(material, monkeypatch):
    ids = [int(material.run.particle_id[choice.index]) for choice in material.chosen]
    t_s = np.arange(50.0)
    soc = t_s / 50
    whole = FitResult(ids[0], 2.0, 1.5, 2.5, t_s=t_s, soc=soc, soc_sigma=soc, predicted=soc + 0.01)
    passages = FitResult(ids[1], 3.0, 2.0, 4.0, reason="two phases: no diffusivity", t_s=t_s, soc=soc)
    monkeypatch.setattr(kinetics, "fit_models", lambda run, wanted: models([whole, passages]))
    told = kinetics.section(material)
    (table,), (figure,) = tables(told), figures(told)
    assert [row[0] for row in table.rows] == ids[:2]
    assert table.rows[0][7] == pytest.approx(0.01) and np.isnan(table.rows[1][7])
    assert [trace.name for trace in figure.data] == ["measured", "model"]
    assert "known to 10%" in sentences(told)


def test_potential_steps_tell_rates_over_overpotential(material, monkeypatch):
    monkeypatch.setattr(kinetics, "fit_models", lambda run, wanted: models([]))
    count = len(material.run.particle_id)
    rates = {name: np.full(2 * count, np.nan) for name in RATES} | {
        "particle_id": np.tile(material.run.particle_id, 2).astype(float), "t_s": np.repeat([0.0, 100.0], count),
        "overpotential_v": np.repeat([0.02, -0.04], count), "soc_from": np.full(2 * count, 0.2),
        "soc_to": np.full(2 * count, 0.5), "rate_per_h": np.tile(np.arange(count) + 1.0, 2) * np.repeat([1, 2], count),
        "rate_sigma_per_h": np.full(2 * count, 0.01),
    }  # fmt: skip
    told = kinetics.section(replace(material, run=replace(material.run, rates=rates)))
    table = tables(told)[-1]
    assert "(20 to 40 mV)" in sentences(told) and [row[6] for row in table.rows] == [2] * len(material.chosen)
    assert all(row[2] < row[1] < row[3] for row in table.rows)
    unknown = rates | {"overpotential_v": np.full(2 * count, np.nan)}
    told = kinetics.section(replace(material, run=replace(material.run, rates=unknown)))
    assert "No rate over overpotential" in sentences(told)
    assert "overpotential" not in sentences(kinetics.section(material))


def test_why_there_are_no_kinetics(material, monkeypatch):
    def refuse(run, wanted):
        raise InsightError(InsightReason.NO_RECORD, "r.db holds no current")

    monkeypatch.setattr(kinetics, "fit_models", refuse)
    assert "r.db holds no current" in sentences(kinetics.section(material))
    assert "No particle" in sentences(kinetics.section(replace(material, chosen=[])))
