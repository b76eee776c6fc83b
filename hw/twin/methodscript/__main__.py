"""``python -m hw.twin.methodscript PATH [name=value ...]``: an emulated device as terminal PATH, till interrupted."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.pty import PtyDevice


def main(arguments: list[str]) -> int:
    """`name=value` are `DeviceOptions`."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    options = dict(argument.split("=", 1) for argument in arguments[1:])
    with PtyDevice(Path(arguments[0]), DeviceOptions.model_validate(options)):
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main(sys.argv[1:]))
