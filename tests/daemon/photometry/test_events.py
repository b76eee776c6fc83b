import re
from pathlib import Path

import numpy as np
import pytest

from daemon.engine.measures import Detection, FrameFlag
from daemon.events import Event, EventKind
from tests.daemon.photometry.synthetic import Movie, run

PAGE = Path(__file__).parents[3] / "docs" / "events.md"


def events_of(detections: list[Detection], batch: int = 50, flags: np.ndarray | None = None) -> list[Event]:
    t_s = np.arange(400) * 0.01
    return run(Movie(t_s, np.zeros((400, 20)), detections=detections, flags=flags), [], batch).events


def found(index: int, onset: int, settled: int, size: float, common: float = 0.05) -> Detection:
    return Detection(index, onset, settled, size, 1e-3, 30.0, common)


def test_a_common_step_spares_the_particles() -> None:
    together = [found(index, 100, 102 + index % 3, -0.1, common=0.9) for index in range(20)]
    assert events_of(together) == []


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_batches_do_not_matter(batch: int) -> None:
    flags = np.zeros(400, np.uint32)
    flags[[50, 51, 220]] = FrameFlag.GAP_BEFORE
    detections = [found(k, 30 + 10 * k, 33 + 10 * k, -0.02 * (k % 3)) for k in range(20)]
    assert repr(events_of(detections, batch, flags)) == repr(events_of(detections, 50, flags))


def test_detections_that_name_no_particle_are_left_out() -> None:
    assert events_of([found(99, 10, 12, -0.1), found(-1, 10, 12, -0.1)]) == []


def test_every_kind_is_on_the_events_page() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == {kind.value for kind in EventKind}
    assert all(unit.strip() for unit in rows.values())
