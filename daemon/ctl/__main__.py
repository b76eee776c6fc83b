"""Entry point of `photometryctl`."""

from __future__ import annotations

from daemon.ctl.app import cli


def main() -> None:
    """Run the command line; exits 0 when done, 1 when the instrument or the data says no, 2 on wrong usage."""
    cli(prog_name="photometryctl")


if __name__ == "__main__":
    main()
