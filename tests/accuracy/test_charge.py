"""Charge and gradients on one small electrode: what a change of the science must not lose. And the scene of shells."""

from __future__ import annotations

import numpy as np
import pytest

from tests.accuracy.charge import CYCLE_5C, Series, rms
from tests.accuracy.charged_scene import ShellScene
from tests.electrode import Leg, Optics, SolidSolution, drive

LEGS = (Leg(0, 0.3, 30), Leg(0.05, 22, 360, 4.25), Leg(0, 1, 120), Leg(-0.05, 22, 360, 3.46), Leg(0, 1, 120), *CYCLE_5C)


@pytest.fixture(scope="module")
def read():
    electrode, optics = SolidSolution(30, 8, diffusion_h=0.6), Optics(30, 8, folded_share=0.15, unevenness=0.1)
    return Series(drive(electrode, LEGS), optics, electrode.dead, 8).read()


def test_charge_is_read_slow_and_fast_within_its_intervals(read):
    assert rms(read.error("soc", fast=False)) < 0.01
    assert rms(read.error("soc", fast=True)) < 0.012
    assert 0.86 < read.covered().mean() < 0.95


def test_gradients_are_read_with_their_sign(read):
    assert rms(read.error("gradient", fast=True)) < 0.03
    assert read.signs("gradient").mean() > 0.98
    assert 0.8 < rms(read.over_sigma()) < 1.2


def test_folds_are_found_and_nothing_else(read):
    assert read.folded.any()
    assert (read.kinds[read.folded] == "folded").all()
    assert not (read.kinds[~read.folded] == "folded").any()


def test_shells_are_the_particle_in_equal_parts():
    scene = ShellScene(seed=4, height=140, width=160, particles=3, radius_px=(7, 10))
    canvas = np.zeros(scene.canvas_shape)
    for rows, columns, shells in scene.shells():
        np.testing.assert_allclose(shells.sum(axis=(1, 2)), shells.sum() / len(shells), rtol=0.01)
        canvas[rows, columns] += shells.sum(axis=0)
    whole = scene.mean_e() - scene.mean_e(brightness=0.0)
    np.testing.assert_allclose(canvas[32:-32, 32:-32], whole, atol=0.01 * whole.max())
