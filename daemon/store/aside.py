"""Damaged files are kept whole under another name, so that nothing writes to them and nobody takes them for good."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.store.faults import translated
from daemon.store.schema import journal_path, wal_path

ASIDE = re.compile(r"(?P<run_id>.+?)\.db(\.damaged-[0-9]+)+")


def run_id_of_aside(path: Path) -> str | None:
    """The run whose damaged file was set aside as `path`, by its name; None for any other file."""
    found = ASIDE.fullmatch(path.name)
    return found["run_id"] if found else None


def set_aside(path: Path, word: str = "damaged") -> Path:
    """Rename a database that nobody has open, with its log, to the next free `<name>.<word>-<n>`; returns the new path.

    The log goes first: a log without its database is harmless, a database without its log looks older than it is.
    Raises `StoreError`.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists() or wal_path(aside).exists():
        number += 1
    with translated(path, "cannot set aside"):
        for beside in (wal_path, journal_path):
            if beside(path).exists():
                beside(path).rename(beside(aside))
        Path(f"{path}-shm").unlink(missing_ok=True)
        if path.exists():
            path.rename(aside)
    return aside
