"""The lamp steps while the ensemble swings: what dead particles show."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.noise import median
from tests.accuracy.subject import Subject
from tests.bench.figures import Figure, at_most
from tests.disturbed import EXPOSURE_RATE_HZ, Stage
from tests.scenes import PoissonScene

TITLE = "A step of the lamp while the ensemble swings"
INTRO = """\
Of 24 particles six are dead, the others brighten steadily by 20 % while the lamp steps up by 1 % half way. What the
dead ones' contrast changes from the first half to the second is error. Ten exposures are summed into a frame; the
mean of each half has a noise well below the goal."""
SUMMED = 10
DEAD = 6


def run(effort: Effort) -> list[Figure]:
    """With the step and, to tell the step from the swing, without it."""
    stepped = [_Halves(seed, effort, step=0.01) for seed in effort.seeds]
    swung = [_Halves(seed, effort, step=0.0) for seed in effort.seeds]
    left, peer = (np.abs(np.concatenate([getattr(one, name) for one in stepped])) for name in ("change", "plain"))
    noise = median(np.concatenate([one.noise for one in stepped]))
    at_once = float(np.mean(np.concatenate([one.at_once for one in stepped])))
    alone = np.abs(np.concatenate([one.change for one in swung]))
    return [
        at_most("left in dead particles, rms", rms(left), 1e-4, digits=None, plain=f"{rms(peer):.1e}"),
        Figure("  largest", f"{left.max():.1e}", "", plain=f"{peer.max():.1e}"),
        Figure("  in the first second after the step, mean of all dead", f"{at_once:.1e}", ""),
        Figure("  noise of one such change", f"{noise:.1e}", ""),
        Figure(
            "  mean over a scene's dead, rms over scenes",
            f"{rms(np.array([one.change.mean() for one in stepped])):.1e}",
            "",
        ),
        Figure("  without the step (the swing alone), rms", f"{rms(alone):.1e}", ""),
    ]


class _Halves:
    """Change of the dead particles' contrast between the halves of one run."""

    def __init__(self, seed: int, effort: Effort, step: float) -> None:
        scene = PoissonScene(seed=seed, height=296, width=384, particles=24, radius_px=(5, 16))
        dead = np.zeros(scene.count, bool)
        dead[np.random.default_rng([seed, 21]).permutation(scene.count)[:DEAD]] = True
        stage, subject = Stage(scene, ~dead), Subject(scene, exposures=SUMMED)
        half = round(effort.step_s * EXPOSURE_RATE_HZ / SUMMED)
        swing = 1.0 + 0.2 * np.arange(2 * half) / (2 * half - 1)
        plain, peers = subject.plain(), []

        def frames():
            for k in range(2 * half):
                dn = subject.expose(stage.mean_e(illumination=1.0 + step * (k >= half), brightness=(swing[k],)))
                if k % 20 == 0:
                    peers.append(plain(dn)[0])
                yield dn

        series = subject.measure(frames())
        mine = (subject.of_scene(dead) == 1.0) & subject.matched
        contrast = series.contrast[:, mine]
        self.change = contrast[half:].mean(axis=0) - contrast[:half].mean(axis=0)
        second = round(EXPOSURE_RATE_HZ / SUMMED)
        self.at_once = contrast[half : half + second].mean(axis=0) - contrast[half - second : half].mean(axis=0)
        self.noise = subject.bound[mine] * np.sqrt(2.0 / half)
        peer = np.array(peers)[:, mine]
        middle = len(peer) // 2
        self.plain = peer[middle:].mean(axis=0) / peer[:middle].mean(axis=0) - 1.0


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
