"""Records a run with the real writer and says what was promised, in processes forked from one that waits for orders.

Lines on standard output, written at once: `promised frames FIRST COUNT`, `promised rows T_S`, `promised event SEQ`,
`refused CODE FRAMES`, `dropped FRAMES`, `done`, `calls COUNT`. Any other failure is a traceback and exit code 1.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from daemon.engine.measures import Clip
from daemon.errors import InstrumentError, StoreError
from daemon.store import loop
from daemon.store.writer import StoreWriter
from tests.daemon.store.helpers import WAIT_S, event, frames, summary

FRAMES = 5
TURNS = 3


def say(*words: Any) -> None:
    """One line, in one system call."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def attempt(writer: StoreWriter, turn: int) -> list[tuple[tuple[Any, ...], Any]]:
    """What a turn submits: what is promised with it, and its future."""
    first = FRAMES * turn
    pixels = np.full((2, 3, 3), turn, "u2")
    clip = Clip(index=0, onset_frame=first, y0_px=1, x0_px=1, t_s=np.array([first, first + 1.0]), pixels=pixels)
    return [
        (("frames", first, FRAMES), writer.put_chunk(*frames(first, FRAMES, particles=3))),
        (("rows", turn), writer.put_ensemble([{"t_s": float(turn), "soc_mean": turn / 7}])),
        (("clip", first), writer.put_clips([(11, clip)])),
        (("event",), writer.put_events([event(float(turn))])),
    ]


def settle(submitted: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Wait for every future and say what came of it."""
    for what, future in submitted:
        try:
            result = future.result(WAIT_S)
        except StoreError as error:
            say("refused", error.code, what[2] if what[0] == "frames" else 0)
        else:
            say("promised", *what, *([result[0].seq] if what[0] == "event" else []))


def record(folder: Path, turns: Any) -> None:
    """A run from start to end; every refusal is said and survived."""
    path = folder / "runs" / "r1.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = StoreWriter(folder / "instrument.db", commit_interval_s=0.004)
    try:
        writer.start()
        writer.create_run(path, {}, summary("r1", path)).result(WAIT_S)
        say("promised", "run")
        for turn in turns:
            settle(attempt(writer, turn))
        say("dropped", writer.stats().lost_frames)
        for last in (writer.close_run(), writer.update_run("r1", state="done")):
            last.result(WAIT_S)
        say("promised", "end")
    except InstrumentError as error:
        say("refused", error.code, 0)
    finally:
        writer.stop(WAIT_S)
    say("done")


def child(order: dict[str, Any], shim: ctypes.CDLL | None) -> None:
    """The forked process; never returns."""
    status = 1
    try:
        for number, name in ((1, "said"), (2, "errors")):
            target = os.open(f"{order['folder']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(target, number)
        if shim is not None:
            shim.refuse_arm(order["folder"].encode(), *order["fault"])
        record(Path(order["folder"]), count() if order["for_ever"] else range(TURNS))
        if shim is not None:
            say("calls", shim.refuse_calls())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Orders come as lines of JSON; answers are the child's pid, then its exit status."""
    loop.RETRY_PAUSES_S = (0.002, 0.002)  # thousands of runs wait for these
    shim = ctypes.CDLL(os.environ["REFUSE_SHIM"]) if "REFUSE_SHIM" in os.environ else None
    if shim is not None:
        shim.refuse_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_long] * 4]
        shim.refuse_calls.restype = ctypes.c_long
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order, shim)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
