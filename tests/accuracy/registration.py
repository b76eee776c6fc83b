"""Drift: against Cramér-Rao for a reference as noisy as the frame, and against brightening."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.illumination import rms
from tests.accuracy.subject import Subject
from tests.bench.figures import Figure, at_most
from tests.disturbed import Stage
from tests.scenes import PoissonScene

TITLE = "Registration"
INTRO = """\
24 particles of 5 to 16 px radius in 296 x 384 px. The reference is the mean of 50 exposures, as in a run, and every
frame stands somewhere else, up to half a pixel away. The bound is Cramér-Rao's for the whole frame and a reference as
noisy as a frame: J = sum of grad R grad R' / v on the true mean, covariance 2 / J. A better reference beats it."""
PRODUCT_REFERENCE = 50
FRAMES = 8


def run(effort: Effort) -> list[Figure]:
    """Errors over bounds, and motion that is none."""
    one = [_Errors(seed, effort.references, 1) for seed in effort.seeds]
    many = [_Errors(seed, max(effort.references // 4, 1), PRODUCT_REFERENCE) for seed in effort.seeds]
    equal = [np.sqrt(2.0) * e.known_px for e in many]
    ratio = [rms(e.error / bound) for e, bound in zip(many, equal, strict=True)]
    peer = [rms(e.plain / bound) for e, bound in zip(many, equal, strict=True)]
    single = [rms(e.error / (np.sqrt(2.0) * e.known_px)) for e in one]
    own = [rms(e.error / (np.sqrt(1.0 + 1.0 / PRODUCT_REFERENCE) * e.known_px)) for e in many]
    as_shipped = rms(np.concatenate([e.shipped / bound for e, bound in zip(many, equal, strict=True)]))
    figures = [
        at_most("RMSE over the bound of a reference as noisy as a frame, all seeds", rms(np.array(ratio)), 1.0,
                plain=f"{rms(np.array(peer)):.1f}"),
        Figure("  worst seed", f"{max(ratio):.2f}", ""),
        Figure("  that bound", f"{1e3 * np.mean(equal):.2f}e-3 px", ""),
        Figure("  phase_cross_correlation as scikit-image ships it", "", "", plain=f"{as_shipped:.0f}"),
        Figure("  over its own bound, 1.02 / J", f"{rms(np.array(own)):.2f}", ""),
        Figure("  were the reference one exposure, over the first bound", f"{rms(np.array(single)):.2f}", ""),
    ]  # fmt: skip
    for name, worst, plain in _false_motion(effort):
        figures.append(at_most(f"false motion while {name}", worst, 0.01, "px", 4, plain=f"{plain:.3f} px"))
    return figures


class _Errors:
    """Errors (N, 2) of the drifts of one seed's scene, and the bound (2,) px of one frame and a known reference."""

    def __init__(self, seed: int, references: int, exposures: int) -> None:
        scene = PoissonScene(seed=seed, height=296, width=384, particles=24, radius_px=(5, 16))
        stage, rng = Stage(scene), np.random.default_rng([seed, 31])
        self.known_px = cramer_rao_px(stage)
        errors, plain, shipped = [], [], []
        for k in range(references):
            subject = Subject(scene, reference_exposures=exposures, stream=k)
            drifts = rng.uniform(-0.5, 0.5, (FRAMES, 2))
            frames = [subject.expose(stage.mean_e(drift)) for drift in drifts]
            errors.append(subject.measure(frames).drift_px - drifts)
            peer, image = subject.plain(upsampling=100), frames[0] - subject.expose.dark_dn
            plain.append(peer.drift_px(image) - drifts[0])
            shipped.append(peer.drift_px(image, "phase") - drifts[0])
        self.error, self.plain, self.shipped = np.concatenate(errors), np.array(plain), np.array(shipped)


def cramer_rao_px(stage: Stage) -> np.ndarray:
    """(2,) standard deviations of y and x for one exposure of the whole frame and a known reference."""
    scene = stage.scene
    variance = stage.mean_e() + scene.read_noise_e**2 + scene.gain_e_per_dn**2 / 12
    gradients = stage.gradients()
    information = [[np.sum(a * b / variance) for b in gradients] for a in gradients]
    return np.sqrt(np.diag(np.linalg.inv(information)))


def _false_motion(effort: Effort) -> list[tuple[str, float, float]]:
    """(what happens, largest error of a mean over ten exposures in px, the plain pipeline's)."""
    kinds = {
        "all brighten by 50 %": lambda scene, rng: np.ones(scene.count, bool),
        "half of the particles brighten by 50 %": lambda scene, rng: rng.random(scene.count) < 0.5,
        "those on the left brighten by 50 %": lambda scene, rng: scene.x_px < scene.width / 2,
    }
    rows = []
    for name, chosen in kinds.items():
        worst, peers = 0.0, 0.0
        for seed in effort.seeds:
            scene = PoissonScene(seed=seed, height=296, width=384, particles=24, radius_px=(5, 16))
            stage = Stage(scene, chosen(scene, np.random.default_rng([seed, 32])))
            subject = Subject(scene)
            plain = subject.plain(upsampling=100)
            for brightness in (1.0, 1.1, 1.25, 1.5):
                mean_e = stage.mean_e(brightness=(brightness,))
                dns = [subject.expose(mean_e) for _ in range(10)]
                worst = max(worst, np.abs(subject.measure(dns).drift_px.mean(axis=0)).max())
                peers = max(peers, np.abs(plain(dns[0])[1]).max())
        rows.append((name, float(worst), float(peers)))
    return rows
