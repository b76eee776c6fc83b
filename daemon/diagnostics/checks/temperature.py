"""Is the board too hot?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.sysfs import number, text

SYS_CLASS = Path("/sys/class")
CRITICAL_C = 95.0  # where a sensor does not say its own; embedded boards switch off at 100 to 125
MARGIN_C = 10.0  # below what is critical the clock is throttled, with most boards
PLAUSIBLE_C = (-40.0, 150.0)  # sensors that are not connected say -273 or 255


@dataclass(frozen=True)
class _Sensor:
    name: str
    reading_c: float
    critical_c: float

    @property
    def room_c(self) -> float:
        return self.critical_c - self.reading_c


class Temperature(Check):
    """The sensor nearest to its critical temperature, of the kernel's thermal zones and hardware monitors."""

    name = "temperature"
    remedy = "Check fan, dust and ventilation, and shade the instrument; a hot board is throttled and loses frames."
    surroundings = True

    def __init__(self, sys_class: Path = SYS_CLASS) -> None:
        self._sys_class = sys_class

    def run(self) -> CheckResult:
        sensors = [*_zones(self._sys_class / "thermal"), *_monitors(self._sys_class / "hwmon")]
        if not sensors:
            return self.not_applicable("this machine has no temperature sensor that the kernel knows")
        near = min(sensors, key=lambda sensor: sensor.room_c)
        limit = f"{MARGIN_C:g} °C below the critical {near.critical_c:g} °C"
        measured = f"{near.reading_c:.1f} °C ({near.name}, of {len(sensors)} sensors)"
        if near.room_c <= 0:
            return self.result("fail", measured, limit)
        return self.result("warn" if near.room_c < MARGIN_C else "pass", measured, limit)


def _zones(directory: Path) -> Iterator[_Sensor]:
    for zone in sorted(directory.glob("thermal_zone*")):
        critical = None
        for kind in zone.glob("trip_point_*_type"):
            if text(kind) == "critical":
                critical = number(kind.with_name(kind.name.replace("_type", "_temp")))
        yield from _sensor(text(zone / "type") or zone.name, number(zone / "temp"), critical)


def _monitors(directory: Path) -> Iterator[_Sensor]:
    for reading in sorted(directory.glob("hwmon*/temp*_input")):
        stem = reading.name.removesuffix("_input")
        name = text(reading.with_name(f"{stem}_label")) or stem
        chip = text(reading.parent / "name") or reading.parent.name
        yield from _sensor(f"{chip} {name}", number(reading), number(reading.with_name(f"{stem}_crit")))


def _sensor(name: str, reading_mc: int | None, critical_mc: int | None) -> Iterator[_Sensor]:
    if reading_mc is None or not PLAUSIBLE_C[0] < reading_mc / 1000 < PLAUSIBLE_C[1]:
        return
    known = critical_mc is not None and PLAUSIBLE_C[0] < critical_mc / 1000 < PLAUSIBLE_C[1] and critical_mc > 0
    yield _Sensor(name, reading_mc / 1000, critical_mc / 1000 if known and critical_mc is not None else CRITICAL_C)
