"""The full check of every file in idle time, each once after it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from daemon.errors import StoreError, StoreReason
from daemon.parts import FINISHED
from daemon.store.aside import run_id_of_aside
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader
from daemon.store.retention import Interrupted, Stop

CHECK_PERIOD_S = 3600.0  # new files are looked for this often; one that did not change is checked once a start


class Outcome(Protocol):
    """What a check came to."""

    @property
    def findings(self) -> Sequence[str]:
        """Sentences, empty when nothing is wrong."""

    @property
    def finished(self) -> bool:
        """False when it was told to stop."""


class FileChecks:
    """The job. `check(path, stop)` blocks and looks at `stop` often; `tell(error)` hears of each damaged file.

    A file that was being checked when a run began is the first of the next time. Blocking, one thread at a time.
    """

    def __init__(
        self, layout: StateLayout, check: Callable[[Path, Stop], Outcome], tell: Callable[[StoreError], None]
    ) -> None:
        self._layout = layout
        self._check = check
        self._tell = tell
        self._checked: dict[Path, tuple[int, int]] = {}

    def run(self, stop: Stop) -> str:
        """Check what has not been checked as it is now; what was done. Raises `Interrupted`, `StoreError`."""
        checked = damaged = 0
        for path in self._files():
            try:
                state = _state(path)
                if self._checked.get(path) == state:
                    continue
                outcome = self._check(path, stop)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except StoreError as error:  # it cannot be read at all; the others can
                found: StoreError | None = error
            else:
                if not outcome.finished or stop():
                    raise Interrupted
                found = _damage(path, outcome)
            self._checked[path] = state
            checked += 1
            if found is not None:
                damaged += 1
                self._tell(found)
        if damaged:
            return f"{damaged} of {checked} files are damaged or cannot be read"
        return f"checked {checked} files" if checked else "nothing to do"

    def _files(self) -> Iterator[Path]:
        """The catalogue, then finished runs, newest first; what was set aside is known to be damaged."""
        yield self._layout.catalogue
        with CatalogueReader(self._layout.catalogue) as catalogue:
            runs = catalogue.runs(limit=-1)
        paths = [run.path for run in runs if run.state in FINISHED and run_id_of_aside(run.path) is None]
        yield from (path for path in paths if path.exists())


def _damage(path: Path, outcome: Outcome) -> StoreError | None:
    if not outcome.findings:
        return None
    more = f" (and {len(outcome.findings) - 1} more)" if len(outcome.findings) > 1 else ""
    return StoreError(StoreReason.CORRUPT, f"{path}: {outcome.findings[0]}{more}")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
