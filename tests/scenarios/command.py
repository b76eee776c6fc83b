"""The command: which seeds, how many at a time, and what is told of them."""

from __future__ import annotations

import random
import select
import sys
from functools import partial

import click

from tests.scenarios.engine import Picture
from tests.scenarios.planted import planted
from tests.scenarios.runner import Child, Verdict, outcome, play, rehearse, shrink
from tests.scenarios.world import PACE_WEIGHTS, PACES

SHRUNK = 3  # failures for which fewer actions are looked for: the others are likely the same


@click.command()
@click.option("--seeds", default=200, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first.")
@click.option("--count", default=7, show_default=True, help="Actions of each.")
@click.option("--jobs", default=1, show_default=True, help="Processes at a time.")
@click.option("--twice", default=0, help="Play this many of them twice and compare everything that happened.")
@click.option("--clocks", default=0, help="Play this many again with a wall clock that nobody sets; compare deadlines.")
@click.option("--plant", is_flag=True, help="Before, put bugs in on purpose and see whether each is noticed.")
@click.option("--no-shrink", is_flag=True, help="Do not look for fewer actions that fail as well.")
@click.option("--digests", is_flag=True, help="Print what each seed came to.")
def main(
    seeds: int, first: int, count: int, jobs: int, twice: int, clocks: int, plant: bool, no_shrink: bool, digests: bool
) -> None:
    """Play seeds; exit code 1 when one of them broke a promise."""
    picture = Picture()
    rehearse(picture)
    missed = [name for name in planted(1.0) if not notices(name, picture)] if plant else []
    verdicts = campaign(range(first, first + seeds), count, jobs, picture, digests)
    again = campaign(range(first, first + min(twice, seeds)), count, jobs, picture, digests)
    still = campaign(range(first, first + min(clocks, seeds)), count, jobs, picture, digests, still=True)
    failed = sorted(seed for seed, verdict in verdicts.items() if verdict.broken)
    uneven = sorted(seed for seed, verdict in again.items() if verdict.digest != verdicts[seed].digest)
    moved = sorted(seed for seed, verdict in still.items() if verdict.deadlines != verdicts[seed].deadlines)
    for seed in [] if no_shrink else failed[:SHRUNK]:
        fewer = shrink(seed, picture, count, pace_of(seed))
        click.echo(f"seed {seed} still fails with:\n  " + "\n  ".join(map(str, fewer)))
    for seed in moved[:SHRUNK]:
        pairs = zip(verdicts[seed].deadlines, still[seed].deadlines, strict=False)
        click.echo(f"seed {seed}, set clock beside still clock: {[pair for pair in pairs if pair[0] != pair[1]][:5]}")
    passed_h = sum(verdict.passed_s for verdict in verdicts.values()) / 3600
    click.echo(
        f"{len(verdicts)} scenarios from seed {first} on, {passed_h:.1f} h of the instrument's time, "
        f"{sum(verdict.lives for verdict in verdicts.values())} starts: {len(failed)} failed {failed[:20]}"
    )
    click.echo(f"{len(again)} played twice: {len(uneven)} differ {uneven[:20]}")
    click.echo(f"{len(still)} played again with a still wall clock: {len(moved)} deadlines moved {moved[:20]}")
    sys.exit(1 if failed or uneven or moved or missed else 0)


def campaign(
    seeds: range, count: int, jobs: int, picture: Picture, digests: bool, still: bool = False
) -> dict[int, Verdict]:
    """Every seed's verdict; told as it comes."""
    waiting, children = list(seeds), dict[int, Child]()
    verdicts: dict[int, Verdict] = {}
    while waiting or children:
        while waiting and len(children) < jobs:
            seed = waiting.pop(0)
            child = Child(seed, partial(play, seed, None, count, picture, still=still))
            children[child.descriptor] = child
        for descriptor in select.select(list(children), [], [])[0]:
            verdict = children[descriptor].read()
            if verdict is not None:
                del children[descriptor]
                verdicts[verdict.seed] = verdict
                tell(verdict, digests)
    return verdicts


def notices(name: str, picture: Picture, seed: int = 1) -> bool:
    """Whether the runner notices a bug that was put in on purpose; says so."""
    bug = planted(pace_of(seed))[name]
    broken = outcome(seed, picture, actions=bug.actions, plant=bug.plant).broken
    found = next((sentence for sentence in broken if bug.words in sentence), None)
    click.echo(f"planted {name}: {'MISSED' if found is None else 'noticed'}: {(found or str(broken))[:200]!r}")
    return found is not None


def pace_of(seed: int) -> float:
    """The pace of the seed's world."""
    return random.Random(f"world {seed}").choices(PACES, PACE_WEIGHTS)[0]


def tell(verdict: Verdict, digests: bool) -> None:
    """Print what broke, with everything that is needed to see it again."""
    if digests:
        was = f"{verdict.passed_s:.0f} s {verdict.lives} starts {verdict.turns} turns"
        click.echo(f"seed {verdict.seed} {verdict.digest} {was}")
    if not verdict.broken:
        return
    click.echo(f"\nSEED {verdict.seed} FAILED after:\n  " + "\n  ".join(verdict.actions))
    click.echo("what does not hold:\n  " + "\n  ".join(verdict.broken))
    click.echo("what happened:\n  " + "\n  ".join(verdict.trace[-40:]))
    click.echo("the daemon's log:\n  " + "\n  ".join(verdict.log[-40:]))
    click.echo(f"again: python -m tests.scenarios --first {verdict.seed} --seeds 1, with the same --count\n")
