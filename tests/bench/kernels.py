"""One frame's photometry beside what peers take for flux and ring alone, in the same run on the same frame."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import scipy.sparse

from tests.bench.figures import Figure
from tests.measuring import Rig
from tests.scenes import PoissonScene

REPEATS = 40


def _median_ms(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def run() -> list[Figure]:
    """600 x 960, 150 particles of radius 6-14 px, 12 bits."""
    scene = PoissonScene(seed=7, height=600, width=960, particles=150, radius_px=(6, 14))
    rig = Rig(scene)
    dn = scene.frame()
    frame_e = rig.calibrate(dn).copy()
    ours = _median_ms(lambda: rig.measure(dn))
    peers = {"scipy.sparse (mask and ring sums)": _sparse(rig, frame_e)}
    try:
        peers["SEP sum_circle with bkgann"] = _sep(scene, frame_e)
    except ImportError:
        print("SEP is not installed (dependency group bench): left out")
    read_ms = _median_ms(dn.max)
    figures = [
        Figure(
            "all of a frame: calibrate, register, illumination, flux, ring, 4 layers, centroid", f"{ours:.2f} ms", ""
        )
    ]
    for name, work in peers.items():
        peer = _median_ms(work)
        figures.append(Figure(f"{name}: flux and ring only", f"{peer:.2f} ms", "", None))
        figures.append(Figure("  ours, doing all of it, over that", f"{ours / peer:.2f}", ""))
    figures.append(Figure("reading the frame once", f"{read_ms:.2f} ms", ""))
    return figures


def _sparse(rig: Rig, frame_e: np.ndarray) -> Callable[[], object]:
    operator, pixels = rig.operator, frame_e.size
    owner = np.concatenate(
        [np.repeat(np.arange(p.size - 1) // 4, np.diff(p)) for p in (operator.pointer, operator.inner_pointer)]
    )
    weights = np.concatenate([operator.weights[0], np.ones(operator.inner_index.size, np.float32)])
    index = np.concatenate([operator.index, operator.inner_index])
    masks = scipy.sparse.csr_matrix((weights, (owner, index)), shape=(operator.particles, pixels))
    ones = np.ones(operator.ring_index.size, np.float32)
    rings = scipy.sparse.csr_matrix((ones, operator.ring_index, operator.ring_pointer), shape=masks.shape)
    return lambda: (masks @ frame_e, rings @ frame_e)


def _sep(scene: PoissonScene, frame_e: np.ndarray) -> Callable[[], object]:
    import sep

    image = frame_e.reshape(scene.height, scene.width)
    y, x, r = scene.y_px, scene.x_px, scene.radii_px + 4
    return lambda: sep.sum_circle(image, x, y, r, bkgann=(r + 2, r + 5))
