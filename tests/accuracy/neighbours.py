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
Pairs of round particles of 6 to 10 px radius whose outlines are 1 to 4 px apart. One of each pair brightens by 50 %
at once; the change of the other's flux is error. Means of {means_frames} exposures before and after. At a blur of
1.5 px the light of the two overlaps: at the smaller gaps no mask can tell it apart without a model of the optics."""
GAPS_PX = (1.0, 2.0, 3.0, 4.0)


def run(effort: Effort) -> list[Figure]:
    """One row a gap."""
    figures = []
    for gap in GAPS_PX:
        changes, plain, found = [], [], 0
        for seed in effort.seeds:
            pair = _Pairs(seed, gap, effort)
            changes.append(pair.change)
            plain.append(pair.plain)
            found += len(pair.change)
        change, peer = np.concatenate(changes), np.concatenate(plain)
        if not len(change):
            figures.append(Figure(f"gap {gap:.0f} px", "no pair was found apart", ""))
            continue
        figures.append(
            Figure(
                f"gap {gap:.0f} px: change of the quiet one, median", f"{100 * median(change):+.2f} %", "",
                plain=f"{100 * median(peer):+.2f} %",
            )
        )  # fmt: skip
        figures.append(
            Figure("  largest", f"{100 * np.abs(change).max():.2f} %", "", plain=f"{100 * np.abs(peer).max():.2f} %")
        )
    return figures


class _Pairs:
    """Changes of the quiet partners of one scene, found apart from their neighbours."""

    def __init__(self, seed: int, gap_px: float, effort: Effort) -> None:
        scene = PoissonScene(
            seed=seed, height=300, width=380, particles=6, radius_px=(7, 10), touching_pairs=6, pair_gap_px=gap_px
        )
        bright = np.arange(scene.count) < 6
        stage, subject, n = Stage(scene, bright), Subject(scene), effort.means_frames
        means = [stage.mean_e(brightness=(factor,)) for factor in (1.0, 1.5)]
        dns = [subject.expose(mean_e) for mean_e in means for _ in range(n)]
        quiet = (subject.which >= 6) & np.isin(subject.which - 6, subject.which)
        flux = subject.measure(dns).flux_e[:, quiet]
        self.change = flux[n:].mean(axis=0) / flux[:n].mean(axis=0) - 1.0
        plain = subject.plain()
        before, after = (np.mean([plain(dn)[0] for dn in part[:10]], axis=0) for part in (dns[:n], dns[n:]))
        self.plain = (after / before - 1.0)[quiet]
