import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.outlook import Outlook
from daemon.photometry.update import ScienceUpdate
from tests.daemon.photometry.test_fade import CHARGE, COUNT, DISCHARGE

ALL = np.ones(COUNT, bool)


def soc(contrast: np.ndarray) -> np.ndarray:
    return contrast / 0.2


def test_a_cycle_gives_health_and_a_step_leaves_its_particle_out() -> None:
    outlook = Outlook(np.arange(COUNT) + 100)
    outlook.note([Event(EventKind.CRACK, 1.0, 1.0, particle_id=103), Event(EventKind.FOCUS_JUMP, 1.0, 1.0)])
    update = ScienceUpdate()
    with np.errstate(all="ignore"):
        outlook.add(CHARGE, soc, ALL, ALL, 3600.0, update)
        assert update.health == []
        outlook.add(DISCHARGE, soc, ALL, ALL, 7200.0, update)
    assert [row["particle_id"] for row in update.health] == list(range(100, 100 + COUNT))
    assert np.isnan(update.health[3]["loss"])
    assert outlook.summary()["particles_warned"] == 0


def test_it_goes_on_with_more_particles() -> None:
    outlook = Outlook(np.arange(COUNT - 1))
    outlook.grow(np.arange(COUNT))
    outlook.note([Event(EventKind.STEP, 1.0, 1.0, particle_id=COUNT - 1)])
    update = ScienceUpdate()
    with np.errstate(all="ignore"):
        for half in (CHARGE, DISCHARGE):
            outlook.add(half, soc, ALL, ALL, 0.0, update)
    assert len(update.health) == COUNT
