"""The engine's acquisition on an emulated camera: every frame accounted for, through faults and replugging."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daemon.engine import acquisition as module
from daemon.engine.acquisition import Acquisition
from hw.twin.usb.client import BusClient

CAMERA = {"height_px": 120, "width_px": 160, "frame_rate_hz": 100.0}


class Engine:
    """An acquisition whose frames are counted and given back."""

    def __init__(self, **options: Any) -> None:
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.acquisition = Acquisition("u3v", options, 32, 2.0, lambda *one: self.reports.append(one))
        self.taken = 0
        self._quit = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Engine:
        self.acquisition.start()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.acquisition.quit()
        self.acquisition.join(10.0)
        self._quit.set()
        self._reader.join(10.0)
        assert not self.acquisition.is_alive()

    def _read(self) -> None:
        while not self._quit.is_set():
            ring = self.acquisition.ring
            item = ring.take(0.05) if ring is not None else time.sleep(0.01)
            if item is not None:
                self.taken += 1
                ring.release(item[0])

    def reasons(self) -> list[str]:
        return [fields["reason"] for kind, fields in self.reports if kind == "lost"]

    def wait(self, more: int, within_s: float = 15.0) -> float:
        """Seconds until that many more frames were taken."""
        began, target = time.monotonic(), self.taken + more
        while self.taken < target:
            assert time.monotonic() - began < within_s, self.reports[-3:]
            time.sleep(0.005)
        return time.monotonic() - began


@pytest.fixture
def engine(bus: BusClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Engine]:
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.1)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.2)
    bus.plug("cam", "u3v", **CAMERA)
    with Engine(cache=str(tmp_path)) as one:
        yield one
    acquisition = one.acquisition
    dropped = sum(acquisition.dropped.values())
    assert acquisition.captured == one.taken + dropped + acquisition.ring.depth  # nothing is in flight any more
    ring = acquisition.ring
    free = [ring.lease() for _ in range(ring.slots - ring.depth)]
    assert None not in free  # every slot came back


def test_frames_arrive_and_are_accounted_for(engine: Engine) -> None:
    engine.wait(100)
    assert engine.reasons() == [] and engine.acquisition.captured >= 100


def test_it_resumes_each_time_the_camera_is_put_back(bus: BusClient, engine: Engine) -> None:
    rng = random.Random(3)
    for _ in range(6):
        engine.wait(rng.randrange(2, 10))
        time.sleep(rng.random() * 0.02)
        bus.unplug("cam")
        time.sleep(rng.random() * 0.3)
        bus.plug("cam")
        engine.wait(3)
    assert set(engine.reasons()) <= {"camera.unplugged", "camera.not_found"}
    assert engine.reasons().count("camera.unplugged") == 6


def test_faults_of_all_kinds_are_lived_through(bus: BusClient, engine: Engine) -> None:
    for fault in ("stall", "short_frame", "lost_trailer", "wrong_size", "trailer_discarded", "lost_frames", "no_ack"):
        engine.wait(10)
        bus.inject("cam", fault)
    engine.wait(30)
    assert engine.reasons() == []
    assert engine.acquisition.dropped["camera.lost"] >= 6


ANY = [
    ("stall", {}), ("short_frame", {"times": 2}), ("lost_trailer", {}), ("wrong_size", {}),
    ("trailer_discarded", {"times": 3}), ("lost_frames", {"frames": 5}), ("no_ack", {}), ("stray_ack", {}),
    ("pending_ack", {"seconds": 0.3, "announce_ms": 500}), ("slow_control", {"seconds": 0.2}),
    *(("usb.error", {"endpoint": endpoint}) for endpoint in (0x81, 0x82)),
    *(("usb.babble", {"endpoint": endpoint}) for endpoint in (0x81, 0x82)),
    *(("usb.nak", {"endpoint": endpoint, "seconds": 0.6}) for endpoint in (0x01, 0x81, 0x82)),
    ("usb.gone", {}), ("unplug_mid_frame", {}),
]  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_frames_come_again_and_none_is_unaccounted_for(
    bus: BusClient, engine: Engine, seed: int
) -> None:
    rng = random.Random(seed)
    for fault, parameters in rng.sample(ANY, 8):
        engine.wait(3)
        time.sleep(rng.random() * 0.2)
        bus.inject("cam", fault, **parameters)
        time.sleep(0.1 + rng.random() * 0.4)
        if not bus.state("cam")["plugged"]:
            bus.plug("cam")
        engine.wait(5)


def test_settings_and_rewinding_go_on_beside_frames(engine: Engine) -> None:
    engine.wait(10)
    engine.acquisition.configure({"exposure_us": 500.0}, 5.0)
    assert engine.acquisition.rewind(5.0) == 2
    engine.wait(10)
    assert engine.reasons() == []
