"""The cell's record beside the frames: the rows of an HDF5 dataset, or a table in Battery Data Format columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.errors import RecordingError, RecordingReason
from hw.recording.faults import Fault, refused_as
from hw.recording.time_axis import advancing

BDF_COLUMNS = ("Test Time / s", "Voltage / V", "Current / A")
_LARGEST_TABLE_BYTES = 4 << 30


@dataclass(frozen=True)
class CellRecord:
    """(M,) float64 arrays on the camera's clock, t = 0 at the first frame; positive current charges the cell."""

    t_s: np.ndarray
    voltage_v: np.ndarray
    current_ma: np.ndarray
    charge_mah: np.ndarray

    def shifted(self, offset_s: float) -> CellRecord:
        """The same record `offset_s` later."""
        return CellRecord(self.t_s + offset_s, self.voltage_v, self.current_ma, self.charge_mah)


def record_from_rows(rows: np.ndarray, dataset: str, faults: list[Fault], notes: list[str]) -> CellRecord | None:
    """The record of (R >= 4, M) rows voltage V, current mA, charge mAh, time s.

    Rows that are not numbers or run backwards are left out with a fault; None, with a fault, when too little remains.
    """
    voltage_v, current_ma, charge_mah, t_s = (np.asarray(row, dtype=np.float64) for row in rows[:4])
    usable_t = np.where(np.isfinite(voltage_v) & np.isfinite(current_ma), t_s, np.nan)
    try:
        kept = advancing(usable_t, dataset, faults)
    except RecordingError as error:
        faults.append(Fault(error.code, f"{error.detail}; the cell is left out", error.index))
        return None
    if len(kept) == 0:
        faults.append(Fault.bad_dataset(f"'{dataset}' holds no samples: the cell is left out"))
        return None
    charge_mah = charge_mah[kept]
    if not np.isfinite(charge_mah).all():
        charge_mah = _coulometry_mah(t_s[kept], current_ma[kept])
        notes.append(f"charge integrated from the current of '{dataset}'")
    return CellRecord(t_s[kept], voltage_v[kept], current_ma[kept], charge_mah)


def _coulometry_mah(t_s: np.ndarray, current_ma: np.ndarray) -> np.ndarray:
    """Trapezoidal charge since the first sample."""
    steps = 0.5 * (current_ma[1:] + current_ma[:-1]) * np.diff(t_s) / 3600.0
    return np.concatenate(([0.0], np.cumsum(steps)))


def find_sidecar(path: Path) -> Path | None:
    """The table beside a recording: same stem, `.parquet` or `.csv` (of `x.ome.tif` also the stem `x`)."""
    stems = [path.with_suffix("")]
    if stems[0].suffix == ".ome":
        stems.append(stems[0].with_suffix(""))
    candidates = [stem.with_name(stem.name + suffix) for stem in stems for suffix in (".parquet", ".csv")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_sidecar(path: Path, faults: list[Fault], notes: list[str]) -> CellRecord | None:
    """The record in a CSV or Parquet table; None, with a fault, when it cannot be used."""
    try:
        with refused_as(RecordingReason.BAD_DATASET, f"'{path.name}' cannot be read"):
            if path.stat().st_size > _LARGEST_TABLE_BYTES:
                raise RecordingError(RecordingReason.BAD_DATASET, f"'{path.name}' is larger than 4 GiB")
            t_s, voltage_v, current_a = _columns(path)
    except RecordingError as error:
        faults.append(Fault(error.code, f"{error.detail}; the cell is left out", error.index))
        return None
    unknown = np.full(len(t_s), np.nan)
    return record_from_rows(np.stack([voltage_v, 1e3 * current_a, unknown, t_s]), path.name, faults, notes)


def _columns(path: Path) -> list[np.ndarray]:
    import pyarrow as pa

    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    missing = [name for name in BDF_COLUMNS if name not in table.column_names]
    if missing:
        have = ", ".join(table.column_names[:12])
        raise RecordingError(
            RecordingReason.BAD_DATASET, f"'{path.name}' has no column '{missing[0]}' (it has: {have})"
        )
    columns = [table[name].combine_chunks() for name in BDF_COLUMNS]
    return [_text_as_numbers(c) if pa.types.is_string(c.type) else _as_numbers(c) for c in columns]


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    return file.read(columns=[name for name in file.schema_arrow.names if name in BDF_COLUMNS])


def _csv(path: Path) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False))


def _as_numbers(column: Any) -> np.ndarray:
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), dtype=np.float64)


def _text_as_numbers(column: Any) -> np.ndarray:
    """Text that is no number is NaN, to be named and left out like any other NaN."""
    return np.array([_number(text) for text in column.to_pylist()], dtype=np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
