"""Noise against the mask-and-ring bound and registration against Cramer-Rao, on true Poisson scenes."""

from __future__ import annotations

import numpy as np

from tests.bench.figures import Figure, at_most
from tests.measuring import Rig, mask_and_ring_bound, operator_of
from tests.scenes import PoissonScene

SEEDS = range(101, 106)
FRAMES = 150


def run() -> list[Figure]:
    """Five seeds no test uses."""
    noise, sigma, registration = [], [], []
    for seed in SEEDS:
        scene = PoissonScene(seed=seed, height=420, width=560, particles=50, radius_px=(7, 16))
        operator = operator_of(scene)
        mean = scene.mean_e()
        flux, reported, _ = Rig(scene, operator).series(scene.expose(mean) for _ in range(FRAMES))
        scatter = flux.std(axis=0, ddof=1)
        noise.append(scatter / flux.mean(axis=0) / mask_and_ring_bound(scene))
        sigma.append(reported.mean(axis=0) / scatter)
        drifts = np.random.default_rng(seed).uniform(-0.5, 0.5, (40, 2))
        _, _, found = Rig(scene, operator).series(scene.frame(tuple(d)) for d in drifts)
        rmse = np.sqrt(((found - drifts) ** 2).mean(axis=0))
        registration.append(rmse / np.sqrt(np.diag(operator.shift_covariance)))
    ratio = np.concatenate(noise)
    return [
        at_most("static noise over the mask-and-ring bound, median", float(np.median(ratio)), 1.25),
        Figure("  the same, 95th percentile", f"{np.percentile(ratio, 95):.2f}", ""),
        Figure("reported sigma over true scatter, median", f"{np.median(np.concatenate(sigma)):.3f}", ""),
        at_most("registration RMSE over its Cramer-Rao bound, worst axis and seed", float(np.max(registration)), 2.0),
    ]
