"""What `models` hands on and prints; the fits are tested with `daemon.insight.models`."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import daemon.insight.models
from daemon.errors import InsightError, InsightReason
from daemon.insight.models import FitResult, Models
from daemon.insight.run_data import RunData


@pytest.fixture
def fitting(monkeypatch):
    """Stands in for the fit: `calls` are what it was asked."""
    soc = np.linspace(0, 1, 5)
    fits = [FitResult(7, 4.0, 3.0, 5.0, 0.1, 2e-15, 1e-15, 3e-15, 1e-6), FitResult(8, reason="dead")]
    made = Models(fits, "cathode", False, 15.0, 0.05, 0.4, soc, np.ones(5), np.zeros(5), soc, soc + 3.4, "rests")
    fake = SimpleNamespace(calls=[], error=None)

    def fit(run, particles, ocv, progress):
        fake.calls.append((particles, ocv))
        progress(1.0)
        if fake.error:
            raise fake.error
        return made

    monkeypatch.setattr(daemon.insight.models, "fit_models", fit)
    monkeypatch.setattr(RunData, "load", classmethod(lambda cls, path: path))
    return fake


def test_a_table_and_files(run, fitting, tmp_path):
    done = run("models", "r.db", "--out", tmp_path / "sets", "--particles", "7-8", "--ocv", "u.csv")
    assert (done.exit_code, done.stderr) == (0, "")
    assert fitting.calls == [([7, 8], Path("u.csv"))]
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == [
        "ensemble.json", "particle_7.json", "photometry_parameters.py",
    ]  # fmt: skip
    lines = done.stdout.splitlines()
    assert "rate_per_h" in lines[0] and "dead" in lines[2]
    assert lines[-1].startswith("rates spread by 0.40 (of ln), their scale is known to 0.05")


def test_json_has_no_nan(run, fitting, tmp_path):
    answer = json.loads(run("models", "r.db", "--out", tmp_path, "--json").stdout)
    assert answer["particles"][1]["rate_per_h"] is None and answer["particles"][1]["reason"] == "dead"
    assert answer["common"]["rate_spread"] == 0.4 and len(answer["files"]) == 3
    assert fitting.calls == [(None, None)]


def test_a_run_that_cannot_be_fitted_is_a_sentence(run, fitting, tmp_path):
    fitting.error = InsightError(InsightReason.NO_OCV, "the cell's record covers less than half of the SoC")
    done = run("models", "r.db", "--out", tmp_path)
    assert done.exit_code == 1 and "--ocv" in done.stderr and done.stderr.count("\n") == 1
