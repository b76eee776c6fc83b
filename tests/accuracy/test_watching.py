from __future__ import annotations

import numpy as np
import pytest

from daemon.engine.measures import FrameFlag
from tests.accuracy.watch import upper_bound
from tests.accuracy.watching import FEATURES, Field, kind


def test_a_kinds_parts_add_up_and_a_shift_moves_its_moments():
    one = kind(np.random.default_rng(3))
    assert one.even[:8].sum() == pytest.approx(one.even[8:12].sum(), rel=1e-9)
    assert one.cells.sum(axis=0)[:12] == pytest.approx(one.even[:12] + 6000 * one.area[:12], rel=1e-9)
    assert one.shift[0, 12] == pytest.approx(one.even[:8].sum(), rel=0.05), "all of its light by a px"
    assert abs(one.shift[:, :8].sum(axis=1)).max() < 0.02 * one.even[:8].sum()
    assert abs(one.bowl[:8].sum()) < 0.05 * one.even[:8].sum() and one.even.shape == (FEATURES,)


def test_nights_are_noisy_as_photons_are_and_what_is_lost_is_flagged():
    field = Field(5, 24, 120.0, 10.0)
    batches = list(field.measured())
    flux = np.concatenate([batch.flux_e for batch in batches])
    sigma = np.concatenate([batch.flux_sigma_e for batch in batches])
    noise = np.diff(flux[:100], axis=0).std(axis=0) / np.sqrt(2)
    assert np.median(noise / sigma[:100].mean(axis=0)) == pytest.approx(1.0, abs=0.25)
    gaps = np.diff(field.night.frame) > 1
    assert ((field.night.flags[1:] & FrameFlag.GAP_BEFORE) > 0).tolist() == gaps.tolist()
    assert field.hours == pytest.approx(len(flux) * 24 / 36_000.0)
    assert np.isfinite(flux).all() and sorted(np.unique(field.masks.labels)) == list(range(25))


def test_the_bound_of_no_count_is_three():
    assert upper_bound(0) == pytest.approx(3.0, abs=0.01) and upper_bound(3) == pytest.approx(7.75, abs=0.01)
