"""Fronts in the store, and in traces by interpolation."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from daemon.store.front_traces import FrontTraces, charged_fraction
from daemon.store.reader import RunReader
from tests.daemon.store.helpers import WAIT_S, open_run, without_proof


def front(particle_id: int, half: str = "charge", start_s: float = 10.0, **changes):
    """A row with a front that goes 1 px a second for 20 s."""
    t_s = start_s + np.arange(0.0, 20.1, 2.0)
    row = {
        "particle_id": particle_id, "cycle": 0, "half": half, "mode": "axial", "reason": "", "begin": "first",
        "explained": 0.99, "speed_px_per_s": 1.0, "speed_sigma_px_per_s": 0.01, "speed_nm_per_s": float("nan"),
        "speed_sigma_nm_per_s": float("nan"), "onset_t_s": start_s + 1, "end_t_s": start_s + 19, "t_s": t_s,
        "front_px": (t_s - start_s).astype("f4"), "front_sigma_px": np.full(len(t_s), 0.1, "f4"),
        "fraction": ((t_s - start_s) / 20).astype("f4"),
    }  # fmt: skip
    return row | changes


def without(particle_id: int, reason: str = "no_step"):
    return {"particle_id": particle_id, "cycle": 0, "half": "charge", "mode": "none", "reason": reason}


@pytest.fixture
def run_path(tmp_path):
    with open_run(tmp_path) as (writer, path):
        rows = [front(11), front(12, "discharge", 25.0), without(13), front(14, "none")]
        writer.put_fronts([front(11, speed_px_per_s=7.0)]).result(WAIT_S)
        writer.put_fronts(rows).result(WAIT_S)
        yield path


def blank(frames: int, particles: int):
    names = ("front_px", "front_sigma_px", "transformed_fraction")
    return {name: np.full((frames, particles), np.nan, np.float32) for name in names}


def test_rows_come_back_and_later_ones_replace_earlier(run_path):
    with RunReader(run_path) as run:
        rows = {row["particle_id"]: row for row in run.fronts()}
        assert rows[11]["speed_px_per_s"] == 1.0 and rows[11]["speed_nm_per_s"] is None
        assert (rows[13]["mode"], rows[13]["reason"], rows[13]["onset_t_s"]) == ("none", "no_step", None)
        assert [row["particle_id"] for row in run.fronts(12)] == [12]
        assert [span["particle_id"] for span in run.front_spans()] == [11, 14, 12]


def test_traces_are_filled_between_the_instants_and_nowhere_else(run_path):
    t_s = np.arange(0.0, 60.0, 0.5)
    with RunReader(run_path) as run:
        traces = FrontTraces(run, np.array([12, 11, 13]))
        whole = blank(len(t_s), 3)
        traces.fill(t_s, whole)
        pieces = blank(len(t_s), 3)
        for start in range(0, len(t_s), 17):
            part = slice(start, start + 17)
            piece = {name: values[part] for name, values in pieces.items()}
            traces.fill(t_s[part], piece)
    inside = (t_s >= 10) & (t_s <= 30)
    np.testing.assert_allclose(whole["front_px"][inside, 1], t_s[inside] - 10, atol=1e-5)
    np.testing.assert_allclose(whole["front_sigma_px"][inside, 1], 0.1)
    assert np.isnan(whole["front_px"][~inside, 1]).all() and np.isnan(whole["front_px"][:, 2]).all()
    np.testing.assert_allclose(whole["transformed_fraction"][inside, 1], (t_s[inside] - 10) / 20, atol=1e-5)
    later = (t_s >= 25) & (t_s <= 45)
    np.testing.assert_allclose(whole["transformed_fraction"][later, 0], 1 - (t_s[later] - 25) / 20, atol=1e-5)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, pieces[name])


def test_what_a_calibration_tells_stays(run_path):
    t_s = np.array([20.0])
    derived = blank(1, 1)
    derived["transformed_fraction"][:] = 0.25
    with RunReader(run_path) as run:
        FrontTraces(run, np.array([11])).fill(t_s, derived)
    assert derived["transformed_fraction"][0, 0] == 0.25 and derived["front_px"][0, 0] == 10.0


def test_a_damaged_series_is_left_out(run_path):
    with closing(sqlite3.connect(run_path)) as db, db:
        blob = bytearray(db.execute("select series from fronts where particle_id = 11").fetchone()[0])
        blob[-1] ^= 255
        db.execute("update fronts set series = ? where particle_id = 11", (bytes(blob),))
    derived = blank(1, 2)
    with RunReader(run_path) as run:
        FrontTraces(run, np.array([11, 14])).fill(np.array([20.0]), derived)
        assert {row["particle_id"] for row in run.fronts()} == {11, 12, 13, 14}
    assert np.isnan(derived["front_px"][0, 0]) and derived["front_px"][0, 1] == 10.0


def test_a_file_from_before_fronts_has_none(run_path):
    without_proof(run_path)
    with closing(sqlite3.connect(run_path)) as db, db:
        db.execute("drop table fronts")
    derived = blank(2, 1)
    with RunReader(run_path) as run:
        assert run.fronts() == [] and run.front_spans() == []
        FrontTraces(run, np.array([11])).fill(np.array([20.0, 21.0]), derived)
    assert np.isnan(derived["front_px"]).all()


def test_unknown_columns_are_refused(tmp_path):
    with open_run(tmp_path) as (writer, _), pytest.raises(ValueError, match="no column"):
        writer.put_fronts([{**without(1), "colour": "red"}])


def test_the_charged_share_needs_a_direction():
    share = np.array([0.25])
    assert charged_fraction("charge", share)[0] == 0.25 and charged_fraction("discharge", share)[0] == 0.75
    assert np.isnan(charged_fraction("none", share)).all()
