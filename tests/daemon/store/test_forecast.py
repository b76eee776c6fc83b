from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.store.forecast import LEAST_S, WINDOW_S, DiskWatch, FillForecast


def fed(rate_mb_per_h, seconds, free_mb=50_000.0, noise_mb=0.0, step_s=5.0):
    forecast = FillForecast()
    rng = np.random.default_rng(3)
    for t_s in np.arange(0, seconds + step_s, step_s):
        forecast.add(1e6 + t_s, round(free_mb - rate_mb_per_h * t_s / 3600 + rng.uniform(-1, 1) * noise_mb))
    return forecast


@pytest.mark.parametrize("rate_mb_per_h", [200, 1000, 6000])
def test_the_rate_is_that_of_the_last_minutes_despite_the_logs_own_waves(rate_mb_per_h):
    forecast = fed(rate_mb_per_h, 1800, noise_mb=4.0)
    assert forecast.rate_mb_per_h == pytest.approx(rate_mb_per_h, rel=0.1)
    left_mb = 50_000 - rate_mb_per_h * 0.5 - 200
    assert forecast.full_in_h(200) == pytest.approx(left_mb / rate_mb_per_h, rel=0.1)


@pytest.mark.parametrize(
    "forecast",
    [FillForecast(), fed(6000, LEAST_S - 10), fed(0, 1800, noise_mb=3.0), fed(-500, 1800)],
    ids=["nothing seen", "too short", "no fall", "rises"],
)
def test_what_is_not_known_is_none(forecast):
    assert forecast.rate_mb_per_h is None and forecast.full_in_h(0) is None


def test_room_that_was_made_begins_anew_and_old_samples_go():
    forecast = fed(6000, 1200)
    assert len(forecast._samples) <= WINDOW_S / 5 + 1
    forecast.add(1e6 + 1210, 90_000)
    assert forecast.rate_mb_per_h is None


def test_a_full_disk_is_full_now():
    forecast = fed(6000, 1800, free_mb=3100)
    assert forecast.full_in_h(200) == 0.0


def watch(**changes):
    return DiskWatch(**{"least_mb": 200, "low_mb": 1000, "low_h": 24.0} | changes)


def test_low_is_told_once_until_it_was_well_or_another_run_begins():
    disk = watch()
    told = [disk.add(float(t), mb, "") for t, mb in enumerate([1200, 999, 990, 1100, 999, 1300, 999])]
    assert [bool(sentence) for sentence in told] == [False, True, False, False, False, False, True]
    assert told[1] == "999 MB are free"
    assert disk.add(10.0, 998, "r2")


def test_another_load_is_forecast_from_its_own_beginning():
    disk = watch(low_h=0.0, low_mb=0)
    for t_s in range(0, 1200, 5):
        disk.add(float(t_s), 50_000, "")
    disk.add(1205.0, 50_000, "r1")
    assert disk.as_dict() == {"free_mb": 50_000, "falls_mb_per_h": None, "full_in_h": None}
    for t_s in range(1210, 1500, 5):
        disk.add(float(t_s), 50_000 - round((t_s - 1205) * 2), "r1")
    assert disk.as_dict()["falls_mb_per_h"] == pytest.approx(7200, rel=0.01)
    assert math.isclose(disk.full_in_h, (50_000 - 2 * 290 - 200) / 7200, rel_tol=0.01)
