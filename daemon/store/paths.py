"""Where things lie in the state directory."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from daemon.store.faults import file_error

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class StateLayout:
    """The state directory: `instrument.db`, `runs/<run-id>.db`, `raw/`, `photometryd.lock`."""

    state_dir: Path

    @property
    def catalogue(self) -> Path:
        """The catalogue's file."""
        return self.state_dir / "instrument.db"

    @property
    def runs_dir(self) -> Path:
        """Folder of run files."""
        return self.state_dir / "runs"

    @property
    def raw_dir(self) -> Path:
        """Folder of raw frames kept on request."""
        return self.state_dir / "raw"

    @property
    def lock(self) -> Path:
        """File whose lock means that the state directory is in use."""
        return self.state_dir / "photometryd.lock"

    def run_path(self, run_id: str) -> Path:
        """Where a run's file lies. `ValueError` for an id that is no plain file name."""
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"'{run_id}' cannot name a run")
        return self.runs_dir / f"{run_id}.db"

    def prepare(self) -> None:
        """Make the folders and prove them writable. Blocks; raises `StoreError` naming the path."""
        for folder in (self.state_dir, self.runs_dir, self.raw_dir):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise file_error(error, folder, "cannot write in") from error

    def free_mb(self) -> int:
        """Free space of the file system, in units of 1e6 bytes. Blocks."""
        try:
            return shutil.disk_usage(self.state_dir).free // 1_000_000
        except OSError as error:
            raise file_error(error, self.state_dir, "cannot read the free space of") from error
