"""``python -m daemon.report RUN.db OUT.html [ID ...]``: a report in a process of its own, progress as lines of JSON.

Drawing needs libraries of a hundred megabytes and holds the interpreter for seconds: the service lets a child do it,
which gives both back. When it fails, the last line says how and the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from daemon.errors import InstrumentError
from daemon.service.priority import FRAMES_FIRST, give_way
from daemon.store.reader import RunReader


def main(arguments: list[str]) -> int:
    """The exit code."""
    give_way(FRAMES_FIRST)
    run, out, *particles = arguments

    def tell(share: float) -> None:
        print(json.dumps({"share": round(share, 4)}), flush=True)

    try:
        with RunReader(Path(run)):  # a file that is no run is refused before the libraries are there
            from daemon.report.build import report_run
        report_run(Path(run), Path(out), [int(each) for each in particles] or None, tell)
    except InstrumentError as error:
        print(json.dumps({"code": error.code, "detail": error.detail}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
