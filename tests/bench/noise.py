"""Gain, read noise and dark level from frames alone, on true Poisson scenes with steady and with changing light."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.engine.measures import NoiseModel
from daemon.engine.transfer import TransferSums
from daemon.photometry.noise import NoiseHints, resolve_noise
from tests.bench.figures import Figure, at_most
from tests.scenes import PoissonScene

SEEDS = range(201, 206)
SHAPE = (600, 960)
FRAMES = 434
"""What the offline analysis samples of a longer recording of this size."""
READ_NOISES_E = (7.0, 3.5, 12.0, 7.0, 5.0)
"""One a seed: the typical one alone would flatter the assumption."""

NAMES = ("gain", "read noise", "dark level", "noise of a background pixel")
Light = Callable[[int], float]


def run() -> list[Figure]:
    """Five seeds no test uses; light that is steady, and that ripples by 5 %."""
    steady = _errors(lambda n: 1.0)
    rippled = _errors(lambda n: 1.0 + 0.05 * np.sin(0.9 * n))
    return [
        *_figures("steady light", steady),
        *_figures("light that ripples by 5 %", rippled),
    ]


def _errors(light: Light) -> dict[str, list[tuple[float, float, str]]]:
    """Of each value, a seed: relative error and standard deviation in per cent, and origin."""
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in NAMES}
    for seed, read_noise_e in zip(SEEDS, READ_NOISES_E, strict=True):
        scene = PoissonScene(
            seed=seed, height=SHAPE[0], width=SHAPE[1], particles=120, radius_px=(7, 16), read_noise_e=read_noise_e
        )
        noise = _estimated(scene, light)
        values = (
            (noise.gain_e_per_dn, scene.gain_e_per_dn, noise.gain_sigma_e_per_dn, noise.gain_origin),
            (noise.read_noise_e, scene.read_noise_e, noise.read_noise_sigma_e, noise.read_noise_origin),
            (noise.dark_dn, scene.dark_dn, noise.dark_sigma_dn, noise.dark_origin),
            (
                _sigma_e(noise, scene),
                np.sqrt(scene.background_e + read_noise_e**2 + scene.gain_e_per_dn**2 / 12),
                0,
                "",
            ),
        )
        for errors, (value, truth, sigma, origin) in zip(found.values(), values, strict=True):
            errors.append((100 * (value / truth - 1), 100 * float(sigma or 0.0) / truth, origin))
    return found


def _sigma_e(noise: NoiseModel, scene: PoissonScene) -> float:
    """Noise of a background pixel as the estimated model has it: what photometry makes of the three values."""
    dn = scene.background_e / scene.gain_e_per_dn + scene.dark_dn
    variance = noise.gain_e_per_dn * (dn - noise.dark_dn) + noise.read_noise_e**2 + noise.gain_e_per_dn**2 / 12
    return float(np.sqrt(variance))


def _estimated(scene: PoissonScene, light: Light) -> NoiseModel:
    mean, sums = scene.mean_e(), TransferSums(SHAPE)
    for n in range(FRAMES):
        sums.add(scene.expose(mean * light(n)))
    return resolve_noise(NoiseHints(), sums.result(), scene.bit_depth)


def _figures(light: str, errors: dict[str, list[tuple[float, float, str]]]) -> list[Figure]:
    """Worst of five beside the goal, and every seed's error with its own uncertainty."""
    figures = []
    for name, rows in errors.items():
        worst = max(abs(error) for error, _, _ in rows)
        figures.append(at_most(f"{light}: {name}, worst relative error", worst, 5.0, "%"))
        if not rows[0][2]:
            continue
        told = ", ".join(f"{error:+.2g}+-{sigma:.2g}" for error, sigma, _ in rows)
        origins = "/".join(sorted({origin for _, _, origin in rows}))
        figures.append(Figure(f"  each seed, % ({origins})", told, ""))
    return figures
