"""A run file as Parquet, CSV or Arrow files: exactly the tables and columns of `daemon.tables.EXPORT_TABLES`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.store.export_tables import Columns, Selection, source
from daemon.store.faults import file_error
from daemon.store.reader import RunReader
from daemon.store.rows import to_json
from daemon.tables import EXPORT_TABLES, INT_COLUMNS, JSON_COLUMNS, SINGLE_COLUMNS, TEXT_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

ExportFormat = Literal["parquet", "csv", "arrow"]

ROWS_PER_GROUP = 250_000  # 15 MB of traces in memory, and a row group that Parquet readers like

logger = logging.getLogger(__name__)


class Exported(dict[str, Path]):
    """Table name -> file, and what these lack because it is damaged."""

    def __init__(self, files: dict[str, Path], corrupt_chunks: int = 0, damaged_rows: dict[str, int] | None = None):
        super().__init__(files)
        self.corrupt_chunks = corrupt_chunks
        """Chunks of frames that were left out as a whole."""
        self.damaged_rows = damaged_rows or {}
        """Rows that were left out or are missing, by table; only tables that lack some."""


def export_run(
    run_path: Path,
    out_dir: Path,
    *,
    format: ExportFormat = "parquet",
    particles: Collection[int] | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    tables: Collection[str] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Exported:
    """Write the named tables (all by default), one file each, into `out_dir`.

    A file appears whole or not at all, replacing one of the same name. `particles` are ids; `from_s` and `to_s` are
    inclusive. What is not known is NaN in Parquet and Arrow floats, null in other columns, empty in CSV. Damaged chunks
    and rows are left out, counted and warned of. Memory does not grow with the run. `progress` is called with 0 to 1.
    Blocks; raises `StoreError`.
    """
    names = _checked_tables(tables)
    selection = Selection(None if particles is None else frozenset(particles), from_s, to_s)
    with RunReader(run_path) as reader:
        _check_particles(reader, selection)
        _make_folder(out_dir)
        written = {}
        for done, name in enumerate(names):
            report = None if progress is None else _share(progress, done, len(names))
            written[name] = _write_table(reader, name, selection, out_dir / f"{name}.{format}", report)
        if reader.corrupt_chunks:
            logger.warning("%d damaged chunks of %s were left out", reader.corrupt_chunks, run_path)
        if reader.damaged_rows:
            logger.warning("damaged rows of %s were left out: %s", run_path, reader.damage)
        damaged_rows = {table: count for table, count in reader.damage.items() if count}
        return Exported(written, reader.corrupt_chunks, damaged_rows)


def _checked_tables(tables: Collection[str] | None) -> list[str]:
    unknown = sorted(set(tables or ()) - set(EXPORT_TABLES))
    if unknown:
        raise ValueError(f"there is no table '{unknown[0]}' (known: {', '.join(EXPORT_TABLES)})")
    return [name for name in EXPORT_TABLES if tables is None or name in tables]


def _check_particles(reader: RunReader, selection: Selection) -> None:
    missing = (selection.particles or frozenset()) - {row["particle_id"] for row in reader.particles()}
    if missing:
        raise StoreError(StoreReason.NO_PARTICLE, f"{reader.path} has no particle {min(missing)}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, folder, "cannot make") from error


def _share(progress: Callable[[float], None], done: int, of: int) -> Callable[[float], None]:
    return lambda part: progress((done + part) / of)


def _write_table(
    reader: RunReader, name: str, selection: Selection, path: Path, progress: Callable[[float], None] | None
) -> Path:
    """Through a temporary name, made durable before it gets its own."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    schema = _schema(name).with_metadata({"photometry_run": to_json(reader.metadata())})
    try:
        with partial.open("wb") as file:
            with _sink(file, path.suffix, schema) as write:
                pieces = source(reader, name, selection, progress)
                for table in _grouped(_arrow_table(columns, schema, path.suffix) for columns in pieces):
                    write(table)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise file_error(error, path, "cannot write") from error
    finally:
        partial.unlink(missing_ok=True)
    if progress is not None:
        progress(1.0)
    return path


def _schema(name: str) -> pa.Schema:
    import pyarrow as pa

    def dtype(column: str) -> pa.DataType:
        if column in INT_COLUMNS:
            return pa.int64()
        if column in TEXT_COLUMNS | JSON_COLUMNS:
            return pa.string()
        return pa.float32() if column in SINGLE_COLUMNS else pa.float64()

    return pa.schema([(column, dtype(column)) for column in EXPORT_TABLES[name]])


@contextmanager
def _sink(file: BinaryIO, suffix: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends a table to `file`; the file is complete when the block ends."""
    if suffix == ".csv":
        import pyarrow.csv

        # our own header line: pyarrow puts quotes around every name
        file.write((",".join(schema.names) + "\n").encode())
        with pyarrow.csv.CSVWriter(
            file, schema, write_options=pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        ) as csv:
            yield csv.write_table
    elif suffix == ".arrow":
        import pyarrow.ipc

        with pyarrow.ipc.new_file(file, schema) as arrow:
            yield arrow.write_table
    else:
        import pyarrow.parquet

        repeated = [column for column in schema.names if column in INT_COLUMNS | TEXT_COLUMNS | {"t_s"}]
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated) as parquet:
            yield parquet.write_table


def _arrow_table(columns: Columns, schema: pa.Schema, suffix: str) -> pa.Table:
    import pyarrow as pa

    as_null = suffix == ".csv"  # an empty field rather than the word
    arrays = []
    for field in schema:
        values: Any = columns[field.name]
        if pa.types.is_floating(field.type):
            values = np.asarray(values, dtype=field.type.to_pandas_dtype())  # None becomes NaN
        arrays.append(pa.array(values, type=field.type, from_pandas=as_null))
    return pa.Table.from_arrays(arrays, schema=schema)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer, larger tables."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(len(each) for each in waiting) >= ROWS_PER_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
