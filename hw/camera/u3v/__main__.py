"""``python -m hw.camera.u3v [--seconds S] [--set OPTION=VALUE ...]``: what a camera is and does, on its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from hw.camera.contract import CameraInfo, FrameStamp
from hw.camera.u3v.camera import U3vCamera
from hw.camera.u3v.settings import U3vSettings
from hw.drivers import checked_options
from hw.errors import InstrumentError

WAIT_S = 0.25


def main(arguments: list[str]) -> int:
    """Open, describe, stream; 1 and a sentence where that fails."""
    parser = argparse.ArgumentParser(prog="python -m hw.camera.u3v", description="Try a USB3 Vision camera.")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to stream; 0: only describe the camera")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the driver")
    given = parser.parse_args(arguments)
    try:
        options = dict(_option(text) for text in given.set)
        settings = checked_options(U3vSettings, "u3v", options)
        assert isinstance(settings, U3vSettings)
        _try(U3vCamera(settings), given.seconds)
    except InstrumentError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(str(error))
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: OPTION=VALUE is meant")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _try(camera: U3vCamera, seconds: float) -> None:
    began_s = time.monotonic()
    try:
        info = camera.open()
        _describe(camera, info, time.monotonic() - began_s)
        if seconds > 0:
            _stream(camera, info, seconds)
    finally:
        camera.close()
        print("counts   ", dict(camera.counts) or "nothing happened")


def _describe(camera: U3vCamera, info: CameraInfo, took_s: float) -> None:
    about = camera.about()
    print(f"camera    {info.model}, serial {info.serial}, firmware {about.device_version}, opened in {took_s:.2f} s")
    print(f"link      {about.speed_mbps or 'unknown'} Mbit/s, commands {about.most_command_bytes} B")
    print(f"frames    {info.width_px} x {info.height_px} {info.pixel_format.value}, {info.frame_rate_hz:g} Hz")
    print(f"exposure  {info.exposure_us} us")
    for note in info.notes or ("none",):
        print(f"note      {note}")


def _stream(camera: U3vCamera, info: CameraInfo, seconds: float) -> None:
    size = info.pixel_format.payload_bytes(info.height_px, info.width_px)
    camera.start()
    slots = [np.zeros(size, np.uint8) for _ in range(camera.queue_frames + 1)]
    for number, slot in enumerate(slots):
        camera.lend(number, slot)
    if camera.memory_advice:
        print(f"memory    {camera.memory_advice}")
    stamps: list[FrameStamp] = []
    picture = slots[0]
    began_s, cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < seconds:
        taken = camera.take(WAIT_S)
        if taken is not None:
            number, stamp = taken
            stamps.append(stamp)
            picture = slots[number].copy() if len(stamps) == 1 else picture
            camera.lend(number, slots[number])
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    _tell(camera, stamps, size, wall_s, cpu_s)
    print(f"bytes     of the first frame: {picture.min()} to {picture.max()}, mean {picture.mean():.1f}")


def _tell(camera: U3vCamera, stamps: list[FrameStamp], size: int, wall_s: float, cpu_s: float) -> None:
    if len(stamps) < 2:
        print(f"frames    {len(stamps)} in {wall_s:.1f} s")
        return
    blocks = np.array([one.block_id for one in stamps])
    host_s, device_s = (np.array([getattr(one, name) for one in stamps]) for name in ("host_t_s", "device_t_s"))
    rate_hz = (len(stamps) - 1) / (host_s[-1] - host_s[0])
    lost = int(blocks[-1] - blocks[0]) + 1 - len(stamps)
    print(f"received  {len(stamps)} frames, {rate_hz:.2f} a second, {rate_hz * size / 1e6:.0f} MB/s, {lost} lost")
    print(f"host      {cpu_s / wall_s:.2f} of a core; longest pause {1e3 * np.diff(host_s).max():.1f} ms")
    sample = camera.clock_sample
    if sample is not None:
        late_ms = 1e3 * (host_s - sample.host_t_s - device_s + sample.device_t_s)
        low, middle, high = np.percentile(late_ms, [5, 50, 95])
        print(
            f"clock     frames arrive {low:.2f} to {high:.2f} ms after mid-exposure (5 to 95 %), median {middle:.2f} ms"
        )
        print(f"          clocks compared to {1e3 * sample.uncertainty_s:.2f} ms")
    print(f"stream    {camera.stream_counts()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
