"""The rest of the daemon as the API sees it: small in-memory stand-ins for the protocols, and a real run file."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from daemon.api.parts import ApiParts
from daemon.cell.samples import CellRow
from daemon.config import ApiSettings, Settings, StoreSettings, Token
from daemon.errors import CellReason, InstrumentError, PotentiostatError, RunError, RunReason
from daemon.events import Event, EventFeed, EventKind
from daemon.mask_edits import EDITS, MaskChange, MaskVersion
from daemon.parts import CellState, PartStatus, Preview, RunSummary
from daemon.recipe import ExperimentSpec, Recipe
from daemon.store.backup import BackupReport
from daemon.store.writer import StoreWriter
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS, HALVES
from tests.reads_here import ReadsHere

READ, OPERATE, ADMIN = "read-token-0123456789", "operate-token-0123456789", "admin-token-0123456789"
TOKENS = [
    Token(name="viewer", secret=READ, scopes=["read"]),
    Token(name="operator", secret=OPERATE, scopes=["operate"]),
    Token(name="engineer", secret=ADMIN, scopes=["admin"]),
]


@dataclass
class FakeRuns:
    """Runs that exist in memory; `held` keeps a started one in `preparing`."""

    runs: dict[str, RunSummary] = field(default_factory=dict)
    held: asyncio.Event | None = None
    stopped: list[tuple[str, str]] = field(default_factory=list)
    edited: list[tuple[str, MaskChange, str]] = field(default_factory=list)
    mask_problem: InstrumentError | None = None
    started: int = 0
    labels: np.ndarray | None = None
    states: np.ndarray | None = None
    soc: np.ndarray | None = None

    async def start(self, recipe: Recipe) -> RunSummary:
        if self.current() is not None:
            raise RunError(RunReason.BUSY, "run 'r1' is in progress")
        self.started += 1
        run_id = f"run-{self.started}"
        self.runs[run_id] = summary(run_id, Path("/nowhere") / f"{run_id}.db", "preparing", recipe)
        return self.runs[run_id]

    async def stop(self, run_id: str, reason: str = "") -> RunSummary:
        self.stopped.append((run_id, reason))
        self.runs[run_id] = replace(await self.get(run_id), state="done")
        return self.runs[run_id]

    async def edit_masks(self, run_id: str, change: MaskChange, actor: str) -> MaskVersion:
        if self.mask_problem is not None:
            raise self.mask_problem
        if self.held is not None:
            await self.held.wait()
        edits = EDITS.dump_python(change.edits, mode="json")
        self.edited.append((run_id, change, actor))
        return MaskVersion(2, 40, "2026-01-02T03:04:05+00:00", actor, edits, 3)

    async def wait_running(self, run_id: str) -> RunSummary:
        if self.held is not None:
            await self.held.wait()
        self.runs[run_id] = replace(self.runs[run_id], state="running")
        return self.runs[run_id]

    async def list(self, limit: int = 100) -> list[RunSummary]:
        return list(reversed(self.runs.values()))[:limit]

    async def get(self, run_id: str) -> RunSummary:
        if run_id not in self.runs:
            raise RunError(RunReason.NOT_FOUND, f"there is no run '{run_id}'")
        return self.runs[run_id]

    def current(self) -> RunSummary | None:
        return next((run for run in self.runs.values() if run.state in ("preparing", "running")), None)

    def live_states(self) -> np.ndarray | None:
        return self.states

    def live_soc(self) -> np.ndarray | None:
        return self.soc

    def live_labels(self) -> np.ndarray | None:
        return self.labels

    def live_summary(self) -> dict[str, Any]:
        return {"particles_active": 3, "soc_mean": float("nan")}


def summary(run_id: str, path: Path, state: Any = "running", recipe: Recipe | None = None) -> RunSummary:
    return RunSummary(
        run_id, "a run", state, "2026-01-02T03:04:05+00:00", None, path, (recipe or Recipe()).model_dump(mode="json")
    )


@dataclass
class FakeEngine:
    """Shows one frame, takes every setting."""

    image: np.ndarray | None = None
    drift: tuple[float, float] = (0.0, 0.0)
    settings: list[dict[str, Any]] = field(default_factory=list)
    held: asyncio.Event | None = None

    def status(self) -> PartStatus:
        return PartStatus("engine", "ready", values={"frames": 10})

    async def preview(self) -> Preview | None:
        return None if self.image is None else Preview(self.image, 12, 7, 1.5, *self.drift)

    async def configure_camera(self, settings: dict[str, Any]) -> None:
        if self.held is not None:
            await self.held.wait()
        self.settings.append(settings)

    async def calibrate(self, kind: Literal["dark", "flat"], frames: int) -> dict[str, float]:
        if self.held is not None:
            await self.held.wait()
        return {"mean_dn": 12.5, "frames": float(frames)}


@dataclass
class FakeCell:
    """A cell that obeys at once."""

    now: CellState = "idle"
    calls: list[str] = field(default_factory=list)
    held: asyncio.Event | None = None

    def status(self) -> PartStatus:
        return PartStatus("cell", "ready", values={"voltage_v": 3.7, "current_ma": float("nan")})

    @property
    def state(self) -> CellState:
        return self.now

    async def start_experiment(self, spec: ExperimentSpec) -> None:
        if self.held is not None:
            await self.held.wait()
        self.calls.append("start")
        self.now = "running"

    async def pause(self) -> None:
        if self.now != "running":
            raise PotentiostatError(CellReason.REFUSED, "there is no experiment to pause")
        self.now = "paused"

    async def resume(self) -> None:
        self.now = "running"

    async def off(self, reason: str = "operator") -> None:
        self.calls.append(f"off: {reason}")
        self.now = "off"


@dataclass
class FakeKeeping:
    """Remembers what it was asked; `held` keeps a backup from ending, `problem` is what everything comes to."""

    runs: FakeRuns
    exported: list[tuple[list[str], str]] = field(default_factory=list)
    deleted: list[tuple[str, str, bool]] = field(default_factory=list)
    backups: list[Path] = field(default_factory=list)
    held: threading.Event | None = None
    problem: InstrumentError | None = None

    def delete(self, run_id: str, actor: str, *, unexported: bool = False) -> RunSummary:
        if self.problem is not None:
            raise self.problem
        self.deleted.append((run_id, actor, unexported))
        self.runs.runs[run_id] = replace(self.runs.runs[run_id], state="deleted", deleted_utc="2026-01-02T03:04:05Z")
        return self.runs.runs[run_id]

    def mark_exported(self, run_ids: Sequence[str], where: str) -> None:
        self.exported.append((list(run_ids), where))

    def back_up(self, target: Path, progress: Callable[[float], None]) -> BackupReport:
        self.backups.append(target)
        while self.held is not None and not self.held.wait(0.01):
            progress(0.5)
        if self.problem is not None:
            raise self.problem
        damaged = [{"run_id": "r0", "code": "store.corrupt", "detail": "it is damaged"}]
        return BackupReport(str(target), copied=2, whole_runs=["r1"], damaged=damaged)


@dataclass
class Fakes:
    """Everything behind one `ApiParts`, so that tests can look and prod."""

    settings: Settings
    runs: FakeRuns = field(default_factory=FakeRuns)
    engine: FakeEngine = field(default_factory=FakeEngine)
    cell: FakeCell = field(default_factory=FakeCell)
    older: list[Event] = field(default_factory=list)
    blocking: list[PartStatus] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=lambda: {"api.port": "file", "cell.limits.max_voltage_v": "env"})
    audited: list[tuple[str, str, str]] = field(default_factory=list)
    counted: list[tuple[str, int]] = field(default_factory=list)
    unauthorised: Counter[str] = field(default_factory=Counter)
    faulted: list[tuple[str, str, str]] = field(default_factory=list)
    bundles: int = 0
    feed: EventFeed = field(init=False)
    keeping: FakeKeeping = field(init=False)

    def __post_init__(self) -> None:
        self.keeping = FakeKeeping(self.runs)
        self.feed = EventFeed(self._load_older)

    def _load_older(self, after: int, limit: int) -> list[Event]:
        return [event for event in self.older if event.seq > after][:limit]

    def parts(self) -> ApiParts:
        return ApiParts(
            settings=self.settings,
            settings_origins=self.origins,
            version={"version": "1.2.3", "python": "3.11"},
            runs=self.runs,
            engine=self.engine,
            cell=self.cell,
            feed=self.feed,
            status=lambda: {"parts": [self.engine.status(), self.cell.status(), *self.blocking], "uptime_s": 5.0},
            ready=lambda: self.blocking,
            metrics_text=lambda: b"# HELP up It is.\n# TYPE up gauge\nup 1.0\n",
            bundle=self._bundle,
            logs=self._logs,
            audit=lambda actor, action, detail: self.audited.append((actor, action, detail)),
            selftest=self._selftest,
            keeping=self.keeping,
            reads=ReadsHere(),
            count_unauthorised=lambda kind: self.unauthorised.update([kind]),
            note_fault=lambda code, detail, remedy: self.faulted.append((code, detail, remedy)),
            count_request=lambda method, status, duration_s: self.counted.append((method, status)),
        )

    def _bundle(self, path: Path) -> None:
        self.bundles += 1
        path.write_bytes(b"\x1f\x8bbundle")

    def _logs(self, *, since_utc: Any, level: str, follow: bool) -> Any:
        entry = {"utc": "2026-01-02T03:04:05+00:00", "level": level, "message": f"since {since_utc}"}
        return self._follow(entry) if follow else [entry]

    async def _follow(self, entry: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        yield [entry]
        while True:
            await asyncio.sleep(0.02)
            yield []

    async def _selftest(self) -> dict[str, Any]:
        return {"passed": True, "noise": float("nan")}


def fakes(tmp_path: Path, **api: Any) -> Fakes:
    """With the API on a free port and the state in `tmp_path`."""
    return Fakes(
        Settings(api=ApiSettings(**{"port": 0, **api}), store=StoreSettings(state_dir=tmp_path, min_free_mb=0))
    )


def event(seq: int, detail: str = "", kind: EventKind = EventKind.STEP) -> Event:
    return Event(
        kind, t_s=seq / 10, detected_t_s=seq / 10 + 0.05, particle_id=seq % 3, detail=detail, seq=seq, run_id="r1"
    )


FRAMES, PARTICLES, RATE_HZ = 600, 4, 100.0


def contrasts(frames: int = FRAMES) -> np.ndarray:
    """(N, P): slow ramps with a spike in each particle; particle 3 is NaN for a while."""
    n = np.arange(frames)[:, None]
    values = 0.1 * np.sin(n / 50 + np.arange(PARTICLES)[None, :])
    for column in range(PARTICLES):
        values[(97 * (column + 1)) % frames, column] = 0.5 + column
    values[100:250, 3] = np.nan
    return values.astype(np.float32)


def make_run(path: Path, frames: int = FRAMES) -> RunSummary:
    """A real run file with a little of everything. Blocking."""
    writer = StoreWriter(None, commit_interval_s=0.01)
    writer.start()
    try:
        writer.create_run(path, {"run_id": path.stem})
        writer.put_particles([_particle(index) for index in range(PARTICLES)])
        writer.put_masks(MaskVersion(1, 0, "2026-01-02T03:04:05.000+00:00", particles=3), mask_labels(), mask_labels())
        for low in range(0, frames, 150):
            writer.put_chunk(*_chunk(slice(low, min(low + 150, frames)), frames), wait_s=5.0)
        writer.put_calibrations([{
            "particle_id": 11, "kind": "monotone", "contrast_knots": [-0.2, 0.2], "soc_knots": [0.0, 1.0],
            "soc_sigma": 0.01, "layer_sigma_ratio": [2.0, 2.0, 2.0, 2.0],
        }])  # fmt: skip
        told = (event(seq, "the last" if seq == 25 else "") for seq in range(1, 26))
        writer.put_events([replace(each, seq=0, run_id="") for each in told])
        writer.put_cycles([_cycle(10), _cycle(11)])
        put_row_tables(writer)
        writer.put_ensemble([
            {"t_s": float(t), "soc_mean": t / 50, "soc_std": float("nan"), "active_fraction": 1.0, "rate_cv": 0.1}
            for t in range(50)
        ])  # fmt: skip
        writer.put_cell_samples(
            [CellRow(float(t), 1.0, 3.5 + t / 1000, 2.0, -1 if t == 0 else 0, 0, "charge", 0.1) for t in range(50)]
        )
        writer.close_run().result(5)
    finally:
        writer.stop()
    return summary(path.stem, path)


def put_row_tables(writer: StoreWriter) -> None:
    """Three cycles of two particles in `health`, `rates` and `fronts`, some values unknown."""
    halves = [(particle_id, cycle, half) for cycle in range(3) for half in HALVES for particle_id in (10, 11)]
    writer.put_health([_health(particle_id, cycle) for particle_id, cycle, half in halves if half == "charge"])
    writer.put_rates([
        {"particle_id": particle_id, "cycle": cycle, "half": half, "step": 2 * cycle, "t_s": 0.4 * cycle + 0.1,
         "voltage_v": 3.9, "overpotential_v": float("nan"), "rate_per_h": 2.5, "rate_sigma_per_h": 0.1}
        for particle_id, cycle, half in halves
    ])  # fmt: skip
    told = {"t_s": [0.0, 1.0], "front_px": [1.0, 5.0], "front_sigma_px": [0.1, 0.1], "fraction": [0.1, 0.9]}
    writer.put_fronts([
        {"particle_id": particle_id, "cycle": cycle, "half": half, "onset_t_s": 0.4 * cycle}
        | ({"mode": "core", "begin": "edge", "speed_px_per_s": 4.0} | told if particle_id == 10
           else {"mode": "none", "reason": "too_noisy"})
        for particle_id, cycle, half in halves
    ])  # fmt: skip


def _health(particle_id: int, cycle: int) -> dict[str, Any]:
    return {
        "particle_id": particle_id, "cycle": cycle, "t_s": 0.4 * cycle, "retention": 0.98, "loss": 0.02,
        "risk_score": 1.5, "risk": 0.1, "lead_cycles": float("nan"), "warned": 0, "failed": int(particle_id == 10),
    }  # fmt: skip


def mask_labels() -> np.ndarray:
    """(H, W) int32: three squares of four particles; the one at index 2 is gone."""
    labels = np.zeros((20, 40), np.int32)
    for index in (0, 1, 3):
        labels[5:9, 2 + 8 * index : 6 + 8 * index] = index + 1
    return labels


def _particle(index: int) -> dict[str, Any]:
    return {
        "particle_id": 10 + index, "particle_index": index, "parent_id": None, "y_px": 5.0, "x_px": 6.0,
        "area_px": 80.0, "equivalent_diameter_um": float("nan"), "aspect_ratio": 1.2, "solidity": 0.9,
        "neighbours_within_10um": 2, "brightness_e": 1e4, "front_mode": "none",
        "calibration": "monotone" if index == 1 else "none",
        "state": "active",
    }  # fmt: skip


def _cycle(particle_id: int) -> dict[str, Any]:
    return {
        "particle_id": particle_id, "cycle": 0, "half": "charge", "swing": 0.3, "soc_start": 0.0, "soc_end": 1.0,
        "onset_t_s": 1.0, "duration_s": 2.0, "rate_per_h": 3.0, "lag_s": float("nan"), "hysteresis_v": 0.0,
        "retention": 1.0,
    }  # fmt: skip


def _chunk(span: slice, frames: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    n = np.arange(frames)[span]
    frame_columns = {name: np.zeros(len(n), dtype) for name, dtype in CHUNK_FRAME_COLUMNS.items()}
    frame_columns |= {"frame": n, "block_id": n, "t_s": n / RATE_HZ, "host_t_s": n / RATE_HZ + 100.0}
    values = contrasts(frames)[span]
    shape = values.shape
    particle_columns = {name: np.zeros(shape, dtype) for name, dtype in CHUNK_PARTICLE_COLUMNS.items()}
    particle_columns |= {"contrast": values, "contrast_sigma": np.full(shape, 1e-4, np.float32)}
    particle_columns |= {name: values for name in particle_columns if name.startswith("layer_")}
    return frame_columns, particle_columns
