"""Frames from an emulated USB3 Vision camera: the driver's asynchronous queue beside plain pyusb reads, in one run.

Plain reads are two: `device.read(endpoint, length)` of a megabyte each, into new memory as pyusb does by default, then
joined; and a whole frame at a time into memory of the caller, as fast as one read after the other can be.

``python -m tests.bench.usb`` is the host's side, run under an emulated bus; it prints JSON.
"""

from __future__ import annotations

import array
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hw.camera.u3v.camera import U3vCamera
from hw.camera.u3v.settings import U3vSettings
from hw.camera.u3v.stream import LEADER_MAGIC, TRAILER_MAGIC
from hw.twin.usb.client import BusClient
from tests.bench.figures import Figure, at_least, at_most

HEIGHT, WIDTH = 1200, 1920
TURNS, TURN_S = 4, 4.0
PAUSE_S, PAUSE_EVERY_S = 0.12, 0.6
CAMERA = {"height_px": HEIGHT, "width_px": WIDTH, "max_frame_rate_hz": 1000.0, "frame_rate_hz": 1000.0}
"""Faster than anything here: what is measured is how fast frames can be taken."""
UNBOUND: dict[str, Any] = {"DeviceLinkThroughputLimitMode": "Off"}
LINK = CAMERA | {"frame_rate_hz": 163.0}
"""What a link of SuperSpeed carries of 1920 x 1200 in Mono8: the host's CPU time at the rate there is."""
PACED = CAMERA | {"frame_rate_hz": 40.0, "buffer_frames": 1}
"""Slow enough for a busy machine, with memory for a single frame: what a pause of the host costs."""


def run() -> list[Figure]:
    """Run the host's side on a bus of its own."""
    command = [sys.executable, "-m", "hw.twin.usb", "--", sys.executable, "-m", "tests.bench.usb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [Figure("no emulated bus", done.stderr.strip().splitlines()[-1], "")]
    return figures(json.loads(done.stdout.splitlines()[-1]))


def figures(found: dict[str, Any]) -> list[Figure]:
    queued, plain, own, link = (found[name] for name in ("queue", "plain", "own", "link"))
    payload = HEIGHT * WIDTH / 1e6
    return [
        at_least("1920x1200 Mono8, queue over plain pyusb reads, median of turns", _over(queued, plain), 1.7, digits=2),
        Figure("  queue", _rate(queued["fps"], payload), "", plain=_rate(plain["fps"], payload)),
        Figure(
            "  over plain reads into memory of the caller",
            f"{_over(queued, own):.2f}",
            "",
            plain=_rate(own["fps"], payload),
        ),
        at_most(
            f"frames lost of a host that pauses for {1e3 * PAUSE_S:.0f} ms, 40 frames/s",
            100 * found["paused"]["queue"],
            0.5,
            "%",
            digits=1,
            plain=f"{100 * found['paused']['plain']:.1f} %",
        ),
        at_most("frames damaged, of the queue", queued["bad"], 0, digits=0, plain=f"{plain['bad']}"),
        at_most(
            f"host's share of a core at the {_rate(link['fps'], payload)} of a real link", link["cores"], 0.3, digits=2
        ),
        Figure("  at the rate above", f"{queued['cores']:.2f}", "", plain=f"{plain['cores']:.2f}"),
        Figure(
            "host's CPU time a frame", f"{1e3 * queued['cpu_s']:.2f} ms", "", plain=f"{1e3 * plain['cpu_s']:.2f} ms"
        ),
    ]


def _over(one: dict[str, Any], other: dict[str, Any]) -> float:
    return statistics.median(a / b for a, b in zip(one["fps"], other["fps"], strict=True))


def _rate(fps: list[float], payload_mb: float) -> str:
    middle = statistics.median(fps)
    return f"{middle:.0f} frames/s, {middle * payload_mb:.0f} MB/s"


def main() -> None:
    """Turns of every method, one after the other, on the same camera."""
    bus = BusClient()
    bus.plug("cam", "u3v", **CAMERA)
    found: dict[str, Any] = _turns({"queue": queue, "plain": plain, "own": partial(plain, own=True)})
    bus.unplug("cam")
    bus.plug("link", "u3v", **LINK)
    found |= _turns({"link": queue})
    bus.unplug("link")
    bus.plug("paced", "u3v", **PACED)
    found["paused"] = {
        name: method(2 * TURN_S, paused=True)[-1] for name, method in (("queue", queue), ("plain", plain))
    }
    bus.close()
    print(json.dumps(found))


def _turns(methods: dict[str, Callable[[float], Measured]]) -> dict[str, Any]:
    found: dict[str, Any] = {name: {"fps": [], "bad": 0, "cpu": 0.0, "frames": 0, "wall": 0.0} for name in methods}
    for _ in range(TURNS):
        for name, method in methods.items():
            frames, bad, wall_s, cpu_s, _ = method(TURN_S)
            one = found[name]
            one["fps"].append(frames / wall_s)
            for key, value in (("bad", bad), ("frames", frames), ("wall", wall_s), ("cpu", cpu_s)):
                one[key] += value
    for one in found.values():
        one["cores"], one["cpu_s"] = one["cpu"] / one["wall"], one["cpu"] / one["frames"]
    return found


Measured = tuple[int, int, float, float, float]
Step = Callable[[], tuple[int, int] | None]
"""Gives the frame's number and 0 for a whole frame, 1 for a damaged one."""


def _timed(seconds: float, step: Step, paused: bool) -> Measured:
    """(frames, damaged, wall s, CPU s, fraction lost) of `step`; `paused`: with a host that does something else."""
    for _ in range(8):
        step()
    began_s, cpu_s, counts = time.monotonic(), time.process_time(), [0, 0]
    numbers, pause_s = [], began_s + PAUSE_EVERY_S
    while time.monotonic() - began_s < seconds:
        got = step()
        if got is not None:
            numbers.append(got[0])
            counts[got[1]] += 1
        if paused and time.monotonic() > pause_s:
            time.sleep(PAUSE_S)
            pause_s = time.monotonic() + PAUSE_EVERY_S
    sent = numbers[-1] - numbers[0] + 1
    return *counts, time.monotonic() - began_s, time.process_time() - cpu_s, 1 - len(numbers) / sent


def queue(seconds: float, paused: bool = False) -> Measured:
    """The driver as the engine uses it."""
    camera = U3vCamera(U3vSettings(features=UNBOUND))
    try:
        info = camera.open()
        slots = [np.zeros(info.height_px * info.width_px, np.uint8) for _ in range(9)]
        camera.start()
        for number, slot in enumerate(slots):
            camera.lend(number, slot)

        def step() -> tuple[int, int] | None:
            taken = camera.take(1.0)
            if taken is None:
                return None
            number, stamp = taken
            bad = _damaged(slots[number])
            camera.lend(number, slots[number])
            return stamp.block_id, int(bad)

        frames, bad, wall_s, cpu_s, lost = _timed(seconds, step, paused)
        dropped = sum(count for what, count in camera._stream.counts.items() if what not in ("frame", "dirty"))
        return frames, bad + dropped + sum(camera.counts.values()), wall_s, cpu_s, lost
    finally:
        camera.close()


def plain(seconds: float, paused: bool = False, own: bool = False) -> Measured:
    """pyusb's own blocking reads, one a part of the frame, of a camera the driver set up; `own`: into own memory."""
    camera = U3vCamera(U3vSettings(features=UNBOUND, transfer_mb=8.0 if own else 1.0))
    try:
        camera.open()
        camera.start()
        link, layout = camera._opened(), camera._stream._layout
        lengths = [layout.leader_bytes, *layout.payload, layout.trailer_bytes]
        memory = [array.array("B", bytes(size)) for size in lengths]
        device, endpoint = link.device.pyusb, link.stream._endpoint.address
        camera._begin()

        def parts() -> list[array.array[int]]:
            if not own:
                return [device.read(endpoint, length, 2000) for length in lengths]
            for part in memory:
                device.read(endpoint, part, 2000)
            return memory

        def step() -> tuple[int, int]:
            leader, payload, *further, trailer = parts()
            for part in further:
                payload.extend(part)
            heads = [int.from_bytes(part[:4].tobytes(), "little") for part in (leader, trailer)]
            bad = heads != [LEADER_MAGIC, TRAILER_MAGIC] or _damaged(np.frombuffer(payload, np.uint8))
            return int.from_bytes(leader[8:16].tobytes(), "little"), int(bad)

        return _timed(seconds, step, paused)
    finally:
        camera.close()


def _damaged(payload: np.ndarray) -> bool:
    """Whether rows are not the ramp of one frame: 3 x + 7 y on from its first pixel, in units of 16."""
    picture = payload[: HEIGHT * WIDTH].reshape(HEIGHT, WIDTH)[:: HEIGHT // 3, :: WIDTH // 5].astype(int)
    y, x = np.arange(0, HEIGHT, HEIGHT // 3)[:, None], np.arange(0, WIDTH, WIDTH // 5)
    ahead = (picture - picture[0, 0] - (3 * x + 7 * y) / 16 + 128) % 256 - 128
    return bool(np.abs(ahead).max() > 1.5)


if __name__ == "__main__":
    main()
