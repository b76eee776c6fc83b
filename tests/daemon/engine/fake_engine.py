"""A child process that misbehaves as `FAKE_ENGINE` says, in place of the engine. Started as ``python -m ... FD``."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from daemon.engine.link import Message, receive, send


def main(descriptor: int) -> int:
    """`dies` or is `killed` at once, `garbage`, `nonsense` (a message nobody knows), `deaf` (ignores the link), `echo`,
    `environ`.
    """
    kind = os.environ["FAKE_ENGINE"]
    if kind == "dies":
        return 3
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with socket.socket(fileno=descriptor) as link:
        order = receive(link)
        assert order is not None
        if kind == "garbage":
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif kind == "nonsense":
            send(link, Message("camera_open", {"pixel_format": "Mono99"}))
        elif kind == "deaf":
            time.sleep(600)
        elif kind == "environ":
            send(link, Message("environ", dict(os.environ)))
        else:
            send(link, Message("echo", order.fields, order.arrays))
        receive(link)  # until the other end hangs up
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
