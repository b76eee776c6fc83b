"""A process in place of `daemon.api.read_child` that misbehaves as the environment variable FAKE_READS says."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from daemon.engine.link import Message, receive, send


def main(descriptor: int) -> None:
    link = socket.socket(fileno=descriptor)
    while (order := receive(link)) is not None:
        how = os.environ["FAKE_READS"]
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hangs":
            time.sleep(60.0)
        if how == "garbage":
            link.sendall(b"\0" * 64)
        if how == "stranger":
            send(link, Message("answer", {"number": order.fields["number"] + 1, "headers": {}}))
            send(
                link,
                Message(
                    "refused",
                    {"number": order.fields["number"], "code": "run.not_found", "detail": "?", "errors": None},
                ),
            )


if __name__ == "__main__":
    main(int(sys.argv[1]))
