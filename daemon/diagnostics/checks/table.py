"""Every check, one row each. A new one is a file beside this one, and a row here.

Rows build a check from what it looks at: `MACHINE` from the machine alone, so that a bundle has them with the daemon
dead; `live_rows` from the parts of a running daemon. The order is that of reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.diagnostics.checks.arrivals import CameraFrames, CellSamples
from daemon.diagnostics.checks.base import Check
from daemon.diagnostics.checks.calibration_age import DarkAge, FlatAge
from daemon.diagnostics.checks.clock import Clock
from daemon.diagnostics.checks.clock_rate import ClockRate
from daemon.diagnostics.checks.clock_steps import ClockSteps
from daemon.diagnostics.checks.device_present import CameraDevice, PotentiostatDevice
from daemon.diagnostics.checks.disk_wear import DiskWear
from daemon.diagnostics.checks.free_space import FreeSpace
from daemon.diagnostics.checks.kernel_cache import KernelCache
from daemon.diagnostics.checks.link_speed import LinkSpeed
from daemon.diagnostics.checks.memory import Memory
from daemon.diagnostics.checks.noise import Noise
from daemon.diagnostics.checks.sqlite_version import SqliteVersion
from daemon.diagnostics.checks.state_directory import StateDirectory
from daemon.diagnostics.checks.store_health import StoreHealth
from daemon.diagnostics.checks.temperature import Temperature
from daemon.diagnostics.checks.throttling import Throttling
from daemon.diagnostics.checks.usb_devices import DriverChoice
from daemon.diagnostics.checks.usbfs_memory import UsbfsMemory

if TYPE_CHECKING:
    from daemon.bootstrap import Instrument

MIN_FREE_MB = 200  # the setting's default, where settings cannot be read


@dataclass(frozen=True)
class Site:
    """The machine and what is configured of it; the functions give None, or nothing, with the daemon dead."""

    state_dir: Path
    min_free_mb: int = MIN_FREE_MB
    camera: DriverChoice = field(default_factory=DriverChoice)
    potentiostat: DriverChoice = field(default_factory=DriverChoice)
    own_pids: Callable[[], set[int]] = set
    frame_bytes: Callable[[], int | None] = lambda: None
    data_rate: Callable[[], float | None] = lambda: None
    """Bytes a second that the open camera sends."""


MACHINE: tuple[tuple[type[Check], Callable[[Site], Check]], ...] = (
    (StateDirectory, lambda site: StateDirectory(site.state_dir)),
    (FreeSpace, lambda site: FreeSpace(site.state_dir, site.min_free_mb)),
    (DiskWear, lambda site: DiskWear(site.state_dir)),
    (SqliteVersion, lambda site: SqliteVersion()),
    (KernelCache, lambda site: KernelCache()),
    (Clock, lambda site: Clock()),
    (ClockRate, lambda site: ClockRate()),
    (Temperature, lambda site: Temperature()),
    (Throttling, lambda site: Throttling()),
    (CameraDevice, lambda site: CameraDevice(site.camera, site.own_pids)),
    (LinkSpeed, lambda site: LinkSpeed(site.camera, site.data_rate)),
    (UsbfsMemory, lambda site: UsbfsMemory(site.camera, site.frame_bytes)),
    (PotentiostatDevice, lambda site: PotentiostatDevice(site.potentiostat, site.own_pids)),
)


def live_rows() -> tuple[tuple[type[Check], Callable[[Instrument], Check]], ...]:
    """The rows of checks that look at the parts of a running daemon."""
    return (
        (
            CameraFrames,
            lambda parts: CameraFrames(lambda: parts.metrics.last_frame_age_s, parts.settings.camera.frame_deadline_s),
        ),
        (CellSamples, lambda parts: CellSamples(lambda: parts.metrics.last_sample_age_s, _sample_deadline_s(parts))),
        (Memory, lambda parts: Memory(parts.processes)),
        (ClockSteps, lambda parts: ClockSteps(lambda: (parts.clock_watch.steps, parts.clock_watch.moved_s))),
        (StoreHealth, lambda parts: StoreHealth(parts.writer.stats, parts.writer.status, lambda: _full_check(parts))),
        (Noise, lambda parts: Noise(parts.runs.current)),
        (DarkAge, lambda parts: DarkAge(parts.layout.catalogue, parts.settings.camera.driver)),
        (FlatAge, lambda parts: FlatAge(parts.layout.catalogue, parts.settings.camera.driver)),
    )


def check_classes() -> Iterator[tuple[type[Check], bool]]:
    """Every check's class, and whether it needs the running daemon."""
    yield from ((kind, False) for kind, _ in MACHINE)
    yield from ((kind, True) for kind, _ in live_rows())


def machine_checks(site: Site) -> list[Check]:
    """The checks that need no running daemon."""
    return [build(site) for _, build in MACHINE]


def live_checks(parts: Instrument) -> list[Check]:
    """Every check, for a running daemon."""
    return [*machine_checks(site_of(parts)), *(build(parts) for _, build in live_rows())]


def site_of(parts: Instrument) -> Site:
    """What the running daemon knows of its machine."""
    settings = parts.settings

    def frame_bytes() -> int | None:
        info = parts.engine.info
        return None if info is None else info.pixel_format.payload_bytes(info.height_px, info.width_px)

    def data_rate() -> float | None:
        info, size = parts.engine.info, frame_bytes()
        return None if info is None or size is None else size * info.frame_rate_hz

    return Site(
        settings.store.state_dir,
        settings.store.min_free_mb,
        DriverChoice(settings.camera.driver, settings.camera.options),
        DriverChoice(settings.potentiostat.driver, settings.potentiostat.options),
        lambda: set(parts.processes().values()),
        frame_bytes,
        data_rate,
    )


def _full_check(parts: Instrument) -> dict[str, Any] | None:
    """What the status tells of the store's last full check; None before the first, and where nobody makes any."""
    lines = [part for part in parts.status_parts() if part.name == "maintenance"]
    found = lines[0].values.get("check") if lines else None
    return found if isinstance(found, dict) else None


def _sample_deadline_s(parts: Instrument) -> float | None:
    """None where no potentiostat is configured: there is nothing to wait for."""
    potentiostat = parts.settings.potentiostat
    return None if potentiostat.driver == "none" else potentiostat.sample_deadline_s
