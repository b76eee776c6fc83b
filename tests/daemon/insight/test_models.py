"""Models against an electrode whose physics is written anew (`tests/electrode.py`)."""

import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import daemon.insight.models
from daemon.errors import InsightError, InsightReason
from daemon.insight import pybamm_sets
from daemon.insight.models import FitResult, Models, fit_models, rate_spread
from daemon.insight.observe import EVERY
from daemon.insight.run_data import RunData
from kernels.kinetics import TABLE_HI, TABLE_LO, respond
from tests.electrode import Record, Spheres, activity, cycled, open_circuit_v
from tests.electrode_run import write_run

RATE_PER_H = np.array([1.5, 2.5, 3.0, 4.0, 5.0, 8.0])
TAU_S = np.array([900.0, 700.0, 1200.0, 600.0, 800.0, 1000.0])
TOO_FAST_PER_H = 3000.0
RADIUS_M = 1.5e-6


@pytest.fixture(scope="module")
def record():
    return cycled(Spheres(np.append(RATE_PER_H, TOO_FAST_PER_H), np.append(TAU_S, 900.0)), steps=120)


@pytest.fixture(scope="module")
def run(record, tmp_path_factory):
    wide = Record(record.t_s, record.voltage_v, record.current_ma, *(
        np.hstack([values, values[:, :1]]) for values in (record.soc, record.gradient)
    ))  # fmt: skip
    kinds = ["monotone"] * (len(RATE_PER_H) + 1) + ["folded"]
    return RunData.load(write_run(tmp_path_factory.mktemp("models"), wide, kinds=kinds))


@pytest.fixture(scope="module")
def models(run):
    return fit_models(run)


def values(models, name):
    return np.array([getattr(fit, name) for fit in models.results[: len(RATE_PER_H)]])


def test_rates_and_diffusivities_are_recovered_within_their_intervals(models):
    rate, diffusivity = values(models, "rate_per_h"), values(models, "diffusivity_m2_s")
    assert np.median(np.abs(np.log(rate / RATE_PER_H))) < 0.1
    away = np.log(rate / RATE_PER_H) - np.median(np.log(rate / RATE_PER_H))
    assert np.median(np.abs(away)) < 0.05
    inside = (values(models, "rate_lo_per_h") < RATE_PER_H) & (values(models, "rate_hi_per_h") > RATE_PER_H)
    assert inside.sum() >= 5
    np.testing.assert_allclose(diffusivity, RADIUS_M**2 / TAU_S, rtol=0.15)
    assert models.rate_spread == pytest.approx(np.log(RATE_PER_H).std(ddof=1), rel=0.1)
    assert models.series_resistance_ohm == pytest.approx(15.0, rel=0.05)


def test_the_common_shape_of_the_exchange_rate(models):
    inside = (models.soc > 0.1) & (models.soc < 0.9)
    np.testing.assert_allclose(np.log(models.activity[inside]), np.log(activity(models.soc[inside])), atol=0.2)
    middle = (models.equilibrium_soc > 0.1) & (models.equilibrium_soc < 0.9)
    truth = open_circuit_v(models.equilibrium_soc[middle])
    np.testing.assert_allclose(models.equilibrium_v[middle], truth, atol=0.005)


def test_the_prediction_lies_over_the_trace(models):
    for fit in models.results[: len(RATE_PER_H)]:
        assert len(fit.t_s) == len(fit.soc) == len(fit.predicted) == len(fit.simulated) > 300
        assert np.nanstd(fit.soc - fit.predicted) < 0.004
        assert np.nanstd(fit.soc - fit.simulated) < 0.01
        assert fit.chi2 < 2.0


def test_a_few_of_many_particles_are_read_and_agree_with_all(run, models, monkeypatch):
    read = []
    plain = RunData.traces

    def traces(self, *args, indices=None, **more):
        read.append(len(indices))
        return plain(self, *args, indices=indices, **more)

    monkeypatch.setattr(RunData, "traces", traces)
    monkeypatch.setattr(daemon.insight.models, "REPRESENTATIVES", 4)
    last = int(run.particle_id[len(RATE_PER_H) - 1])
    marks: list[float] = []
    (fit,) = fit_models(run, [last], progress=marks.append).results
    assert set(read) <= {4, 5}
    assert marks == sorted(marks) and marks[0] < 0.1 and marks[-1] == 1.0
    # one fit is little beside what is common to all
    assert marks[-2] > 0.9
    whole = models.results[len(RATE_PER_H) - 1]
    assert fit.particle_id == whole.particle_id == last
    np.testing.assert_allclose(fit.soc, whole.soc)
    assert fit.rate_lo_per_h < RATE_PER_H[-1] < fit.rate_hi_per_h


def test_steps_follow_exchange_that_quickens_with_charge():
    """A particle that lags far behind a rising voltage and catches up within a few points."""
    a_at, off_at = np.linspace(0, 1, 5), np.array([0.0, 1.0])
    own, a = np.array([math.log(2 / 3600), math.log(60.0), 0.02, 0, 0]), np.array([-6.0, -4.0, -2.0, -0.7, 0.0])
    table, none = 3.5 + 0.8 * np.linspace(TABLE_LO, TABLE_HI, 121), np.zeros(5)

    def charged(every):
        volts, zero = np.linspace(3.5, 4.2, 60 * every + 1)[1:], np.zeros(60 * every)
        out = np.empty(60), np.empty(60), np.empty((60, 5)), np.empty((60, 5))
        unseen, dt = np.full(60, np.nan), np.full(60 * every, 120.0 / every)
        respond(dt, volts, zero, every, table, a_at, none, a_at, a, off_at, own, 0.0, unseen, 0.0, 5, *out)
        return out[0]

    exact = charged(64 * EVERY)
    assert exact[8] < 0.03 and exact[-1] > 0.8
    assert np.abs(charged(EVERY) - exact).max() < 0.25 * np.abs(charged(2) - exact).max() < 0.02


def test_what_cannot_be_told_is_nan_with_a_reason(models):
    folded = models.results[-1]
    assert np.isnan(folded.rate_per_h) and np.isnan(folded.diffusivity_m2_s)
    assert folded.reason == "no SoC: folded"


def test_exchange_too_fast_to_be_seen_is_bounded_from_below(models):
    fit = models.results[len(RATE_PER_H)]
    assert np.isnan(fit.rate_per_h) and fit.rate_hi_per_h == np.inf
    assert 2 * RATE_PER_H.max() < fit.rate_lo_per_h < TOO_FAST_PER_H
    assert "rate only bounded from below" in fit.reason


def test_runs_without_a_record_or_such_particles_are_refused(run):
    silent = replace(run, echem={name: column[:0] for name, column in run.echem.items()})
    for data, particles, reason in ((silent, None, InsightReason.NO_RECORD), (run, [999], InsightReason.NO_PARTICLES)):
        with pytest.raises(InsightError) as caught:
            fit_models(data, particles)
        assert caught.value.reason is reason


def test_an_equilibrium_curve_from_a_file(run, tmp_path):
    soc = np.linspace(0, 1, 200)
    path = tmp_path / "ocv.csv"
    lines = [f"{x},{v}" for x, v in zip(soc, open_circuit_v(soc), strict=True)]
    path.write_text("\n".join(["soc,voltage_v", *lines]), encoding="utf-8")
    chosen = fit_models(run, [int(run.particle_id[1])], path)
    assert chosen.equilibrium_origin == "ocv.csv" and len(chosen.results) == 1
    assert chosen.results[0].rate_per_h == pytest.approx(RATE_PER_H[1], rel=0.2)
    path.write_text("soc,voltage_v\n0.5,3.7\n0.4,x", encoding="utf-8")
    with pytest.raises(InsightError, match="ocv"):
        fit_models(run, None, path)


def test_two_phases_give_rates_of_the_transformation(tmp_path):
    ln_k = np.array([-0.6, -0.3, 0.0, 0.2, 0.5, 0.7, -0.1, 0.35])
    run = RunData.load(write_run(tmp_path, switching(ln_k), kinds=["end_members"] * len(ln_k)))
    models = fit_models(run)
    rate = np.array([fit.rate_per_h for fit in models.results])
    away = np.log(rate) - ln_k
    assert models.two_phase and np.std(away - away.mean()) < 0.08
    assert models.rate_spread == pytest.approx(ln_k.std(ddof=1), rel=0.15)
    assert all("two phases" in fit.reason for fit in models.results)


def switching(ln_k, plateau_v=3.42, drive_v=(0.02, -0.02, 0.035, -0.035)):
    """Particles that pass one after another, as fast as `drive_v` beyond the plateau makes each."""
    t_s = np.arange(0.0, 4 * 3600.0, 5.0)
    half = (t_s // 3600).astype(int)
    volts = plateau_v + np.array(drive_v)[half]
    soc = np.zeros((len(t_s), len(ln_k)))
    for k, drive in enumerate(drive_v):
        mine = half == k
        into = t_s[mine] - 3600.0 * k
        for i, ln in enumerate(ln_k):
            speed = 3e-3 * np.exp(ln) * 2 * np.sinh(abs(drive) / (2 * 0.0256926))
            x = np.clip((into - 200.0 - 150.0 * i) * speed, 0.0, 1.0)
            soc[mine, i] = x if drive > 0 else 1.0 - x
    current = np.where(np.array(drive_v)[half] > 0, 0.5, -0.5)
    return Record(t_s, volts, current, soc, np.zeros_like(soc))


def result(particle_id, rate, **more):
    return FitResult(particle_id, rate, rate / 1.2, rate * 1.2, 0.05, 2e-15, 1.8e-15, 2.2e-15, RADIUS_M, **more)


@pytest.fixture
def some():
    soc = np.linspace(0, 1, 5)
    return Models([result(1, 4.0), result(2, 9.0), FitResult(3, reason="dead")], "cathode", False, 15.0, 0.05, 0.4,
                  soc, np.ones(5), np.zeros(5), soc, 3.5 + soc, "rests")  # fmt: skip


# Names and units of PyBaMM's half-cell sets (src/pybamm/input/parameters/lithium_ion/Xu2019.py)
PYBAMM_NAMES = {
    "Maximum concentration in positive electrode [mol.m-3]", "Initial concentration in positive electrode [mol.m-3]",
    "Positive electrode charge transfer coefficient", "Positive electrode OCP entropic change [V.K-1]",
    "Reference temperature [K]", "Ambient temperature [K]", "Initial temperature [K]", "Contact resistance [Ohm]",
    "Positive particle radius [m]", "Positive particle diffusivity [m2.s-1]",
    "Positive electrode exchange-current density [A.m-2]", "Positive electrode OCP [V]", "chemistry",
}  # fmt: skip


def test_parameter_sets_have_pybamms_names_and_units(some, tmp_path):
    paths = pybamm_sets.write_sets(some, tmp_path)
    assert [path.name for path in paths] == [
        "particle_1.json",
        "particle_2.json",
        "ensemble.json",
        "photometry_parameters.py",
    ]
    values = json.loads(paths[0].read_text(encoding="utf-8"))
    own = {name for name in values if not name.startswith("photometry: ")}
    assert own == PYBAMM_NAMES - {"Positive electrode OCP [V]"}
    # i0 = F * (c_max * window) * (R / 3) * k: the flux that fills a sphere of radius R at k an hour
    expected = 96485.33 * 50_000 * 0.6 * RADIUS_M / 3 * 4.0 / 3600
    assert values["Positive electrode exchange-current density [A.m-2]"] == pytest.approx(expected, rel=1e-6)
    assert values["Positive particle diffusivity [m2.s-1]"] == 2e-15
    assert sum(name.startswith("photometry: note") for name in values) >= 6
    ensemble = json.loads(paths[2].read_text(encoding="utf-8"))
    assert ensemble["Positive electrode exchange-current density [A.m-2]"] == pytest.approx(expected * 6.5 / 4)


def test_the_module_makes_functions_of_stoichiometry(some, tmp_path, monkeypatch):
    pybamm_sets.write_sets(some, tmp_path)
    interpolant = lambda x, y, sto, name, interpolator: np.interp(sto, x, y)  # noqa: E731
    monkeypatch.setitem(sys.modules, "pybamm", SimpleNamespace(Interpolant=interpolant))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "photometry_parameters", raising=False)
    import photometry_parameters

    values = photometry_parameters.get_parameter_values("particle_1")
    assert set(values) == PYBAMM_NAMES
    assert values["Positive electrode OCP [V]"](0.95) == pytest.approx(3.5)
    assert values["Positive electrode OCP [V]"](0.35) == pytest.approx(4.5)
    middle = values["Positive electrode exchange-current density [A.m-2]"](1000.0, 0.65 * 50_000, 50_000, 298.15)
    stored = json.loads((tmp_path / "particle_1.json").read_text(encoding="utf-8"))
    assert middle == pytest.approx(stored["Positive electrode exchange-current density [A.m-2]"])


def test_spread_is_less_its_own_uncertainty():
    rng = np.random.default_rng(4)
    truth = 0.3 * rng.standard_normal(4000)
    seen = np.exp(truth + 0.4 * rng.standard_normal(4000))
    fits = [FitResult(i, rate_per_h=float(r), rate_relative_sigma=0.4) for i, r in enumerate(seen)]
    assert rate_spread(fits) == pytest.approx(0.3, rel=0.08)
    assert np.isnan(rate_spread(fits[:1]))
