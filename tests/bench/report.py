"""`photometryctl report` of a long run: a thousand particles, a hundred thousand frames."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from daemon.report.build import READING_SHARE, report_run
from tests.bench.figures import Figure, at_most
from tests.daemon.report.synthetic_run import SyntheticRun

LONG = SyntheticRun(particles=1000, frames=100_000, rate_hz=10.0, cycles=10, events=5000)


def run() -> list[Figure]:
    """Processor time and size of the report, and what share of the time reading the run takes."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = LONG.write(Path(folder) / "long.db"), Path(folder) / "long.html"
        marks: list[tuple[float, float]] = []
        began_s = time.process_time()
        report_run(path, out, progress=lambda share: marks.append((share, time.process_time() - began_s)))
        spent_s = time.process_time() - began_s
        reading_s = max((at for share, at in marks if share <= READING_SHARE), default=spent_s)
        name = f"report of {LONG.particles} particles, {LONG.frames} frames: processor time"
        return [
            at_most(name, spent_s, 60, "s", 1),
            Figure("  of that, reading the run", f"{reading_s:.1f} s", ""),
            at_most("  the HTML file", out.stat().st_size / 1e6, 15, "MB", 1),
            Figure("  the run file", f"{path.stat().st_size / 1e6:.0f} MB", ""),
        ]
