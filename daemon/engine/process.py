"""The engine process: one camera, one kernel thread, one sender, and the order book of the daemon that started it.

It ends when told, when the daemon closes the link, and when its own worker fails: it survives nothing and is restarted
alone. Started as ``python -m daemon.engine FD [compiled]``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import Any

from daemon.engine.acquisition import Acquisition
from daemon.engine.link import Message, receive, send
from daemon.engine.warm import warm_kernels
from daemon.engine.worker import Outbox, Worker
from daemon.errors import CameraError
from daemon.service.memory import release_free_memory, spare_settled_objects
from kernels.jit import compilations

log = logging.getLogger("engine")
CONFIGURE_S = 5.0
RELEASE_PERIOD_S = 30.0


class _LinkHandler(logging.Handler):
    """Log records travel to the daemon, which owns the log."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelno, "logger": record.name, "text": record.getMessage()[:4000]}
        self._outbox.put_if_room(Message("log", fields))


def serve(descriptor: int, *, compiled: bool = False) -> int:
    """Run the engine on the socket `descriptor`; returns the exit code.

    Compiling leaves a hundred megabytes of LLVM's in the heap for as long as the process lives. So one that had to
    compile becomes a fresh one, `compiled`, which loads from the cache: memory does not tell a first start from others.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the daemon handles it and closes the link
    link = socket.socket(fileno=descriptor)
    outbox = Outbox(64)
    handler = _LinkHandler(outbox)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    sender = threading.Thread(target=_send_all, args=(link, outbox), name="sender")
    sender.start()
    begin_anew = False
    try:
        begin_anew = _warm(outbox) > 0 and not compiled  # once only: the cache may be out of reach
        return 0 if begin_anew else _life(link, outbox)
    finally:
        logging.getLogger().removeHandler(handler)
        outbox.put(None)
        sender.join(5.0)
        if begin_anew:
            os.execv(sys.executable, [*sys.orig_argv, "compiled"])  # same process id, same link
        link.close()


def _warm(outbox: Outbox) -> int:
    """Make every kernel ready, with progress to the daemon; how many had to be compiled."""
    with compilations() as compiled:
        warm_kernels(
            lambda name, done, total: outbox.put(Message("warming", {"kernel": name, "done": done, "total": total}))
        )
    return len(compiled)


def _life(link: socket.socket, outbox: Outbox) -> int:
    opening = receive(link)
    if opening is None or opening.kind != "open":
        return 1
    settings = opening.fields
    outbox.resize(settings["link_batches"])
    acquisition, worker = _build(settings, outbox)
    acquisition.start()
    worker.start()
    outbox.put(Message("ready", {"pid": os.getpid()}))
    for thread in (acquisition, worker):
        threading.Thread(target=_watch, args=(thread, link), name="watch", daemon=True).start()
    over = threading.Event()
    keeper = threading.Thread(target=_keep_small, args=(over,), name="memory")
    keeper.start()
    try:
        _obey(link, acquisition, worker, outbox)
    finally:
        over.set()
        keeper.join()
        acquisition.quit()
        worker.quit()
        acquisition.join(5.0)
        worker.join(5.0)
    return 0


def _build(settings: dict[str, Any], outbox: Outbox) -> tuple[Acquisition, Worker]:
    def report(kind: str, fields: dict[str, Any]) -> None:
        if kind == "ended":
            worker.recording_ended(acquisition.stream)
        elif kind == "open" and acquisition.info is not None:
            release_free_memory()
            spare_settled_objects()
            outbox.put(camera_message(acquisition.info))
        else:
            outbox.put(Message(f"camera_{kind}", fields))

    acquisition = Acquisition(
        settings["driver"], settings["options"], settings["ring_frames"], settings["frame_deadline_s"], report,
        settings["camera_settings"],
    )  # fmt: skip
    worker = Worker(acquisition, outbox, settings["batch_s"])
    return acquisition, worker


def camera_message(info: Any) -> Message:
    """A camera's description; its maps travel as arrays."""
    maps = {name: getattr(info, name) for name in ("dark", "flat") if getattr(info, name) is not None}
    return Message("camera_open", vars(replace(info, dark=None, flat=None)), maps)


def _obey(link: socket.socket, acquisition: Acquisition, worker: Worker, outbox: Outbox) -> None:
    while (message := receive(link)) is not None:
        if message.kind == "quit":
            return
        if message.kind == "configure":
            _configure(message, acquisition, outbox)
        else:
            worker.order(message)


def _configure(message: Message, acquisition: Acquisition, outbox: Outbox) -> None:
    reply: dict[str, Any] = {"request": message.fields["request"]}
    try:
        info = acquisition.configure(message.fields["settings"], CONFIGURE_S)
        reply["camera"] = {"exposure_us": info.exposure_us, "frame_rate_hz": info.frame_rate_hz}
    except CameraError as error:
        reply |= {"code": error.code, "detail": error.detail, "remedy": error.remedy}
    outbox.put(Message("reply", reply))


def _watch(thread: threading.Thread, link: socket.socket) -> None:
    """A thread that died takes the process with it: the daemon sees the closed link and starts another."""
    thread.join()
    with contextlib.suppress(OSError):  # closed already: the process ends as it was told
        link.shutdown(socket.SHUT_RD)


def _keep_small(over: threading.Event) -> None:
    """A run's first frames load more kernels and leave their scratch behind."""
    while not over.wait(RELEASE_PERIOD_S):
        release_free_memory()


def _send_all(link: socket.socket, outbox: Outbox) -> None:
    while (message := outbox.get()) is not None:
        try:
            send(link, message)
        except OSError:
            return
