"""The quick form of ``make accuracy``, whose page is `docs/accuracy.md`."""

from __future__ import annotations

from tests.accuracy import illumination, neighbours, noise, optics, registration, stability
from tests.accuracy.effort import QUICK
from tests.bench.figures import Figure

PARTS = (noise, stability, illumination, registration, optics, neighbours)


def run() -> list[Figure]:
    """Two of the page's seeds, shorter runs."""
    return [figure for part in PARTS for figure in part.run(QUICK)]
