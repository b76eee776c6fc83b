"""`python -m tests.fuzz [TARGETS] --inputs 1000000`: damaged inputs for every parser, a process for each."""

from __future__ import annotations

import multiprocessing
import sys

import click

from tests.fuzz.campaign import told
from tests.fuzz.targets import TARGETS

NAMES = [target.name for target in TARGETS]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--inputs", default=1_000_000, show_default=True, help="Of all targets together.")
@click.option("--seed", default=1, show_default=True)
def main(names: tuple[str, ...], inputs: int, seed: int) -> None:
    """Print what became of the inputs, and each finding with its input; exit with 1 when there is one."""
    chosen = [name for name in NAMES if name in (names or NAMES)]
    shares = {target.name: target.share for target in TARGETS if target.name in chosen}
    total = bad = 0
    for name, share in shares.items():
        count = -(-inputs * share // sum(shares.values()))
        process = multiprocessing.get_context("spawn").Process(target=told, args=(name, int(count), seed))
        process.start()
        process.join()
        total += int(count)
        if process.exitcode:
            bad += 1
            print(f"{name}: ended with {process.exitcode}", flush=True)
    print(f"seed {seed}: {total} inputs, {bad} of {len(chosen)} targets with findings")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
