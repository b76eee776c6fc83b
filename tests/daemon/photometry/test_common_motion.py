from __future__ import annotations

import numpy as np
import pytest

from daemon.photometry.common_motion import LEAST_PARTICLES, CommonMotion


def test_what_all_share_is_added_up_whatever_single_ones_do():
    rng = np.random.default_rng(1)
    motion, places = CommonMotion(), rng.normal(0.0, 0.3, (15, 2))
    for k in range(20):
        places = places + np.array([0.01, -0.02])
        places[k % 15] += rng.normal(0.0, 1.0, 2)  # one cracks at each look
        motion.add(places + rng.normal(0.0, 1e-3, places.shape))
    assert motion.px == pytest.approx([0.19, -0.38], abs=0.005)


def test_the_first_look_is_where_it_begins():
    motion = CommonMotion()
    motion.add(np.full((9, 2), 3.0))
    assert motion.px.tolist() == [0.0, 0.0]


def test_few_particles_tell_nothing_of_what_all_share():
    motion = CommonMotion()
    for k in range(3):
        places = np.full((9, 2), float(k))
        places[LEAST_PARTICLES - 1 :] = np.nan
        motion.add(places)
    assert motion.px.tolist() == [0.0, 0.0]


def test_particles_that_are_new_count_from_their_second_look():
    motion = CommonMotion()
    motion.add(np.zeros((6, 2)))
    motion.add(np.r_[np.full((6, 2), 0.1), np.full((20, 2), 5.0)])
    motion.add(np.r_[np.full((6, 2), 0.1), np.full((20, 2), 5.2)])
    assert motion.px == pytest.approx([0.3, 0.3])
