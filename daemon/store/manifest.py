"""What a backup says of itself: which files it is made of, and that they are all there."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import StoreError, StoreReason
from daemon.store.copying import copy_error, sync_folder

NAME = "manifest.json"
FORMAT = 1
MAX_BYTES = 64 << 20  # 100,000 runs
STORED = re.compile(r"(instrument|runs/[A-Za-z0-9][A-Za-z0-9._-]{0,127})\.[0-9a-f]{12}\.db")
PATH = re.compile(r"instrument\.db|runs/[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.db(\.[a-z]+-[0-9]+)?")


@dataclass(frozen=True)
class Entry:
    """One file. `path` is where it belongs under the state directory, `stored_as` where it is under the backup's."""

    path: str
    stored_as: str
    sha256: str
    size_bytes: int
    source_size_bytes: int
    source_mtime_ns: int
    run_id: str = ""
    state: str = ""
    """Of the run when it was copied; one that was not finished then is copied again."""


@dataclass(frozen=True)
class Manifest:
    """The files of one complete backup, the catalogue among them."""

    made_utc: str
    software: str
    files: tuple[Entry, ...]
    damaged: tuple[dict[str, str], ...] = field(default=())
    """Runs that could not be copied: run_id, code, detail."""

    def entry(self, path: str) -> Entry | None:
        """The file that belongs at `path`."""
        return next((each for each in self.files if each.path == path), None)

    def write(self, folder: Path) -> None:
        """The last step of a backup: by one rename, so that there is the old one or this. Raises `StoreError`."""
        partial = folder / f".{NAME}.partial"
        body = json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(folder / NAME)
            sync_folder(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise copy_error(error, folder / NAME) from error


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder; None when there is none. Raises `StoreError` (BACKUP_DAMAGED, BACKUP_FAILED)."""
    try:
        with (folder / NAME).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(StoreReason.BACKUP_FAILED, f"cannot read '{folder / NAME}': {error.strerror}") from error
    try:
        document = json.loads(raw)
        if len(raw) > MAX_BYTES or document.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        files = tuple(_checked(Entry(**each)) for each in document.pop("files"))
        return Manifest(**{**document, "files": files, "damaged": tuple(document.get("damaged", ()))})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(StoreReason.BACKUP_DAMAGED, f"'{folder / NAME}' makes no sense: {error!r}"[:400]) from error


def _checked(entry: Entry) -> Entry:
    """Names that stay inside both folders, numbers that are numbers. Raises `ValueError`, `TypeError`."""
    if not PATH.fullmatch(entry.path) or not STORED.fullmatch(entry.stored_as):
        raise ValueError(f"'{entry.path[:100]}' is no file of a backup")
    numbers: tuple[Any, ...] = (entry.size_bytes, entry.source_size_bytes, entry.source_mtime_ns)
    if not all(isinstance(number, int) for number in numbers) or not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ValueError(f"'{entry.path}' has no size or check sum")
    return entry
