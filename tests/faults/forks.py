"""Writers' processes, forked from one that has everything imported: a trial takes tens of milliseconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.promises import Said

HANG_S = 60.0  # a run takes a tenth of a second; a loaded machine is a hundred times slower


class Forks:
    """The process that forks; with the library `shim` preloaded when there is one."""

    def __init__(self, shim: Path | None = None) -> None:
        own = {} if shim is None else {"LD_PRELOAD": str(shim), "REFUSE_SHIM": str(shim)}
        command = [sys.executable, "-m", "tests.faults.subject"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | own)

    def run(self, folder: Path, fault: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Said:
        """A whole run in the new folder `folder`. Fails when the process fails or hangs."""
        pid = self._order(folder, fault, for_ever=False)
        hung = threading.Timer(HANG_S, os.kill, (pid, signal.SIGKILL))
        hung.start()
        status = int(self._answer())
        hung.cancel()
        hung.join()
        errors = Path(f"{folder}.errors").read_text()
        assert status == 0 and "Traceback" not in errors, f"exit {status}: {errors[-3000:]}"
        return Said.of(Path(f"{folder}.said").read_text().splitlines())

    def kill(self, folder: Path, after_s: float, *, from_start: bool = False) -> Said:
        """A run that is killed `after_s` after it was begun, or after its process was."""
        pid = self._order(folder, (0, 0, 0, 0), for_ever=True)
        said, give_up_s = Path(f"{folder}.said"), time.monotonic() + HANG_S
        while not from_start and not (said.exists() and said.stat().st_size) and time.monotonic() < give_up_s:
            time.sleep(0.001)
        threading.Event().wait(after_s)
        os.kill(pid, signal.SIGKILL)
        assert int(self._answer()) == -signal.SIGKILL, Path(f"{folder}.errors").read_text()[-3000:]
        return Said.of(Path(f"{folder}.said").read_text().splitlines())

    def _order(self, folder: Path, fault: tuple[int, int, int, int], *, for_ever: bool) -> int:
        folder.mkdir()
        Path(f"{folder}.said").write_bytes(b"")  # one that is killed before it began said nothing
        assert self._process.stdin is not None
        order: dict[str, Any] = {"folder": str(folder), "fault": fault, "for_ever": for_ever}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(HANG_S)
