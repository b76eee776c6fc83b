"""Long work in a process of its own: it gives way to the measurement, gives its memory back, and can be killed.

``python -m MODULE ARGUMENT ...`` prints lines of JSON: `share` as it gets on, and last `done`, or `code` and `detail`.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, Queue
from typing import Any

from daemon.errors import InstrumentError, StoreError, StoreReason
from daemon.service.priority import few_threads, give_way

TOLD_EVERY_S = 0.2
KILLED_WITHIN_S = 5.0

Progress = Callable[[float], None]


def run_in_child(
    module: str, arguments: Sequence[str], progress: Progress, *, within_s: float = math.inf
) -> dict[str, Any]:
    """What the child was done with. Blocking; `progress` hears a share every `TOLD_EVERY_S`, also of a child that is
    silent, and what it raises kills the child.

    Raises the child's `StoreError`, `TimeoutError` after `within_s`, and `ChildProcessError` when it ended otherwise.
    """
    until_s = time.monotonic() + within_s
    with _Child([sys.executable, "-m", module, *arguments]) as child:
        last: dict[str, Any] = {}
        share = 0.0
        while (line := child.line()) is not None:
            last = line or last
            share = float(last.get("share", share))
            progress(share)
            if time.monotonic() > until_s:
                raise TimeoutError
    if "done" in last:
        return dict(last["done"])
    reason = next((each for each in StoreReason if each.code == last.get("code")), None)
    if reason is None:
        raise ChildProcessError(f"the process of {module} ended with {child.returncode}; see the log")
    raise StoreError(reason, last.get("detail", ""))


def serve(work: Callable[[Progress], dict[str, Any]], niceness: int, *, idle_disk: bool = False) -> int:
    """The child's side: do `work` at `niceness`, which tells how far it is and returns what it has done. Returns the
    exit code.
    """
    give_way(niceness, idle_disk=idle_disk)
    told_s = -math.inf

    def tell(share: float) -> None:
        nonlocal told_s
        if share >= 1.0 or time.monotonic() - told_s >= TOLD_EVERY_S:
            told_s = time.monotonic()
            _say({"share": round(share, 4)})

    try:
        done = work(tell)
    except InstrumentError as error:
        _say({"code": error.code, "detail": error.detail})
        return 1
    _say({"done": done})
    return 0


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


class _Child:
    """The process and what it says. Leaving never waits for one that cannot be killed: a dead share holds it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=few_threads()
        )
        self._lines: Queue[dict[str, Any] | None] = Queue()
        self._reader = threading.Thread(target=self._read, name="child-lines", daemon=True)

    def __enter__(self) -> _Child:
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            if exception[0] is not None:
                self._process.kill()
            self._process.wait(KILLED_WITHIN_S)
        self._reader.join(KILLED_WITHIN_S)

    @property
    def returncode(self) -> int | None:
        """None while it lives."""
        return self._process.returncode

    def line(self) -> dict[str, Any] | None:
        """The next line, {} when none came for a while, None at the end."""
        try:
            return self._lines.get(timeout=TOLD_EVERY_S)
        except Empty:
            return {}

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with suppress(ValueError, TypeError):  # whatever else a library prints
                    self._lines.put(dict(json.loads(line)))
        self._lines.put(None)
