"""A neighbour brightens: what the quiet particle beside it shows."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.noise import median
from tests.accuracy.subject import Subject
from tests.bench.figures import Figure
from tests.disturbed import Stage
from tests.scenes import PoissonScene

TITLE = "Neighbours"
INTRO = """\
Pairs of round particles of 6 to 10 px radius whose outlines are 1 to 4 px apart. One of each pair brightens by 50 % at
once; the change of the other's flux is error. Means of {means_frames} exposures before and after. At a blur of 1.5 px
the light of the two overlaps: at the smaller gaps no mask tells them apart without a model of the optics."""
GAPS_PX = (1.0, 2.0, 3.0, 4.0)
PAIRS = 6


def run(effort: Effort) -> list[Figure]:
    """Rows of each gap, with found masks and with true ones."""
    figures = []
    for gap_px in GAPS_PX:
        found = [_Pairs(seed, gap_px, effort, found=True) for seed in effort.seeds]
        true = [_Pairs(seed, gap_px, effort, found=False) for seed in effort.seeds]
        change, known = (np.concatenate([pairs.change for pairs in kind]) for kind in (found, true))
        name = f"gap {gap_px:.0f} px, {len(change)} of {len(known)} pairs found apart: change of the quiet one"
        if len(change):
            peer = np.concatenate([pairs.plain for pairs in found])
            figures += [
                Figure(f"{name}, median", _percent(median(change)), "", plain=_percent(median(peer))),
                Figure("  largest", _percent(_largest(change)), "", plain=_percent(_largest(peer))),
            ]
        else:
            figures.append(Figure(name, "", ""))
        figures.append(Figure("  with true outlines as masks, median", _percent(median(known)), ""))
    return figures


class _Pairs:
    """Changes of the quiet partners of one scene, of those that were found apart from their neighbours."""

    def __init__(self, seed: int, gap_px: float, effort: Effort, *, found: bool) -> None:
        scene = PoissonScene(
            seed=seed, height=296, width=384, particles=PAIRS, radius_px=(7, 10), touching_pairs=PAIRS,
            pair_gap_px=gap_px,
        )  # fmt: skip
        stage, n = Stage(scene, np.arange(scene.count) < PAIRS), effort.means_frames
        subject = Subject(scene, found=found)
        dns = [
            subject.expose(mean_e)
            for mean_e in (stage.mean_e(brightness=(factor,)) for factor in (1.0, 1.5))
            for _ in range(n)
        ]
        quiet = (subject.which >= PAIRS) & np.isin(subject.which - PAIRS, subject.which)
        flux = subject.measure(dns).flux_e[:, quiet]
        self.change = flux[n:].mean(axis=0) / flux[:n].mean(axis=0) - 1.0
        if found:
            plain = subject.plain()
            before, after = (np.mean([plain(dn)[0] for dn in part[:10]], axis=0) for part in (dns[:n], dns[n:]))
            self.plain = (after / before - 1.0)[quiet]


def _largest(changes: np.ndarray) -> float:
    return float(changes[np.argmax(np.abs(changes))])


def _percent(change: float) -> str:
    return f"{100 * change:+.2f} %"
