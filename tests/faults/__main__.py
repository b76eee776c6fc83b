"""``python -m tests.faults [CAMPAIGN ...] [--seed N] [--share F]``: the store under every fault a promise is about."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from tests.faults import cuts, flips, kills, refusals
from tests.faults.state import make_state

SCRATCH = Path("/dev/shm")  # thousands of files that nobody needs on a disk
CAMPAIGNS: dict[str, Callable[[Path, float, int], Counter[str]]] = {
    "kills": lambda folder, share, seed: kills.run(folder, int(1000 * share), seed, say=True),
    "cuts": lambda folder, share, seed: cuts.run(folder, int(1000 * share), seed),
    "flips": lambda folder, share, seed: flips.run(make_state(folder), int(10_000 * share), seed, say=True),
    "refusals": lambda folder, share, seed: refusals.run(folder, max(1, round(1 / share)), say=True),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(CAMPAIGNS)))
@click.option("--seed", type=int, help="That of an earlier run, to see it again.")
@click.option("--share", default=1.0, show_default=True, help="Of the full number of trials.")
def main(names: tuple[str, ...], seed: int | None, share: float) -> None:
    """Run the CAMPAIGNS named, all by default; the exit code is 1 when a promise was broken."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"seed {seed}")
    broken = False
    for name in names or CAMPAIGNS:
        folder, began_s = (
            Path(tempfile.mkdtemp(dir=SCRATCH if SCRATCH.is_dir() else None)),
            time.monotonic(),
        )
        try:
            outcomes = CAMPAIGNS[name](folder, share, seed)
        finally:
            shutil.rmtree(folder)
        broken |= any(key.startswith(("unnoticed", "false")) for key in outcomes)
        told = ", ".join(f"{key}: {count}" for key, count in sorted(outcomes.items()))
        click.echo(f"{name} ({time.monotonic() - began_s:.0f} s): {told}")
    raise SystemExit(broken)


if __name__ == "__main__":
    main()
