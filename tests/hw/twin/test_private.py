import time

import pytest

from hw.twin.private import PrivateWorld
from tests.hw.twin.conftest import options_of


def test_its_time_passes_at_its_speed():
    world = PrivateWorld(options_of(), c_rate=1.0, speed=50.0)
    first = world.read()
    time.sleep(0.1)
    second = world.read()
    assert second.t_s - first.t_s == pytest.approx(50 * (second.host_t_s - first.host_t_s))
    assert 4.5 < second.t_s - first.t_s < 30
    assert second.host_t_s == pytest.approx(time.monotonic(), abs=0.1)
    assert second.current_ma == pytest.approx(0.5) and not second.closed


def test_worlds_have_clocks_of_their_own():
    one, other = (PrivateWorld(options_of(), 0.0, 1.0) for _ in range(2))
    assert one.clock_id != other.clock_id
    assert one.sample.options.particles == 6
