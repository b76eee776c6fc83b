from types import SimpleNamespace

import numpy as np

from tests.accuracy.identity import Kept, fragments_right, overlaps

STILL = np.zeros(2)


def block(y, x, size=6):
    picture = np.zeros((40, 60))
    picture[y : y + size, x : x + size] = 1.0
    return picture


def test_overlap_follows_the_drift_and_tells_a_swap():
    labels = (block(10, 10) + 2 * block(10, 40)).astype(int)
    truths = [block(12, 10) > 0, block(12, 40) > 0]
    assert overlaps(labels, np.array([2.0, 0.0]), truths).round(6).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert overlaps(labels, STILL, truths)[0, 0] == 0.5, "24 px shared of 48"
    assert overlaps(labels, np.array([2.0, 0.0]), truths[::-1]).argmax(axis=1).tolist() == [1, 0]


def scene():
    """Particle 0 in two pieces, the right one dead; particle 1 whole."""
    parts = {0: (block(10, 10), block(10, 17)), 1: (block(25, 30), None)}
    return SimpleNamespace(subject=SimpleNamespace(which=np.array([0, 1])), pieces=lambda index, frame: parts[index])


def row(particle_id, parent_id, x_px, state):
    return {"particle_id": particle_id, "parent_id": parent_id, "y_px": 12.5, "x_px": x_px, "state": state}


def test_fragments_need_the_right_parent_place_state_and_an_id_of_their_own():
    good = [row(31, 1, 13.0, "active"), row(32, 1, 19.0, "dead")]
    assert fragments_right(scene(), good, STILL, 0) == Kept(2, 2)
    assert fragments_right(scene(), [row(31, 2, 13.0, "active")], STILL, 0) == Kept(1, 0), "it is whole"
    assert fragments_right(scene(), [row(31, 1, 13.0, "dead")], STILL, 0) == Kept(1, 0)
    assert fragments_right(scene(), [row(31, 1, 13.0, "active")] * 2, STILL, 0) == Kept(2, 0)
    assert fragments_right(scene(), [row(2, 1, 13.0, "active")], STILL, 0) == Kept(1, 0), "a particle has that id"
    assert np.isnan(Kept().percent)
