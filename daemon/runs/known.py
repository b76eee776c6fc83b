"""The runs that the catalogue knows, as they ended even where the disk refused to take their end."""

from __future__ import annotations

from daemon.parts import RunSummary
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader

MAX_UNRECORDED = 100


class KnownRuns:
    """Reads the catalogue; all but `remember` block."""

    def __init__(self, paths: StateLayout) -> None:
        self._paths = paths
        self._unrecorded: dict[str, RunSummary] = {}
        """Runs whose end the store could not take: as they ended, until the next start puts them in order."""

    def remember(self, ended: RunSummary) -> None:
        """The catalogue still has it in progress: nobody may be told so."""
        self._unrecorded[ended.run_id] = ended
        while len(self._unrecorded) > MAX_UNRECORDED:
            del self._unrecorded[next(iter(self._unrecorded))]

    def newest(self, limit: int) -> list[RunSummary]:
        """The newest, first. Raises `StoreError`."""
        with CatalogueReader(self._paths.catalogue) as catalogue:
            return [self._unrecorded.get(run.run_id, run) for run in catalogue.runs(limit)]

    def find(self, run_id: str) -> RunSummary | None:
        """None where there is none. Raises `StoreError`."""
        if run_id in self._unrecorded:
            return self._unrecorded[run_id]
        with CatalogueReader(self._paths.catalogue) as catalogue:
            return catalogue.run(run_id)
