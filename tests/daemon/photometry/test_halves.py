import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cell.samples import CellRow
from daemon.photometry.halves import MAX_SAMPLES, CellTrack
from tests.daemon.photometry.synthetic import Step, cell_rows


def cut(rows: list[CellRow], capacity_mah: float | None = 1.0) -> list:
    track = CellTrack(capacity_mah)
    track.add(rows)
    track.finish()
    return list(track.closed)


def test_charge_rest_discharge_are_two_halves_and_a_lead_in() -> None:
    rows = cell_rows([Step(100, 0), Step(1000, 1), Step(300, 0), Step(500, -1), Step(100, 0)])
    lead, charge, discharge = cut(rows)
    assert (lead.sign, lead.index, lead.name) == (0, -1, "")
    assert (charge.name, charge.cycle, discharge.name, discharge.cycle) == ("charge", 0, "discharge", 0)
    assert charge.start_t_s == 105.0
    assert charge.end_t_s == discharge.start_t_s == 1405.0
    assert discharge.end_t_s == 2000.0
    assert charge.passed_mah == pytest.approx(1000 / 3600, rel=0.01)
    assert charge.mean_current_ma == pytest.approx(1.0, rel=0.02)
    assert [(rest.start_t_s, rest.end_t_s) for rest in charge.rests] == [(1105.0, 1405.0)]


@pytest.mark.parametrize("capacity_mah", [1.0, None])
def test_pulses_of_one_sign_are_one_half(capacity_mah: float | None) -> None:
    rows = cell_rows([Step(60, 1), Step(60, 0)] * 5 + [Step(60, -1), Step(60, 0)] * 5)
    halves = [half for half in cut(rows, capacity_mah) if half.sign]
    assert [half.name for half in halves] == ["charge", "discharge"]
    assert len(halves[0].rests) == 5
    assert halves[1].drive_s == pytest.approx(300, abs=30)


def test_a_short_spike_the_other_way_ends_nothing() -> None:
    rows = cell_rows([Step(1000, 1), Step(5, -1), Step(1000, 1)])
    assert [half.name for half in cut(rows) if half.sign] == ["charge"]


def test_small_pulses_back_add_up_to_a_new_half() -> None:
    rows = cell_rows([Step(1000, 1)] + [Step(10, -0.5), Step(100, 0)] * 10)
    assert [half.name for half in cut(rows) if half.sign] == ["charge", "discharge"]


def test_idle_current_is_rest() -> None:
    rows = [
        dataclasses.replace(row, current_ma=1e-4 * (-1) ** k, step_kind="off") if row.current_ma == 0 else row
        for k, row in enumerate(cell_rows([Step(100, 0), Step(500, 1), Step(100, 0), Step(500, -1)]))
    ]
    assert [half.sign for half in cut(rows, None)] == [0, 1, -1]


def test_grouping_of_rows_does_not_matter() -> None:
    rows = cell_rows([Step(100, 0), Step(400, 1), Step(100, 0), Step(400, -1)] * 3)
    one = CellTrack(1.0)
    for row in rows:
        one.add([row])
    one.finish()
    assert list(one.closed) == cut(rows)


def test_nothing_is_settled_while_a_turn_is_in_doubt() -> None:
    rows = cell_rows([Step(1000, 1), Step(5, -1)])
    track = CellTrack(1.0)
    track.add(rows)
    assert track.settled_t_s == rows[-1].t_s
    assert track.current.sign == 1
    assert track.current.samples[-1][0] == rows[-2].t_s


def test_charge_survives_a_reset_and_a_missing_coulometry() -> None:
    rows = cell_rows([Step(1000, 1)])
    reset = [dataclasses.replace(row, charge_mah=row.charge_mah - (5.0 if row.t_s > 500 else 0.0)) for row in rows]
    missing = [dataclasses.replace(row, charge_mah=math.nan) for row in rows]
    for record in (reset, missing):
        assert cut(record)[-1].passed_mah == pytest.approx(995 / 3600, rel=1e-6)


def test_long_halves_are_thinned_and_keep_their_ends() -> None:
    rows = cell_rows([Step(5.0 * 3 * MAX_SAMPLES, 0.01)])
    half = cut(rows)[-1]
    assert len(half.samples) < MAX_SAMPLES
    assert half.samples[-1][0] == rows[-1].t_s
    times = np.array([rows[40].t_s, rows[9000].t_s])
    assert half.interpolate(times)[2] == pytest.approx([rows[40].charge_mah, rows[9000].charge_mah], rel=0.05)


def test_bad_rows_are_left_out_and_counted() -> None:
    rows = cell_rows([Step(100, 1)])
    track = CellTrack(1.0)
    track.add([*rows, dataclasses.replace(rows[0]), dataclasses.replace(rows[-1], voltage_v=math.nan)])
    assert track.rejected == 2


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=40), st.sampled_from([None, 1.0]))
def test_any_record_is_survived(values: list[tuple], capacity_mah: float | None) -> None:
    kinds = ("charge", "rest", "off")
    rows = [
        CellRow(t, t, volts, current, 0, 0, kinds[k % 3], charge)
        for k, (t, volts, current, charge) in enumerate(values)
    ]
    halves = cut(rows, capacity_mah)
    assert all(not half.end_t_s < half.start_t_s for half in halves)
