"""``python -m tests.bench [PART ...] [--minutes M] [--load FORMAT]``: figures beside goals, no tests."""

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
    "report": "Report of a long run",
    "wear": "What a day writes to the card",
    "usb": "Frames over an emulated USB bus",
    "start": "Start of the service",
    "recovery": "Start after an unclean stop, 2 GB stored",
    "live": "The whole daemon, live",
    "sustained": "The whole daemon at a camera's full rate",
    "load": "Requests and followers while it measures",
}
TIMED = ("live", "sustained", "load")
ON_DEMAND = ("sustained", "load")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--minutes", default=10.0, show_default=True, help="Length of the live part, and of each sustained load.")
@click.option("--load", type=click.Choice(["Mono8", "Mono12p"]), help="Only this one of the sustained loads.")
@click.option("--half-s", default=120.0, show_default=True, help="Length of a half of the sustained loads.")
def main(parts: tuple[str, ...], minutes: float, load: str | None, half_s: float) -> None:
    """Print the figures of PARTS, all but the sustained loads by default."""
    for part in parts or [part for part in PARTS if part not in ON_DEMAND]:
        module = importlib.import_module(f"tests.bench.{part}")
        limits = [minutes, load, half_s] if part == "sustained" else [minutes] if part in TIMED else []
        found = module.run(*limits)
        for name, figures in [("", found)] if isinstance(found, list) else found:
            show(f"{PARTS[part]}, {name}" if name else PARTS[part], figures)


if __name__ == "__main__":
    main()
