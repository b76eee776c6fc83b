"""What `--simulate` configures: the simulated instrument and an experiment that shows it at work. Data only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CAPACITY_MAH = 1.0
SPEED = 60.0  # a charge at 2C takes half a minute

RATE_PER_H = 120.0  # a lively material: rests of ten minutes settle it, but nearly full ones

STEPS = [
    "Rest for 3 minutes",  # the baseline: the discharged end of each particle's window, in equilibrium
    "Charge at 1C for 6 minutes or until 4.35 V",
    "Rest for 10 minutes",
    "Charge at 1C for 6 minutes or until 4.35 V",
    "Rest for 20 minutes",
    *["Charge at 1C for 8 minutes or until 4.35 V", "Rest for 12 minutes"] * 5,  # rests at eight charges: calibrations
    "Charge at 1C until 4.35 V",
    "Rest for 30 minutes",
    "Discharge at 1C until 3.4 V",
    "Rest for 3 minutes",
    "Charge at 2C until 4.35 V",
    "Rest for 3 minutes",
    "Discharge at 2C until 3.4 V",
]
"""Four minutes of watching at `SPEED`: pulses and rests first, a full cycle at twice the rate after."""


def simulated(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the simulated instrument, as a settings file would hold them."""
    state_dir = state_directory(environ)
    world = {"world": str(state_dir / "world")}  # one file, so that the camera looks at the cell that is being driven
    cell = {"speed": SPEED, "seed": 1, "particles": 300, "material": "nmc", "capacity_mah": CAPACITY_MAH}
    kinetics = {"rate_per_h": RATE_PER_H}
    return {
        "camera": {"driver": "twin", "options": world},
        "potentiostat": {"driver": "twin", "options": world | cell | kinetics},
        "cell": {
            "capacity_mah": CAPACITY_MAH,
            "electrode": "cathode",
            "limits": {"min_voltage_v": 3.0, "max_voltage_v": 4.45, "max_current_ma": 10 * CAPACITY_MAH},
        },
        "store": {"state_dir": str(state_dir)},
        "autostart": {"name": "simulated", "experiment": {"steps": STEPS, "cycles": 1000}, "baseline_s": 60.0},
    }


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where the simulated instrument keeps its results: below `XDG_STATE_HOME`, or a private temporary directory."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/nonexistent", ".local", "state")
    wanted = Path(home) / "photometryd-simulated"
    if _can_be_made(wanted):
        return wanted
    fallback = Path(tempfile.gettempdir()) / f"photometryd-simulated-{os.getuid()}"
    if not fallback.exists() or fallback.stat().st_uid == os.getuid():
        return fallback
    return Path(tempfile.mkdtemp(prefix="photometryd-simulated-"))  # somebody else took the name


def _can_be_made(directory: Path) -> bool:
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
