"""What a day of measuring writes to the card: the real writer, synthetic measures, time compressed.

A chunk holds what the writer gathers in 0.8 s of measuring, and each is committed by itself as there; only the waiting
in between is left out. Bytes do not depend on it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.events import Event, EventKind
from daemon.parts import RunSummary
from daemon.store.loop import GATHER_SHARE
from daemon.store.schema import wal_path
from daemon.store.session import CHECKPOINT_WAL_BYTES, OpenFile, used_bytes
from daemon.store.writer import StoreWriter
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.bench.figures import Figure, at_most

LOADS = {"1000 particles, 110 frames/s": (1000, 110.0), "300 particles, 100 frames/s": (300, 100.0)}
DATA_S = 120.0
EVENTS = 50
DAY_S = 86_400.0
COMPRESSED_S = 0.05  # the writer's interval here: long enough for one step to be submitted whole
CARD_GB, CARD_CYCLES = 64, 3000  # a card of TLC flash; industrial ones (pSLC) stand 20,000


def run() -> Iterator[tuple[str, list[Figure]]]:
    """Bytes and syncs a day of each load, told as each ends."""
    for name, load in LOADS.items():
        yield name, _load(*load)


def _load(particles: int, rate_hz: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, _counted() as counts:
        path = Path(folder) / "runs" / "r1.db"
        path.parent.mkdir()
        writer = StoreWriter(Path(folder) / "instrument.db", commit_interval_s=COMPRESSED_S)
        writer.start()
        try:
            writer.create_run(path, {}, _summary(path)).result(60)
            _measure(writer, particles, rate_hz, 10.0)  # until the log has its size
            dense = _spent(counts, lambda: _measure(writer, particles, rate_hz, DATA_S))
            events = _spent(counts, lambda: _tell(writer))
            stored = writer.stats()
            writer.close_run().result(60)
            file_bytes = path.stat().st_size
        finally:
            writer.stop(60)
    a_day = DAY_S / DATA_S
    written_gb = dense["bytes"] * a_day / 1e9
    years = CARD_GB * CARD_CYCLES / (2 * written_gb) / 365
    share = dense["bytes"] / (file_bytes * DATA_S / (DATA_S + 10.0))
    return [
        at_most("the run file grows a day", file_bytes / (DATA_S + 10.0) * DAY_S / 1e9, 100, "GB", 1),
        at_most("handed to the kernel a day", written_gb, 220, "GB", 1),
        at_most("  for each byte that stays", share, 2.5),
        Figure("  bytes a frame and particle", f"{dense['bytes'] / (DATA_S * rate_hz * particles):.1f}", ""),
        at_most("syncs a day", dense["syncs"] * a_day, 250_000, digits=0),
        at_most("commits a chunk", stored.commits and dense["commits"] / (DATA_S / GATHER_SHARE), 1.1),
        Figure(
            "an event by itself", f"{events['bytes'] / EVENTS / 1e3:.0f} kB, {events['syncs'] / EVENTS:.1f} syncs", ""
        ),
        Figure(f"a card of {CARD_GB} GB, {CARD_CYCLES} cycles, lasts", f"{years:.1f} years of measuring", ""),
    ]


def _spent(counts: Counter[str], work: Any) -> Counter[str]:
    """What `work` cost: bytes in write calls of this process, commits, syncs."""
    before, bytes_before = counts.copy(), _written()
    work()
    spent = counts - before
    spent["bytes"] = _written() - bytes_before
    return spent


def _written() -> int:
    """Bytes handed to the kernel by write calls of this process so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _measure(writer: StoreWriter, particles: int, rate_hz: float, seconds: float) -> None:
    frames_a_chunk = round(GATHER_SHARE * rate_hz)
    for first in range(0, round(seconds * rate_hz), frames_a_chunk):
        t_s = first / rate_hz
        chunk = writer.put_chunk(*_frames(first, frames_a_chunk, particles, rate_hz), wait_s=60.0)
        writer.put_cell_samples([_sample(t_s + n / 10) for n in range(8)])
        writer.put_ensemble([{"t_s": t_s, "soc_mean": 0.5, "soc_std": 0.1, "active_fraction": 1.0, "rate_cv": 0.2}])
        chunk.result(60)


def _tell(writer: StoreWriter) -> None:
    for n in range(EVENTS):
        writer.put_events([Event(EventKind.STEP, n / 10, n / 10, n, 0.01, 0.001, 9.0)]).result(60)


def _frames(first: int, count: int, particles: int, rate_hz: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """White noise of the sigma that the columns claim, on slow ramps."""
    rng = np.random.default_rng([first, particles])
    numbers = np.arange(first, first + count)
    frame: dict[str, Any] = {name: rng.normal(0, 0.1, count).astype(kind) for name, kind in CHUNK_FRAME_COLUMNS.items()}
    frame |= {"frame": numbers, "block_id": numbers, "t_s": numbers / rate_hz, "host_t_s": 1e5 + numbers / rate_hz}
    frame["flags"] = np.zeros(count, "u4")
    shape = (count, particles)
    ramps = np.sin(numbers / 5000)[:, None] * np.linspace(0.05, 0.2, particles)
    sigma = np.broadcast_to(np.linspace(1e-3, 4e-3, particles), shape)
    particle: dict[str, Any] = {}
    for name, kind in CHUNK_PARTICLE_COLUMNS.items():
        noise = 2 * sigma if name.startswith("layer_") else sigma if name == "contrast" else 0.003
        particle[name] = (ramps + noise * rng.standard_normal(shape)).astype(kind)
    particle["contrast_sigma"] = (sigma * rng.uniform(0.98, 1.02, shape)).astype("f4")
    particle["flags"] = np.zeros(shape, "u2")
    return frame, particle


def _sample(t_s: float) -> CellRow:
    return CellRow(t_s, 1e5 + t_s, 3.7 + t_s * 1e-6, 0.5, 0, 1, "charge", t_s * 1e-4)


def _summary(path: Path) -> RunSummary:
    return RunSummary("r1", "wear", "running", "2026-01-02T03:04:05+00:00", None, path, {})


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Commits and syncs of the store: one a commit, three a checkpoint (log, database, the log's new header)."""
    counts: Counter[str] = Counter()
    execute, checkpoint = OpenFile.execute, OpenFile.checkpoint_when_large

    def counting_execute(self: OpenFile, steps: Any) -> None:
        execute(self, steps)
        counts.update(commits=1, syncs=1)

    def counting_checkpoint(self: OpenFile) -> None:
        if used_bytes(wal_path(self.path)) > CHECKPOINT_WAL_BYTES:
            counts.update(checkpoints=1, syncs=3)
        checkpoint(self)

    OpenFile.execute, OpenFile.checkpoint_when_large = counting_execute, counting_checkpoint  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        OpenFile.execute, OpenFile.checkpoint_when_large = execute, checkpoint  # type: ignore[method-assign]
