import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hw.recording.cell_record import find_sidecar, read_sidecar

HEADER = "Test Time / s,Voltage / V,Current / A"


def read(path):
    faults, notes = [], []
    return read_sidecar(path, faults, notes), faults, notes


def test_csv_with_further_columns_in_any_order(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("Current / A,Step,Test Time / s,Voltage / V\n0.001,a,0,3.5\n-0.002,b,3600,3.6\n")
    cell, faults, notes = read(path)
    assert faults == [] and len(notes) == 1
    assert cell.t_s.tolist() == [0, 3600] and cell.voltage_v.tolist() == [3.5, 3.6]
    np.testing.assert_allclose(cell.current_ma, [1, -2])
    np.testing.assert_allclose(cell.charge_mah, [0, -0.5])


def test_parquet(tmp_path):
    path = tmp_path / "r.parquet"
    columns = {
        "Test Time / s": [0, 1, 2],
        "Voltage / V": [3.0, None, 3.2],
        "Current / A": [1.0, 1.0, 1.0],
        "x": ["a", "b", "c"],
    }
    pq.write_table(pa.table(columns), path)
    cell, faults, _ = read(path)
    assert cell.t_s.tolist() == [0, 2] and cell.current_ma.tolist() == [1000, 1000]
    assert faults[0].index == 1 and "'r.parquet' is not a number at index 1" in faults[0].detail


def test_text_among_the_numbers_costs_its_row(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(f"{HEADER}\n0,3.5,0\n1,overload,0\n2,3.6,0\n")
    cell, faults, _ = read(path)
    assert cell.t_s.tolist() == [0, 2] and faults[0].index == 1


def test_a_clock_glitch_costs_its_row(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(HEADER + "\n" + "".join(f"{t},3.5,0\n" for t in (0, 1, 2, 1.5, 4)))
    cell, faults, _ = read(path)
    assert cell.t_s.tolist() == [0, 1, 2, 4] and "runs backwards at index 3" in faults[0].detail


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", b"", "r.csv"),
        ("r.csv", b"a,b\n1,2\n", "no column 'Test Time / s' (it has: a, b)"),
        ("r.csv", f"{HEADER}\n".encode(), "no samples"),
        ("r.csv", f"{HEADER}\n1,2\n".encode(), "r.csv"),
        ("r.csv", b"\xff\xfe\x00\x01" * 50, "r.csv"),
        ("r.parquet", b"PAR1 not really PAR1", "r.parquet"),
        ("r.csv", f"{HEADER}\n3,1,1\n2,1,1\n1,1,1\n0,1,1\n".encode(), "left out"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_fault(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    cell, faults, _ = read(path)
    assert cell is None and len(faults) == 1
    assert words in faults[0].detail


def test_sidecars_are_found_by_stem(tmp_path):
    recording = tmp_path / "r.ome.tif"
    assert find_sidecar(recording) is None
    (tmp_path / "r.csv").touch()
    assert find_sidecar(recording) == tmp_path / "r.csv"
    (tmp_path / "r.ome.parquet").touch()
    assert find_sidecar(recording) == tmp_path / "r.ome.parquet"
    assert find_sidecar(tmp_path / "r.h5") == tmp_path / "r.csv"
