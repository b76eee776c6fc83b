"""An export as one zip, made by a process of its own: pyarrow takes 50 MB, and long runs take minutes.

``python -m daemon.store.export_child RUN.db OUT.zip OPTIONS``, with what `export_run` is told besides as JSON; see
`daemon.service.in_child`.
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.service.in_child import run_in_child, serve
from daemon.service.priority import FRAMES_FIRST
from daemon.store.faults import file_error

LEFT_OUT = "left-out.json"
"""In an archive that lacks something."""

TABLES_SHARE = 0.9  # the rest of the time goes into the archive


def export_in_child(run: Path, out: Path, options: dict[str, Any], progress: Callable[[float], None]) -> dict[str, Any]:
    """Write the tables of `run` into the zip `out`, by way of a directory beside it.

    `options` are further arguments of `export_run`. Returns what the archive lacks because it is damaged:
    `corrupt_chunks` and `damaged_rows` (by table) of `Exported`; then it also holds them, as `LEFT_OUT`. Raises
    `StoreError` as `export_run` does, else as `run_in_child`.
    """
    return run_in_child("daemon.store.export_child", [str(run), str(out), json.dumps(options)], progress)


def main(arguments: list[str]) -> int:
    """The child."""
    run, out, options = arguments

    def work(tell: Callable[[float], None]) -> dict[str, Any]:
        from daemon.store.export import export_run

        tables = Path(out).parent / "tables"
        written = export_run(
            Path(run), tables, **json.loads(options), progress=lambda share: tell(TABLES_SHARE * share)
        )
        left_out = {"corrupt_chunks": written.corrupt_chunks, "damaged_rows": written.damaged_rows}
        if any(left_out.values()):
            _write(tables / LEFT_OUT, json.dumps({"run": Path(run).name} | left_out, indent=2) + "\n")
        zip_directory(tables, Path(out), lambda share: tell(TABLES_SHARE + (1 - TABLES_SHARE) * share))
        return left_out

    return serve(work, FRAMES_FIRST)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise file_error(error, path, "cannot write") from error


def zip_directory(directory: Path, out: Path, progress: Callable[[float], None]) -> None:
    """Move the files of a directory into a zip, one after the other, each gone once it is in. Raises `StoreError`."""
    files = sorted(found for found in directory.rglob("*") if found.is_file())
    try:
        with zipfile.ZipFile(out, "w") as archive:
            for done, found in enumerate(files):
                progress(done / len(files))
                squeeze = zipfile.ZIP_DEFLATED if found.suffix == ".csv" else zipfile.ZIP_STORED
                archive.write(found, found.relative_to(directory), squeeze, compresslevel=1)
                found.unlink()
        shutil.rmtree(directory)
    except OSError as error:
        raise file_error(error, out, "cannot write") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
