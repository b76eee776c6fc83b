from __future__ import annotations

import time

import numpy as np
import pytest

from hw.twin.u3v.frames import BITS, Live, Reel, View, loop, pattern

SCENE = {"particles": 6, "height_px": 120, "width_px": 160}


def view(**changes: object) -> View:
    whole = {"width_px": 8, "height_px": 6, "offset_x_px": 0, "offset_y_px": 0, "binning_x": 1, "binning_y": 1}
    return View(**(whole | {"pixel_format": "Mono12", "gain_db": 0.0, "black_dn": 0} | changes))  # type: ignore[arg-type]


def values(payload: np.ndarray, depth: int) -> np.ndarray:
    bits = np.unpackbits(payload, bitorder="little")
    return bits[: bits.size // depth * depth].reshape(-1, depth) @ (1 << np.arange(depth))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("pixel_format", BITS)
def test_every_format_keeps_the_value_to_its_own_last_bit(bits: int, pixel_format: str) -> None:
    raw = np.random.default_rng(3).integers(0, 1 << bits, (6, 8)).astype(np.uint8 if bits == 8 else np.uint16)
    raw[0, :2] = 0, (1 << bits) - 1
    payload = view(pixel_format=pixel_format).develop(raw, bits)
    depth = BITS[pixel_format]
    stored = {"Mono12": 16}.get(pixel_format, depth)
    got = values(payload, stored).reshape(6, 8)
    assert payload.dtype == np.uint8 and payload.size == -(-48 * stored // 8)
    full_here, full_there = (1 << bits), (1 << depth)
    error = np.abs(got / full_there - raw / full_here)
    assert error.max() <= max(0.5, 1.0 * (raw.max() == full_here - 1)) / full_there + 1e-12
    assert got[0, 0] == 0 and got.max() < full_there


def test_a_region_is_cut_binned_amplified_and_clipped() -> None:
    raw = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20) * 10
    one = view(offset_x_px=2, offset_y_px=1, binning_x=2, binning_y=2, gain_db=6.0, black_dn=-7)
    got = one.develop(raw, 12).view(np.uint16).reshape(6, 8)
    for y, x in ((0, 0), (5, 7), (2, 3)):
        block = raw[2 * (y + 1) : 2 * (y + 1) + 2, 2 * (x + 2) : 2 * (x + 2) + 2].sum()
        assert got[y, x] == min(max(round(min(block, 4095) * 10 ** (6 / 20) - 7), 0), 4095)


def test_a_reel_develops_once_and_again_for_another_view() -> None:
    reel = pattern(6, 8, clock_ppm=0.0)
    first = reel.picture(0, 1.0, 0.1, view())
    again = reel.picture(16, 2.0, 0.1, view())
    other = reel.picture(16, 2.0, 0.1, view(gain_db=6.0))
    assert first is not None and again is not None and other is not None
    assert first.payload is again.payload and other.payload != first.payload and first.payload.readonly
    assert again.begin_s - first.begin_s == pytest.approx(1.0)


def test_the_pattern_is_what_its_documentation_says() -> None:
    picture = pattern(6, 8, 0.0).picture(17, 0.0, 0.0, view())
    assert picture is not None
    assert np.frombuffer(picture.payload, np.uint16).reshape(6, 8)[4, 5] == 5 * 1 + 3 * 5 + 7 * 4


def test_a_clock_that_is_off() -> None:
    reel = Reel(np.zeros((1, 6, 8), np.uint16), 12, clock_ppm=1e6)
    now_s = time.monotonic()
    assert reel.clock_s(now_s + 1.0) - reel.clock_s(now_s) == pytest.approx(2.0)


@pytest.mark.parametrize("pixel_format", ["Mono8", "Mono12p", "Mono16"])
def test_the_loop_is_unpacked_as_it_was_packed(pixel_format: str) -> None:
    reel = loop({**SCENE, "loop_frames": 2, "pixel_format": pixel_format}, 0.0)
    one = view(width_px=160, height_px=120, pixel_format=pixel_format)
    picture = reel.picture(1, 0.0, 0.0, one)
    assert picture is not None and reel.bits == BITS[pixel_format]
    dn = values(np.frombuffer(picture.payload, np.uint8), BITS[pixel_format])
    assert 0.15 < dn.mean() / (1 << reel.bits) < 0.6 and dn.std() > 0.01 * (1 << reel.bits)


def test_a_packed_loop_is_handed_out_as_it_is_and_unpacked_for_any_other_view() -> None:
    reel = loop({**SCENE, "loop_frames": 2, "pixel_format": "Mono12p"}, 0.0)
    packed, plain, part = (
        reel.picture(1, 0.0, 0.0, view(width_px=160, height_px=height, pixel_format=name))
        for name, height in (("Mono12p", 120), ("Mono12", 120), ("Mono12p", 60))
    )
    assert packed is not None and plain is not None and part is not None
    dn = values(np.frombuffer(packed.payload, np.uint8), 12)
    assert np.array_equal(dn, np.frombuffer(plain.payload, np.uint16))
    assert part.payload == packed.payload[: 160 * 60 * 3 // 2]


def test_the_living_scene_has_the_worlds_clock_and_the_exposure_asked_for() -> None:
    options = {**SCENE, "static": True, "noise": "none", "c_rate": 0.0, "speed": 10.0, "timestamp_jitter_us": 0.0}
    live = Live(options)
    try:
        one = view(width_px=160, height_px=120)
        now_s = time.monotonic()
        first, second = (live.picture(k, now_s + 0.1 * k, 0.002 * (1 + k), one) for k in range(2))
        assert first is not None and second is not None
        assert second.begin_s - first.begin_s == pytest.approx(10 * (0.1 - 0.002), abs=1e-6)
        assert live.clock_s(now_s) - first.begin_s == pytest.approx(10 * 0.002, abs=1e-6)
        means = [np.frombuffer(picture.payload, np.uint16).mean() - 64 for picture in (first, second)]
        assert means[1] / means[0] == pytest.approx(2.0, rel=0.05)
    finally:
        live.close()
