"""The renderer's kernels written the slow, obvious way."""

import numpy as np


def naive_part_contents(c, c_surface, fraction, phase_lo, phase_hi, invader, parts):
    out = np.empty((len(c), parts))
    for i in range(len(c)):
        for k in range(parts):
            u0, u1 = k / parts, (k + 1) / parts
            if np.isnan(fraction[i]):
                out[i, k] = c[i] + (c_surface[i] - c[i]) * (1 - (u0 + u1))
                continue
            poor_first = invader[i] > 0.5
            edge = 1 - fraction[i] if poor_first else fraction[i]
            inside = max(0.0, min(u1, edge) - u0) * parts  # of this part's width
            first, last = (phase_lo[i], phase_hi[i]) if poor_first else (phase_hi[i], phase_lo[i])
            out[i, k] = inside * first + (1 - inside) * last
    return out


def naive_part_light(contents, response, brightness):
    grid = np.linspace(0, 1, response.shape[1])
    return np.array([b * np.interp(c, grid, r) for c, r, b in zip(contents, response, brightness, strict=True)])


def naive_blur(image, taps):
    half = len(taps) // 2
    padded = np.pad(image.astype(float), half)
    for axis in (0, 1):
        padded = np.apply_along_axis(lambda line: np.convolve(line, taps, mode="same"), axis, padded)
    return padded[half : half + image.shape[0], half : half + image.shape[1]]


def naive_gather(scene, row0, col0, taps_y, taps_x, shape):
    out = np.zeros(shape)
    for i, a in enumerate(taps_y):
        for j, b in enumerate(taps_x):
            out += float(a) * float(b) * scene[row0 + i : row0 + i + shape[0], col0 + j : col0 + j + shape[1]]
    return out


def naive_digitise(light, field, strength, noise, full_scale, gain, read_noise_e, dark_dn):
    electrons = np.maximum(light.astype(float) * field * strength, 0)
    noisy = electrons + np.sqrt(electrons + read_noise_e**2) * noise
    return np.floor(np.clip(noisy / gain + dark_dn + 0.5, 0, full_scale + 0.5)).astype(int)


def naive_pack_12p(pixels):
    bits = "".join(f"{int(p):012b}"[::-1] for p in pixels)
    bits += "0" * (-len(bits) % 8)
    return np.array([int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8)], np.uint8)
