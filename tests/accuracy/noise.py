"""Noise of a static scene, exposure by exposure, against the CCD equation; what of the ring's cost is bought back."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.plain import rings
from tests.accuracy.subject import Measuring, Subject
from tests.bench.figures import Figure, at_least, at_most, between
from tests.scenes import PoissonScene

TITLE = "Static noise"
INTRO = """\
A static scene of 24 particles of 5 to 16 px radius, one exposure a frame. The bound is the CCD equation for the
true outline as a hard mask and a ring from 2 to 5 px beyond it; it and the measured scatter are relative to each
one's own net flux. Noise that is slower than the watch (a background smoothed over time, say) does not show in a
scatter: it does in the means of a second further down."""
RADII_PX = (8.0, 14.0, 25.0)
PLAIN_EVERY = 8
"""The plain pipeline is slow; the scatter of an eighth of the frames is known well enough."""


def run(effort: Effort) -> list[Figure]:
    """The headline and its parts."""
    found, true, plain, sigma, back = [], [], [], [], []
    missed = total = 0
    for seed in effort.seeds:
        scene = PoissonScene(seed=seed, height=296, width=384, particles=24, radius_px=(5, 16))
        subject = Subject(scene)
        watched = _Watched(subject, effort.static_frames)
        found.append((watched.ours / subject.bound)[subject.matched])
        sigma.append(watched.sigma_ratio[subject.matched])
        true.append(watched.ours_on_true / watched.bound)
        plain.append((watched.plain / subject.bound)[subject.matched])
        back.append(watched.bought_back())
        missed += scene.count - int(subject.matched.sum())
        total += scene.count
    ratio, peers = np.concatenate(found), np.concatenate(plain)
    own = 100 / np.sqrt(2 * effort.static_frames)
    return [
        at_most("contrast noise over the bound, median", median(ratio), 0.95, plain=f"{median(peers):.2f}"),
        at_most("  95th percentile", p95(ratio), 1.05, plain=f"{p95(peers):.2f}"),
        Figure("  with true outlines as masks, median", f"{median(np.concatenate(true)):.2f}", ""),
        Figure("  with true outlines as masks, 95th percentile", f"{p95(np.concatenate(true)):.2f}", ""),
        between("reported contrast_sigma over true scatter, median", median(np.concatenate(sigma)), 0.95, 1.05),
        Figure(
            f"  5th and 95th percentile ({own:.0f} % rms of it is the scatter's own)", _range(np.concatenate(sigma)), ""
        ),
        at_least("share of the ring's noise cost bought back, median", median(np.concatenate(back)), 0.5, digits=2),
        Figure("particles of the scenes that were not found", f"{missed} of {total}", ""),
        *_by_radius(effort),
    ]


class _Watched:
    """Relative scatters (P,) of one static scene's frames, each pipeline's on the same frames."""

    def __init__(self, subject: Subject, frames: int) -> None:
        scene, mean_e = subject.scene, subject.scene.mean_e()
        true, plain = Subject(scene, found=False, stream=1), subject.plain()
        ideal = _Ideal(scene, mean_e)
        measuring = [Measuring(one.pipeline(1.0), 0.01) for one in (subject, true)]
        self._sums, peers = [], []
        for k in range(frames):
            dn = subject.expose(mean_e)
            self._sums.append(ideal(dn))
            if k % PLAIN_EVERY == 0:
                peers.append(plain(dn)[0])
            for one in measuring:
                one.add(dn)
        series = [one.finish() for one in measuring]
        self.ours, self.ours_on_true = (scatter(one.flux_e) for one in series)
        self.sigma_ratio = (series[0].sigma_e / series[0].flux_e).mean(axis=0) / self.ours
        self.plain = scatter(np.array(peers))
        self.bound = true.bound

    def bought_back(self) -> np.ndarray:
        """(P,) share of the distance from a ring each frame to a perfectly known background, on true outlines."""
        known, ring = np.array(self._sums).transpose(1, 0, 2)
        net = ring.mean(axis=0)
        cost = ring.std(axis=0, ddof=1) / net
        ideal = known.std(axis=0, ddof=1) / net
        return (cost - self.ours_on_true) / (cost - ideal)


class _Ideal:
    """Hard true masks with the background known, and with a ring's mean each frame."""

    def __init__(self, scene: PoissonScene, mean_e: np.ndarray) -> None:
        labels = scene.labels()
        self._labels, self._rings, self._count = labels.ravel(), rings(labels, scene.count).ravel(), scene.count + 1
        self._share = (
            np.bincount(self._labels, minlength=self._count)[1:] / np.bincount(self._rings, minlength=self._count)[1:]
        )

    def __call__(self, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mask sums (P,) and mask sums minus ring means (P,)."""
        mask = np.bincount(self._labels, dn.ravel(), self._count)[1:]
        return mask, mask - self._share * np.bincount(self._rings, dn.ravel(), self._count)[1:]


def _by_radius(effort: Effort) -> list[Figure]:
    figures = []
    for radius in RADII_PX:
        runs = [_of_radius(seed, radius, effort.static_frames // 4) for seed in effort.seeds]
        ours, plain, bound = np.concatenate(runs, axis=1)
        name = f"noise of one exposure, radius {radius:.0f} px (bound {median(bound):.1e}), median"
        figures.append(Figure(name, f"{median(ours):.1e}", "", plain=f"{median(plain):.1e}"))
        figures.append(at_most("  over the bound", median(ours / bound), 0.95))
    return figures


def _of_radius(seed: int, radius: float, frames: int) -> np.ndarray:
    """(3, P): scatters, the plain pipeline's, and bounds of particles of one radius."""
    height, width = round(160 + 14 * radius), round(180 + 16 * radius)
    scene = PoissonScene(seed=seed, height=height, width=width, particles=9, radius_px=(radius, radius))
    subject, mean_e = Subject(scene), scene.mean_e()
    plain, measuring, peers = subject.plain(), Measuring(subject.pipeline(1.0), 0.01), []
    for k in range(frames):
        dn = subject.expose(mean_e)
        measuring.add(dn)
        if k % PLAIN_EVERY == 0:
            peers.append(plain(dn)[0])
    scatters = [scatter(measuring.finish().flux_e), scatter(np.array(peers)), subject.bound]
    return np.array(scatters)[:, subject.matched]


def scatter(flux: np.ndarray) -> np.ndarray:
    """(P,) relative standard deviation of (N, P) fluxes."""
    return flux.std(axis=0, ddof=1) / flux.mean(axis=0)


def median(values: np.ndarray) -> float:
    return float(np.median(values))


def p95(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))


def _range(values: np.ndarray) -> str:
    return f"{np.percentile(values, 5):.2f}, {np.percentile(values, 95):.2f}"
