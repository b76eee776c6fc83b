"""Slow, obvious twins of the photometry kernels: one pixel at a time, in float64."""

from __future__ import annotations

import math

import numpy as np


def naive_electrons(dn, scale, dark):
    return np.array([float(s) * (float(n) - float(d)) for n, s, d in zip(dn, scale, dark, strict=True)])


def naive_accumulate(frame, total, square, previous):
    total, square = total.astype(float), square.astype(float)
    for i, value in enumerate(frame):
        total[i] += value
        square[i] += (float(value) - float(previous[i])) ** 2
    return total, square


def naive_weighted_sums(frame, index, weights, offset):
    return [math.fsum(float(w) * float(frame[i + offset]) for w, i in zip(row, index, strict=True)) for row in weights]


def naive_layer_sums(frame, rim, inner, offset, dy_px, dx_px, saturation_e, valid):
    """`rim` and `inner` are (index, rows, pointer) as the kernel takes them."""
    index, weights, pointer = rim
    inner_index, place, inner_pointer = inner
    out = np.full((len(pointer) - 1, 5), np.nan)
    for s in range(len(pointer) - 1):
        if not valid[s]:
            continue
        out[s] = 0.0
        for i in range(pointer[s], pointer[s + 1]):
            w, wy, wx, y, x = (float(v) for v in weights[:, i])
            e = float(frame[index[i] + offset])
            m = w - dy_px * wy - dx_px * wx
            out[s] += [m * e, m * m * e, y * m * e, x * m * e, float(e >= saturation_e and m > 0.5)]
        for i in range(inner_pointer[s], inner_pointer[s + 1]):
            y, x = (float(v) for v in place[:, i])
            e = float(frame[inner_index[i] + offset])
            out[s] += [e, e, y * e, x * e, float(e >= saturation_e)]
    return out


def naive_ring_means(frame, index, pointer, offset, valid):
    means = []
    for p in range(len(pointer) - 1):
        pixels = [float(frame[i + offset]) for i in index[pointer[p] : pointer[p + 1]]]
        means.append(math.fsum(pixels) / len(pixels) if valid[p] and pixels else math.nan)
    return np.array(means)


def naive_correlation(frame, width, index, template, base, reach):
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            pixels = np.array([float(frame[k + base + i * width + j]) for k in index])
            spread = math.sqrt(max(((pixels - pixels.mean()) ** 2).sum(), 0.0))
            out[i + reach, j + reach] = (pixels * template).sum() / spread if spread > 0 else 0.0
    return out


def naive_series(series, y, x):
    terms = [y, x, y * y, y * x, x * x, y**3, y * y * x, y * x * x, x**3]
    return np.array([sum(c * t for c, t in zip(row, terms, strict=True)) for row in series])
