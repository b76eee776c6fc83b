"""Focus and drift alone: how much of them is left in the flux of static particles."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.illumination import rms
from tests.accuracy.noise import median, p95
from tests.accuracy.subject import Subject
from tests.bench.figures import Figure, at_most
from tests.disturbed import Stage
from tests.scenes import PoissonScene

TITLE = "Focus and drift"
INTRO = """\
Static particles of 5 to 16 px radius. Focus: the blur of the whole picture goes from 1.5 to 2.0 px at once; means
of {means_frames} exposures before and after. Drift: the true mean without noise (dithered when digitised) at random
places up to a pixel away in y and x; masks and reference are from noisy exposures as always."""
SHARP_PX, BLURRED_PX = 1.5, 2.0


def run(effort: Effort) -> list[Figure]:
    """Relative changes of flux."""
    blurred = [_Blurred(seed, effort) for seed in effort.seeds]
    change, peer = (np.abs(np.concatenate([getattr(one, name) for one in blurred])) for name in ("change", "plain"))
    signed = np.concatenate([one.change for one in blurred])
    drifted = [_Drifted(seed, effort) for seed in effort.seeds]
    rest, peers = (np.concatenate([getattr(one, name) for one in drifted], axis=1) for name in ("change", "plain"))
    return [
        at_most("blur +33 %: change of flux, median", 100 * median(change), 0.3, "%", 3, f"{100 * median(peer):.2f} %"),
        at_most("  95th percentile", 100 * p95(change), 0.3, "%", 3, f"{100 * p95(peer):.2f} %"),
        Figure("  mean (sign kept)", f"{100 * signed.mean():+.3f} %", ""),
        Figure("drift up to a pixel: change of flux, rms", f"{rms(rest):.1e}", "", plain=f"{rms(peers):.1e}"),
        Figure("  largest", f"{np.abs(rest).max():.1e}", "", plain=f"{np.abs(peers).max():.1e}"),
        Figure("  rms up to 0.3 px", f"{rms(np.concatenate([one.near for one in drifted], axis=1)):.1e}", ""),
        Figure("  error of the drift, rms", f"{rms(np.concatenate([one.error_px for one in drifted])):.1e} px", ""),
    ]  # fmt: skip


def _scene(seed: int) -> PoissonScene:
    return PoissonScene(seed=seed, height=296, width=384, particles=24, radius_px=(5, 16), psf_sigma_px=SHARP_PX)


class _Blurred:
    """Relative change of each particle's flux when the focus is lost."""

    def __init__(self, seed: int, effort: Effort) -> None:
        scene = _scene(seed)
        stage, subject, n = Stage(scene), Subject(scene), effort.means_frames
        means = [stage.mean_e(), stage.mean_e(blur_px2=BLURRED_PX**2 - SHARP_PX**2)]
        dns = [subject.expose(mean_e) for mean_e in means for _ in range(n)]
        flux = subject.measure(dns).flux_e[:, subject.matched]
        self.change = flux[n:].mean(axis=0) / flux[:n].mean(axis=0) - 1.0
        plain = subject.plain()
        before, after = (np.mean([plain(dn)[0] for dn in part[:10]], axis=0) for part in (dns[:n], dns[n:]))
        self.plain = (after / before - 1.0)[subject.matched]


class _Drifted:
    """Relative changes (N, P) of flux over drifts, and the drifts' errors (N, 2)."""

    def __init__(self, seed: int, effort: Effort) -> None:
        scene = _scene(seed)
        stage, subject = Stage(scene), Subject(scene)
        rng = np.random.default_rng([seed, 41])
        drifts = rng.uniform(-1, 1, (effort.means_frames, 2))
        drifts[::2] *= 0.3
        at_rest = [subject.expose.noiseless(stage.mean_e()) for _ in range(10)]
        dns = [subject.expose.noiseless(stage.mean_e(drift)) for drift in drifts]
        series = subject.measure([*at_rest, *dns])
        flux, good = series.flux_e, subject.matched
        self.change = (flux[10:] / flux[:10].mean(axis=0) - 1.0)[:, good]
        self.near = self.change[::2]
        self.error_px = series.drift_px[10:] - drifts
        plain = subject.plain()
        rest, moved = plain(at_rest[0])[0], np.array([plain(dn)[0] for dn in dns[:40]])
        self.plain = (moved / rest - 1.0)[:, good]
