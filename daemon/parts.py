"""What the parts of the daemon show each other: narrow protocols, so that each can be read and tested alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from daemon.mask_edits import MaskChange, MaskVersion
from daemon.recipe import ExperimentSpec, Recipe

PartState = Literal["starting", "ready", "degraded", "failed", "stopped"]
RunState = Literal["preparing", "running", "stopping", "done", "failed", "interrupted", "deleted"]
FINISHED = ("done", "failed", "interrupted")
"""States of runs whose file does not change any more."""
CellState = Literal["off", "idle", "running", "paused", "tripped", "lost"]
"""off: circuit open; idle: circuit open and an experiment ended well; tripped: a limit or a doubt opened it."""


@dataclass(frozen=True)
class PartStatus:
    """One part's line in the status: its state and, unless ready, why and what to do."""

    name: str
    state: PartState
    reason: str = ""
    """Stable code, empty when ready."""
    detail: str = ""
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    """Numbers worth seeing beside the state; units in the names."""


class Part(Protocol):
    """Anything that appears in the status."""

    def status(self) -> PartStatus:
        """The part's line; cheap, never blocks, never raises."""


@dataclass(frozen=True)
class RunSummary:
    """One run as the catalogue knows it."""

    run_id: str
    name: str
    state: RunState
    started_utc: str
    """ISO 8601 with offset, of t_s = 0."""
    ended_utc: str | None
    path: Path
    recipe: dict[str, Any]
    frames: int = 0
    particles: int = 0
    reason: str = ""
    """Why it failed or was stopped, a code; empty when it ended as asked."""
    detail: str = ""
    exported_utc: str | None = None
    """When a backup or a whole export last took it elsewhere."""
    deleting_utc: str | None = None
    """When its deletion began."""
    deleted_utc: str | None = None
    """When its file was removed; this summary is what remains."""


class Runs(Protocol):
    """Starting, stopping and finding runs."""

    async def start(self, recipe: Recipe) -> RunSummary:
        """Start a run; returns once it is in the catalogue. Raises `RunError`, `ExperimentError`."""

    async def stop(self, run_id: str, reason: str = "") -> RunSummary:
        """Stop a run, cell off first, everything measured so far stored. Raises `RunError`."""

    async def edit_masks(self, run_id: str, change: MaskChange, actor: str) -> MaskVersion:
        """Edit the masks of the run in progress, all edits or none; returns once they are in effect and on disk.

        Raises `MaskError`, `RunError`, `EngineError`.
        """

    async def wait_running(self, run_id: str) -> RunSummary:
        """Wait until the run measures and its experiment has begun. Raises what kept it from doing so."""

    async def list(self, limit: int = 100) -> list[RunSummary]:
        """Newest first."""

    async def get(self, run_id: str) -> RunSummary:
        """Raises `RunError` (NOT_FOUND)."""

    def current(self) -> RunSummary | None:
        """The run in progress, if any."""

    def live_states(self) -> np.ndarray | None:
        """(P,) array of particle states' indices into `daemon.tables.PARTICLE_STATES`; None without a run."""

    def live_soc(self) -> np.ndarray | None:
        """(P,) float32 latest state of charge, NaN where unknown; None without a run."""

    def live_labels(self) -> np.ndarray | None:
        """(H, W) int32 label image of the masks; None without a run."""

    def live_summary(self) -> dict[str, Any]:
        """Science for the status: counts of states, ensemble SoC, all by name with units; {} without a run."""


@dataclass(frozen=True)
class Preview:
    """The newest frame as the engine saw it."""

    image: np.ndarray
    """(H, W) uint16, DN."""
    bit_depth: int
    frame: int
    host_t_s: float
    drift_y_px: float
    drift_x_px: float


class EngineControl(Protocol):
    """The camera engine as seen from the daemon."""

    def status(self) -> PartStatus:
        """The engine's line."""

    async def preview(self) -> Preview | None:
        """The newest frame, at most about a tenth of a second old; None without frames."""

    async def configure_camera(self, settings: dict[str, Any]) -> None:
        """Change `exposure_us` or `frame_rate_hz`. Raises `CameraError` or `EngineError`."""

    async def calibrate(self, kind: Literal["dark", "flat"], frames: int) -> dict[str, Any]:
        """Average `frames` frames into a calibration that later runs use; returns its summary (mean_dn, ...)."""


class CellControl(Protocol):
    """The cell as seen from API and runs."""

    def status(self) -> PartStatus:
        """The cell's line; `values` has state, mode, voltage_v, current_ma, step, cycle, host_loss."""

    @property
    def state(self) -> CellState:
        """What the cell is doing."""

    async def start_experiment(self, spec: ExperimentSpec) -> None:
        """Check, then begin. Raises `ExperimentError`, `PotentiostatError`."""

    async def pause(self) -> None:
        """Open circuit, the experiment can go on later."""

    async def resume(self) -> None:
        """Go on after `pause`."""

    async def off(self, reason: str = "operator") -> None:
        """Cell off and the experiment ended; always allowed, answered first."""


@dataclass(frozen=True)
class Operation:
    """Work that takes longer than a second."""

    operation_id: str
    kind: str
    state: Literal["pending", "running", "done", "failed", "cancelled"]
    progress: float
    """0 to 1."""
    log: list[str]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    """A problem document."""
