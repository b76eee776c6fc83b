"""A process that records a run with the real writer and says what it was promised: ``subject.py FOLDER [--for-ever]``.

Lines on standard output, written at once: `promised frames FIRST COUNT`, `promised rows T_S`, `promised event SEQ`,
`refused CODE FRAMES`, `dropped FRAMES`, `done`. Any other failure is a traceback and exit code 1.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from daemon.engine.measures import Clip
from daemon.errors import InstrumentError, StoreError
from daemon.store.writer import StoreWriter
from tests.daemon.store.helpers import WAIT_S, event, frames, summary

FRAMES = 5
TURNS = 6


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


if __name__ == "__main__":
    record(Path(sys.argv[1]), count() if "--for-ever" in sys.argv else range(TURNS))
