"""The process that reads runs' files for answers (``python -m daemon.api.read_child FD``); see `read_process`.

Orders are messages `read` with `number`, `name` and `asked` of `daemon.api.reads`. Of each is said when it is `begun`;
then it is answered, in any order, by `answer` (`headers`, the array `body`), `refused` (`code`, `detail`, `errors`) or
`failed` (`trace`). All carry its `number`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from daemon.api.reads import READS
from daemon.engine.link import Message, receive, send
from daemon.errors import InstrumentError, NamedFieldsError
from daemon.service.memory import spare_settled_objects
from daemon.service.priority import FRAMES_FIRST, give_way

THREADS, SLOW_THREADS = 4, 2


def serve(descriptor: int) -> None:
    """Answer until the daemon closes the link; then end at once, as reading leaves nothing half done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the daemon handles it and closes the link
    give_way(FRAMES_FIRST)
    spare_settled_objects()
    link, sending = socket.socket(fileno=descriptor), threading.Lock()
    quick = ThreadPoolExecutor(THREADS, thread_name_prefix="read")
    slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="read-slow")
    with suppress(OSError):
        while (order := receive(link)) is not None:
            pool = slow if READS[order.fields["name"]].slow else quick
            pool.submit(_serve_one, link, sending, order.fields)
    os._exit(0)


def _serve_one(link: socket.socket, sending: threading.Lock, order: dict[str, Any]) -> None:
    _say(link, sending, Message("begun"), order)
    _say(link, sending, _answered(order), order)


def _say(link: socket.socket, sending: threading.Lock, message: Message, order: dict[str, Any]) -> None:
    message.fields["number"] = order["number"]
    with sending, suppress(OSError):  # the daemon is gone, and this process with it
        send(link, message)


def _answered(order: dict[str, Any]) -> Message:
    try:
        answer = READS[order["name"]].function(**order["asked"])
    except InstrumentError as error:
        errors = error.errors if isinstance(error, NamedFieldsError) else None
        return Message("refused", {"code": error.code, "detail": error.detail, "errors": errors})
    except Exception:  # noqa: BLE001 - told to the daemon, which logs it
        return Message("failed", {"trace": traceback.format_exc()[-8000:]})
    return Message("answer", {"headers": answer.headers}, {"body": np.frombuffer(answer.body, np.uint8)})


if __name__ == "__main__":
    serve(int(sys.argv[1]))
