"""``python -m tests.bench [PART ...] [--minutes M]``: figures beside their goals. None of them is a test."""

from __future__ import annotations

import importlib

import click

from tests.bench.figures import show

PARTS = {
    "accuracy": "Accuracy on true Poisson scenes",
    "noise": "The camera's noise from the data",
    "kernels": "A frame's kernels beside peers",
    "twin": "The simulated instrument",
    "offline": "Analysis of a recording",
    "start": "Start of the service",
    "live": "The whole daemon, live",
}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--minutes", default=10.0, show_default=True, help="Length of the live part.")
def main(parts: tuple[str, ...], minutes: float) -> None:
    """Print the figures of PARTS, all of them by default."""
    for part in parts or PARTS:
        module = importlib.import_module(f"tests.bench.{part}")
        show(PARTS[part], module.run(minutes) if part == "live" else module.run())


if __name__ == "__main__":
    main()
