"""The settings: one schema for validation, docs and `GET /config`. Strict TOML in, typed settings out.

Unknown names are errors that carry the nearest known one; every problem names its place as ``section.name``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from daemon.recipe import CellLimits, Positive, Recipe, Strict

Scope = Literal["read", "operate", "admin"]


class CameraSettings(Strict):
    """The camera, and what it does not say of itself."""

    driver: str = "twin"
    """Name in the table of camera drivers (`hw.camera.DRIVERS`)."""
    options: dict[str, Any] = {}
    """The driver's own settings; each driver documents and checks them."""
    pixel_size_nm: Positive | None = None
    """Object-side size of a pixel; the driver's value when absent."""
    gain_e_per_dn: Positive | None = None
    read_noise_e: Annotated[float, Field(ge=0)] | None = None
    dark_dn: Annotated[float, Field(ge=0)] | None = None
    frame_deadline_s: Positive = 2.0
    """Longest wait for a frame before the camera counts as stalled."""


class PotentiostatSettings(Strict):
    """The potentiostat."""

    driver: str = "twin"
    """Name in the table of potentiostat drivers (`hw.potentiostat.DRIVERS`)."""
    options: dict[str, Any] = {}
    """The driver's own settings; each driver documents and checks them."""
    sample_deadline_s: Positive = 2.0
    """Longest wait for a sample before the cell is switched off."""


class CellSettings(Strict):
    """The cell under test."""

    capacity_mah: Positive | None = None
    """Nominal capacity, what 1C means; the potentiostat's value when absent."""
    electrode: Literal["cathode", "anode"] = "cathode"
    """Which electrode the microscope watches: a cathode's particles lose lithium while the cell charges."""
    limits: CellLimits = CellLimits()


class EngineSettings(Strict):
    """The camera engine."""

    ring_frames: int = Field(default=32, ge=4, le=4096)
    """Frame slots between camera and kernels; a full ring drops the newest frame and counts it."""
    batch_s: Positive = 0.05
    """How often measures cross to the daemon."""
    link_batches: int = Field(default=64, ge=4, le=4096)
    """Batches that may wait for the daemon before the newest is dropped and counted."""
    max_restarts: int = Field(default=5, ge=0)
    """Restarts within `restart_window_s` before giving up."""
    restart_window_s: Positive = 60.0
    silence_s: Positive = 5.0  # twice the frame deadline and a second: slower than any healthy stage
    """Longest silence of a live engine before it is killed and restarted."""
    start_timeout_s: Positive = 90.0  # first start compiles the kernels: 60 s on the slowest machine tried
    step_false_alarms_per_day: Positive = 1.0
    """Designed false alarms of the step detector, for the whole instrument."""


class StoreSettings(Strict):
    """Where and how results are kept."""

    state_dir: Path = Path("/var/lib/photometryd")
    commit_interval_s: Positive = 1.0
    """What a power cut may cost."""
    min_free_mb: int = Field(default=200, ge=0)
    """Below this much free space a run is stopped and none is started."""


class Token(Strict):
    """One bearer token of the HTTP API."""

    name: str
    secret: str = Field(min_length=16, json_schema_extra={"secret": True})
    scopes: list[Scope] = ["read"]


class ApiSettings(Strict):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Loopback by default; tokens are required on any other address."""
    port: int = Field(default=8470, ge=0, le=65535)
    """0 takes a free port."""
    socket: Path | None = None
    """Unix socket, guarded by file permission (0660)."""
    tokens: list[Token] = []
    """Without tokens, loopback requests have every scope; with at least one, each request needs a token."""
    max_body_bytes: int = Field(default=1_000_000, ge=1_000)
    max_followers: int = Field(default=100, ge=1)
    """Event streams open at once."""


class ServiceSettings(Strict):
    """The process itself."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    thread_stall_s: Positive = 10.0
    """Longest time without progress of a vital part before the systemd watchdog is no longer fed."""


class Settings(Strict):
    """Everything."""

    camera: CameraSettings = CameraSettings()
    potentiostat: PotentiostatSettings = PotentiostatSettings()
    cell: CellSettings = CellSettings()
    engine: EngineSettings = EngineSettings()
    store: StoreSettings = StoreSettings()
    api: ApiSettings = ApiSettings()
    service: ServiceSettings = ServiceSettings()
    autostart: Recipe | None = None
    """A run to start by itself once the instrument is ready."""
