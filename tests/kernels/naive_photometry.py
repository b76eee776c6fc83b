"""Slow, obvious twins of the photometry kernels: one pixel at a time, in Python's whole numbers or float64."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np

from kernels import photometry as ph

LARGEST = 2**15 - 1
SIZE, RADIUS_PX, SIGMA_PX = 80, 11.0, 1.5
FREQUENCY = 2j * np.pi * np.fft.fftfreq(SIZE)
KY, KX = FREQUENCY[:, None], FREQUENCY[None, :]


def naive_accumulate(frame, total, square, previous):
    total, square = total.astype(float), square.astype(float)
    for i, value in enumerate(frame):
        total[i] += value
        square[i] += (float(value) - float(previous[i])) ** 2
    return total, square


def naive_collect(pixels, index, shift=0):
    return [min(int(pixels[i]) >> shift, LARGEST) for i in index]


def span_pixels(start):
    return [int(s) + lane for s in start for lane in range(8)]


def naive_scale(values, left, scale):
    return [math.floor(int(v) * 2**left * int(s) / 2**15 + 0.5) for v, s in zip(values, scale, strict=True)]


def naive_repair(values, places, donors):
    out = [int(v) for v in values]
    for place, four in zip(places, donors, strict=True):
        out[place] = math.floor(sum(int(v) for v in four) / 4 + 0.5)
    return out


def naive_weighted_sums(values, weights, first, pointer):
    rows = zip(first, itertools.pairwise(pointer), strict=True)
    return [sum(int(weights[j]) * int(values[f + j - start]) for j in range(start, end)) for f, (start, end) in rows]


def naive_saturated(values, weights, first, pointer, group, rows, shares, limit):
    """Every share of a pixel counts, in whichever of its group's first rows it lies."""
    flags = []
    for p, (start, end) in enumerate(itertools.pairwise(group)):
        share = dict.fromkeys(range(start, end), 0)
        for r in range(rows * p, rows * p + shares):
            for j in range(pointer[r], pointer[r + 1]):
                share[first[r] + j - pointer[r]] += int(weights[j])
        flags.append(any(values[i] >= limit and share[i] / 127 > 0.5 for i in share))
    return flags


def naive_plane_sums(values, u, v):
    span = [float(sum(int(x) for x in values[8 * j : 8 * j + 8])) for j in range(len(u))]
    return [math.fsum(span)] + [math.fsum(float(c) * s for c, s in zip(w, span, strict=True)) for w in (u, v)]


def naive_correlation(frame, width, index, template, reach):
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            pixels = np.array([float(frame[k + i * width + j]) for k in index])
            spread = math.sqrt(max(((pixels - pixels.mean()) ** 2).sum(), 0.0))
            out[i + reach, j + reach] = (pixels * template).sum() / spread if spread > 0 else 0.0
    return out


def naive_series(series, y, x):
    terms = [y, x, y * y, y * x, x * x, y**3, y * y * x, y * x * x, x**3]
    return np.array([sum(c * t for c, t in zip(row, terms, strict=True)) for row in series])


def naive_changes(taylor, moved):
    return [math.fsum(float(t) * float(m) for t, m in zip(column, moved, strict=True)) for column in taylor.T]


def naive_light(p, sums, dark_sums, scale, unit):
    """Electrons behind each of a particle's sums of counts."""
    return [unit * (scale[p, k] * float(sums[p, k]) - dark_sums[p, k]) for k in range(ph.SUMS)]


def naive_fluxes(
    sums, dark_sums, scale, weight_sums, taylor, reference_flux, reference_bend, layer_noise, calibration, drift, moved,
    gain, gain_variance, background, valid,
):  # fmt: skip
    out = np.full((len(sums), ph.MEASURES), np.nan)
    axial, inner = range(ph.AXIAL_BINS), range(ph.OUTER, ph.OUTER + 3)
    for p in np.flatnonzero(valid):
        light = [e / gain[p] for e in naive_light(p, sums, dark_sums, scale, calibration[0])]
        area, (level, level_variance) = weight_sums[p], background[p, :2]
        change = naive_changes(taylor[p], moved)
        bend = [reference_bend[p, 0] + change[ph.BEND_Y], reference_bend[p, 1] + change[ph.BEND_X]]

        def bent(total, y, x):
            """A total under the mask that followed the drift, from the one that stood still."""
            return total - drift[0] * y - drift[1] * x

        for j, k in enumerate((ph.BEND_Y, ph.BEND_X)):  # of blur times drift half: the mask's edge moves on the way
            third = taylor[p, 5:9, k].astype(float)
            mixed = -moved[9] * (drift[0] * (third[0] + third[2]) + drift[1] * (third[1] + third[3]))
            bend[j] -= 0.5 * mixed
        bent_area = bent(sum(area[k] for k in axial), area[ph.BEND_Y], area[ph.BEND_X])
        raw = bent(sum(light[k] for k in axial), light[ph.BEND_Y], light[ph.BEND_X]) - level * bent_area
        brightness = raw / reference_flux[p] if reference_flux[p] else math.inf
        brightness = brightness if 0.1 < brightness < 10.0 else 0.0
        net = [light[k] - brightness * change[k] - level * area[k] for k in range(ph.SHIFT_Y)]
        flux = raw - brightness * bent(sum(change[k] for k in axial), *bend)
        out[p, ph.AXIAL : ph.AXIAL + ph.AXIAL_BINS] = [net[k] for k in axial]
        layers = [net[k] for k in inner]
        out[p, ph.LAYER : ph.LAYER + 4] = [flux - sum(layers), *layers]
        areas = [bent_area - sum(area[k] for k in inner), *(area[k] for k in inner)]
        values = out[p, ph.LAYER : ph.LAYER + 4]
        own = [
            (max(share * (value + level * pixels) * gain[p], 0.0) + calibration[1] * squares) / gain[p] ** 2
            for value, pixels, (share, squares) in zip(values, areas, layer_noise[p], strict=True)
        ]
        out[p, ph.LAYER_SIGMA : ph.LAYER_SIGMA + 4] = np.sqrt(np.array(own) + np.array(areas) ** 2 * level_variance)
        out[p, ph.FLUX] = flux
        out[p, ph.SIGMA] = math.sqrt(
            sum(own) + bent_area**2 * level_variance + (flux + level * bent_area) ** 2 * gain_variance[p]
        )
        out[p, ph.CENTROID_Y], out[p, ph.CENTROID_X] = net[ph.MOMENT_Y] / flux, net[ph.MOMENT_X] / flux
    return out


def naive_shift_sums(sums, dark_sums, scale, weight_sums, leak, calibration, gain, background, valid):
    out = np.zeros(4)
    for p in np.flatnonzero(valid):
        light = naive_light(p, sums, dark_sums, scale, calibration[0])
        net = [light[k] / gain[p] - background[p, 0] * weight_sums[p, k] for k in range(ph.SUMS)]
        flux = sum(net[k] for k in range(ph.AXIAL_BINS))
        out += [net[ph.SHIFT_Y + j] - leak[p, j] * flux for j in range(4)]
    return out


def naive_ring_levels(sums, dark, count, taylor, calibration, moved, gain):
    unit, floor = calibration
    out = np.full((2, len(count)), np.nan)
    for p in np.flatnonzero(count):
        level = unit * (float(sums[p]) / float(count[p]) - dark[p])
        out[0, p] = level / gain[p] - naive_changes(taylor[p, :, None], moved)[0]
        out[1, p] = (max(level, 0.0) + floor) / count[p] / gain[p] ** 2
    return out


def naive_deblend(pointer, neighbour, share, measures):
    out = measures.astype(float)
    for p in range(len(measures)):
        pairs = range(pointer[p], pointer[p + 1])
        foreign = sum(float(share[j]) * float(measures[neighbour[j], ph.FLUX]) for j in pairs)
        if math.isfinite(foreign):
            out[p, ph.FLUX] -= foreign
            out[p, ph.LAYER] -= foreign
    return out


def naive_follow(measured, variance, usable, memory_most, state):
    """One particle's (level, variance, memory, lag, struck) after one more frame."""
    if not usable or not math.isfinite(measured) or not variance > 0.0:
        return state
    level, level_variance, memory, lag, struck = state
    anew = (measured, variance, 1.0, 0.0, 0.0)
    if memory < 1.0:
        return anew
    sigma = math.sqrt(variance + level_variance)
    ratio = (measured - level) / sigma
    struck = struck + 1.0 if abs(ratio) > 6.0 else 0.0
    if struck >= 3.0:
        return anew
    ratio = min(max(ratio, -4.0), 4.0)
    if memory >= 8.0:
        lag += 4.0 / memory * (ratio - lag)
        if abs(lag) > 3.2 * math.sqrt(2.0 / memory):
            lag, level_variance, memory = 0.0, level_variance / 0.7, max(0.7 * memory, 8.0)
    share = 1.0 / (memory + 1.0)
    level_variance = (1.0 - share) ** 2 * level_variance + share**2 * variance
    return level + share * ratio * sigma, level_variance, min(memory + 1.0, memory_most), lag, struck


def _filtered(image, factor):
    return np.fft.ifft2(np.fft.fft2(image) * factor).real


def moved_scene(image, dy, dx, blur):
    """Shifted by Fourier's ramp and blurred by a Gaussian of variance `blur`: exact for a band-limited image."""
    return _filtered(image, np.exp(-KY * dy - KX * dx + 0.5 * blur * (KY**2 + KX**2)))


@cache
def disc():
    """(background, particle) in electrons, without any structure that pixels could not carry."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
    sharp = np.where(np.hypot(y + 0.3, x - 0.2) < RADIUS_PX, 12_000.0, 0.0)
    return np.full((SIZE, SIZE), 5_000.0), _filtered(sharp, np.exp(0.5 * SIGMA_PX**2 * (KY**2 + KX**2)))


def derivatives(image, anchor):
    """(TERMS, H, W): each derivative by its factor in the spectrum; the blur's rest by what `anchor` really does."""
    terms = [_filtered(image, KY ** name.count("y") * KX ** name.count("x")) for name in ph.DERIVATIVES[:-2]]
    laplace = _filtered(image, KY**2 + KX**2)
    rest = moved_scene(image, 0.0, 0.0, anchor) - image - 0.5 * anchor * laplace
    return np.stack([*terms, laplace, rest / anchor**2])
