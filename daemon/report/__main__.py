"""``python -m daemon.report RUN.db OUT.html [ID ...]``: a report in a process of its own.

Drawing needs libraries of a hundred megabytes and holds the interpreter for seconds: the service lets a child do it,
which gives both back (`daemon.service.in_child`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.service.in_child import serve
from daemon.service.priority import FRAMES_FIRST
from daemon.store.reader import RunReader


def main(arguments: list[str]) -> int:
    """The exit code."""
    run, out, *particles = arguments

    def work(tell: Callable[[float], None]) -> dict[str, Any]:
        with RunReader(Path(run)):  # a file that is no run is refused before the libraries are there
            from daemon.report.build import report_run
        report_run(Path(run), Path(out), [int(each) for each in particles] or None, tell)
        return {}

    return serve(work, FRAMES_FIRST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
