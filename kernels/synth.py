"""Rendering a simulated micrograph: light of each particle's parts, the scene, and a camera's exposure of it.

A particle is a stack of `K` blurred images, one for each equal-area part of its order coordinate u (0 where a change
begins, 1 where it ends). The scene is their sum weighted by the parts' light, in electrons at nominal exposure.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def part_contents(
    c: np.ndarray,
    c_surface: np.ndarray,
    fraction: np.ndarray,
    phase_lo: np.ndarray,
    phase_hi: np.ndarray,
    invader: np.ndarray,
    out: np.ndarray,
) -> None:
    """Lithium content of each part of each particle, `out` (P, K) float32; its mean over K is `c`, exactly.

    Where `fraction` is NaN (solid solution) c(u) = c + 2 (c_surface - c)(1/2 - u), u from the edge inwards. Else
    `fraction` is the share of the phase with content `phase_hi`, the rest has `phase_lo`; the phase that comes in takes
    the parts from u = 0: the lithium-poor one where `invader` is 1. The part with the front is mixed.
    """
    parts = out.shape[1]
    for i in range(out.shape[0]):
        share = fraction[i]
        if math.isnan(share):
            for k in range(parts):
                out[i, k] = c[i] + 2.0 * (c_surface[i] - c[i]) * (0.5 - (k + 0.5) / parts)
            continue
        entered = 1.0 - share if invader[i] > 0.5 else share
        before, after = (phase_lo[i], phase_hi[i]) if invader[i] > 0.5 else (phase_hi[i], phase_lo[i])
        for k in range(parts):
            part = min(max(entered * parts - k, 0.0), 1.0)
            out[i, k] = part * before + (1.0 - part) * after


@njit(**JIT)
def part_light(contents: np.ndarray, response: np.ndarray, brightness: np.ndarray, out: np.ndarray) -> None:
    """Electrons a pixel of each part: `brightness` (P,) times `response` (P, R) over c in [0, 1], linear between."""
    last = response.shape[1] - 1
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            place = min(max(contents[i, k], 0.0), 1.0) * last
            j = min(int(place), last - 1)
            part = place - j
            out[i, k] = brightness[i] * (response[i, j] * (1.0 - part) + response[i, j + 1] * part)


@njit(**JIT)
def add_scaled(weight: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """out += weight * values, over the length of `out`."""
    for x in range(out.shape[0]):
        out[x] += weight * values[x]


@njit(**JIT)
def add_four(
    weights: np.ndarray, one: np.ndarray, two: np.ndarray, three: np.ndarray, four: np.ndarray, out: np.ndarray
) -> None:
    """out += the four arrays times their weights, over the length of `out`."""
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for x in range(out.shape[0]):
        out[x] += (a * one[x] + b * two[x]) + (c * three[x] + d * four[x])


@njit(**JIT)
def blur(image: np.ndarray, taps: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> None:
    """Convolve (h, w) float32 with symmetric odd `taps` along both axes; outside the image is 0. Same shapes."""
    height, width = image.shape
    half = taps.shape[0] // 2
    scratch[:] = np.float32(0.0)
    out[:] = np.float32(0.0)
    for y in range(height):
        for t in range(-half, half + 1):
            first, end = max(0, -t), min(width, width - t)
            if end > first:
                add_scaled(taps[t + half], image[y][first + t : end + t], scratch[y][first:end])
    for y in range(height):
        for t in range(max(-half, -y), min(half, height - 1 - y) + 1):
            add_scaled(taps[t + half], scratch[y + t], out[y])


@njit(**JIT)
def add_sprite(scene: np.ndarray, top: int, left: int, sprite: np.ndarray, amount: float) -> None:
    """Add the (h, w) image `sprite` times `amount` to `scene` with its pixel (0, 0) at (top, left); must fit."""
    for y in range(sprite.shape[0]):
        add_scaled(amount, sprite[y], scene[top + y][left : left + sprite.shape[1]])


@njit(**JIT)
def relight(
    scene: np.ndarray,
    images: np.ndarray,
    start: np.ndarray,
    top: np.ndarray,
    left: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    light: np.ndarray,
    shown: np.ndarray,
    tolerance_e: float,
    first: int,
    budget: int,
) -> int:
    """Bring the scene up to `light` (P, K) where a part is off by more than `tolerance_e`, at most `budget` particles.

    Part k of particle i is an (height[i, k], width[i, k]) image within the flat `images` from start[i, k], at
    (top[i, k], left[i, k]) of the scene. `shown` (P, K) is the light now in the scene. Goes round from particle
    `first`; returns the one to begin with next time.
    """
    count, parts = light.shape
    done = 0
    for n in range(count):
        i = (first + n) % count
        worst = np.float32(0.0)
        for k in range(parts):
            worst = max(worst, abs(light[i, k] - shown[i, k]))
        if worst <= tolerance_e:
            continue
        if done == budget:
            return i
        for k in range(parts):
            amount = light[i, k] - shown[i, k]
            if amount != 0.0:
                tall, wide = height[i, k], width[i, k]
                sprite = images[start[i, k] : start[i, k] + tall * wide].reshape((tall, wide))
                add_sprite(scene, top[i, k], left[i, k], sprite, amount)
                shown[i, k] = light[i, k]
        done += 1
    return first


@njit(**JIT)
def gather_rows(scene: np.ndarray, row: int, col: int, taps: np.ndarray, out: np.ndarray) -> None:
    """out[x] = sum over i of taps[i] * scene[row + i, col + x]."""
    out[:] = np.float32(0.0)
    end, i = col + out.shape[0], 0
    while i + 4 <= taps.shape[0]:  # four at a time: half of the time goes into loading and storing `out`
        one, two = scene[row + i][col:end], scene[row + i + 1][col:end]
        three, four = scene[row + i + 2][col:end], scene[row + i + 3][col:end]
        add_four(taps[i : i + 4], one, two, three, four, out)
        i += 4
    while i < taps.shape[0]:
        add_scaled(taps[i], scene[row + i][col:end], out)
        i += 1


@njit(**JIT)
def gather_columns(line: np.ndarray, taps: np.ndarray, out: np.ndarray) -> None:
    """out[x] = sum over j of taps[j] * line[x + j]."""
    out[:] = np.float32(0.0)
    j = 0
    while j + 4 <= taps.shape[0]:
        add_four(taps[j : j + 4], line[j:], line[j + 1 :], line[j + 2 :], line[j + 3 :], out)
        j += 4
    while j < taps.shape[0]:
        add_scaled(taps[j], line[j:], out)
        j += 1


@njit(**JIT)
def digitise(
    light: np.ndarray,
    field: np.ndarray,
    strength: float,
    noise: np.ndarray,
    full_scale: float,
    gain: float,
    read_noise_e: float,
    dark_dn: float,
    out: np.ndarray,
) -> None:
    """A line of pixels: electrons = light * field * strength, noise of their variance, DN rounded and clipped."""
    zero, half = np.float32(0.0), np.float32(0.5)
    read_variance, per_e = read_noise_e * read_noise_e, np.float32(1.0) / gain
    for x in range(out.shape[0]):
        electrons = max(light[x] * field[x] * strength, zero)
        value = (electrons + math.sqrt(electrons + read_variance) * noise[x]) * per_e + dark_dn + half
        out[x] = np.int32(min(max(value, zero), full_scale + half))


@njit(**JIT)
def gather_line(
    scene: np.ndarray,
    row0: int,
    col0: int,
    y: int,
    taps_y: np.ndarray,
    taps_x: np.ndarray,
    line: np.ndarray,
    width: int,
) -> np.ndarray:
    """Line `y` of the moved and defocused scene (see `expose`); returns it as a view of `line`."""
    across, settled = line[0, : width + taps_x.shape[0] - 1], line[1, :width]
    gather_rows(scene, row0 + y, col0, taps_y, across)
    gather_columns(across, taps_x, settled)
    return settled


@njit(**JIT)
def gather(
    scene: np.ndarray, row0: int, col0: int, taps_y: np.ndarray, taps_x: np.ndarray, line: np.ndarray, out: np.ndarray
) -> None:
    """The moved and defocused scene alone, into `out` (H, W) float32; arguments as of `expose`."""
    for y in range(out.shape[0]):
        out[y] = gather_line(scene, row0, col0, y, taps_y, taps_x, line, out.shape[1])


@njit(**JIT)
def expose(
    scene: np.ndarray,
    row0: int,
    col0: int,
    taps_y: np.ndarray,
    taps_x: np.ndarray,
    field: np.ndarray,
    strength: float,
    pool: np.ndarray,
    offsets: np.ndarray,
    full_scale: float,
    gain: float,
    read_noise_e: float,
    dark_dn: float,
    line: np.ndarray,
    out: np.ndarray,
) -> None:
    """Take one picture: move and defocus the scene, light it, add noise, quantise.

    Pixel (y, x) gathers scene[row0 + y + i, col0 + x + j] with weights taps_y[i] * taps_x[j]; times `field` (H, W) and
    `strength` that makes its electrons. Noise of variance electrons + read_noise_e^2 comes from the unit normal `pool`,
    row y starting at `offsets[y]`. DN = dark_dn + electrons / gain, rounded, 0 to `full_scale`, into `out` (H, W) uint8
    or uint16. `line` is scratch, (2, at least W + len(taps_x) - 1); every float is float32.
    """
    for y in range(out.shape[0]):
        light = gather_line(scene, row0, col0, y, taps_y, taps_x, line, out.shape[1])
        noise = pool[offsets[y] : offsets[y] + out.shape[1]]
        digitise(light, field[y], strength, noise, full_scale, gain, read_noise_e, dark_dn, out[y])


@njit(**JIT)
def add_hot(out: np.ndarray, rows: np.ndarray, columns: np.ndarray, extra_dn: np.ndarray, full_scale: float) -> None:
    """Raise the pixels at (rows, columns) by `extra_dn`, up to `full_scale`."""
    for i in range(rows.shape[0]):
        out[rows[i], columns[i]] = min(out[rows[i], columns[i]] + extra_dn[i], full_scale)


@njit(**JIT)
def pack_12p(pixels: np.ndarray, out: np.ndarray) -> None:
    """Pack flat 12-bit values two to three bytes, least significant first (PFNC Mono12p); `out` is uint8."""
    pairs = pixels.shape[0] // 2
    for i in range(pairs):
        low, high = pixels[2 * i], pixels[2 * i + 1]
        out[3 * i] = low & 0xFF
        out[3 * i + 1] = (low >> 8) | ((high & 0xF) << 4)
        out[3 * i + 2] = high >> 4
    if pixels.shape[0] % 2:
        out[3 * pairs] = pixels[2 * pairs] & 0xFF
        out[3 * pairs + 1] = pixels[2 * pairs] >> 8
