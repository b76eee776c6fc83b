"""The parts of the accuracy page, in its order."""

from __future__ import annotations

import importlib

from tests.accuracy.effort import Effort
from tests.accuracy.page import Section

PARTS = (
    "noise",
    "stability",
    "illumination",
    "registration",
    "optics",
    "neighbours",
    "charge",
    "axial",
    "fronts",
    "steps",
    "delay",
    "fractures",
    "watch",
    "activity",
    "rates",
    "fade",
    "drivers",
    "batches",
    "models",
)


def section(part: str, effort: Effort) -> Section:
    """Measure one part; a worker's entry, so not in `__main__`."""
    module = importlib.import_module(f"tests.accuracy.{part}")
    return module.TITLE, module.INTRO, module.run(effort)
