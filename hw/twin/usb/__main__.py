"""``python -m hw.twin.usb [--bus FILE.sock] [--or-skip] -- COMMAND...``: run a command that sees an emulated bus."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from hw.twin.usb.bus import Bus
from hw.twin.usb.umockdev import reason_against


def main() -> int:
    """The command's exit code; 1 with a sentence where there can be no bus."""
    parser = argparse.ArgumentParser(prog="python -m hw.twin.usb", description=__doc__)
    parser.add_argument("--bus", metavar="FILE.sock", type=Path, help="path of the control socket")
    parser.add_argument("--or-skip", action="store_true", help="where there can be no bus, say so and end with 0")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    reason = reason_against()
    if reason is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the bus takes its files away
        return Bus(arguments.bus).run(arguments.command)
    print(f"skipped: {reason}" if arguments.or_skip else reason, file=sys.stderr)
    return 0 if arguments.or_skip else 1


if __name__ == "__main__":
    sys.exit(main())
