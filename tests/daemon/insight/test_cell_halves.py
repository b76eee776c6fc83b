from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.insight.cell_halves import capacity_mah, cell_halves, substantial, thinned
from daemon.insight.run_data import RunData
from tests.daemon.report.synthetic_run import SyntheticRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = SyntheticRun(particles=3, frames=400, cycles=2, events=0)
    return RunData.load(made.write(tmp_path_factory.mktemp("halves") / "r.db"))


def with_echem(run, **columns):
    return replace(run, echem=run.echem | columns)


def test_halves_are_those_the_cycles_count(run):
    halves = cell_halves(run)
    assert [(half.cycle, half.half) for half in halves] == [
        (0, "charge"), (0, "discharge"), (1, "charge"), (1, "discharge"),
    ]  # fmt: skip
    assert [half.passed_mah for half in halves] == pytest.approx([1.0] * 4, abs=0.03)
    assert [half.whole for half in halves] == [True, True, True, False]
    assert [half.mean_current_ma for half in halves] == pytest.approx([36.0] * 4, rel=0.05)
    for half in halves:
        assert (~half.driven).sum() <= 1, "the sample at the turn has no current"
        assert (np.diff(half.t_s) > 0).all()


def test_a_last_half_that_rests_is_whole(run):
    resting = run.echem["t_s"] > 380
    current, kind = run.echem["current_ma"].copy(), run.echem["step_kind"].copy()
    current[resting], kind[resting] = 0.0, "rest"
    halves = cell_halves(with_echem(run, current_ma=current, step_kind=kind))
    assert halves[-1].whole and not halves[-1].driven.all()


def test_the_capacity_and_where_it_comes_from(run):
    assert capacity_mah(run, [])[0] == 1.0
    run.metadata.pop("capacity_mah")
    capacity, origin = capacity_mah(run, cell_halves(run))
    assert capacity == pytest.approx(1.0, abs=0.03) and "largest" in origin
    assert np.isnan(capacity_mah(run, [])[0])


def test_no_record_and_no_current_have_no_halves(run):
    empty = {name: values[:0] for name, values in run.echem.items()}
    assert cell_halves(with_echem(run, **empty)) == []
    rest = np.zeros_like(run.echem["current_ma"])
    kinds = np.full(len(rest), "rest", object)
    assert cell_halves(with_echem(run, current_ma=rest, step_kind=kinds)) == []


def test_scraps_do_not_count(run):
    halves = cell_halves(run)
    scrap = replace(halves[0], passed_mah=0.01)
    assert substantial([*halves, scrap]) == halves
    assert substantial([]) == []


def test_thinning_keeps_rows_together():
    columns = {"t_s": np.arange(10.0), "v": 2 * np.arange(10.0)}
    found = thinned(columns, 4)
    assert len(found["t_s"]) <= 4 and (found["v"] == 2 * found["t_s"]).all()
    assert thinned(columns, 100)["t_s"].tolist() == columns["t_s"].tolist()
