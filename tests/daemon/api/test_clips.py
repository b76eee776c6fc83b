"""Clips of a real run file."""

from __future__ import annotations

import asyncio
import io

import numpy as np
from PIL import Image

from daemon.api.picture import strip_png
from daemon.engine.measures import Clip
from daemon.parts import RunSummary
from daemon.store.clips import insert_clips
from daemon.store.proof import prove_again
from daemon.store.schema import RUN, open_writing
from tests.daemon.api.conftest import Served


def put(run_file: RunSummary) -> None:
    rng = np.random.default_rng(3)
    looks = rng.integers(60, 3000, (3, 6, 5)).astype(np.uint16)
    clips = [(11, Clip(1, 100, 8, 9, np.array([0.5, 1.0, 1.5]), looks)), (12, Clip(2, 5, 1, 2, np.zeros(1), looks[:1]))]
    db = open_writing(run_file.path, RUN)
    with db.conn:
        db.conn.execute("delete from clips")  # the file is shared
        insert_clips(db.conn, clips)
    db.close()


async def test_clips_are_listed_and_shown(with_run: Served, run_file: RunSummary) -> None:
    await asyncio.to_thread(put, run_file)
    listed = (await with_run.json("GET", "/runs/r1/clips"))["clips"]
    assert [(row["particle_id"], row["looks"]) for row in listed] == [(12, 1), (11, 3)]
    (mine,) = (await with_run.json("GET", "/runs/r1/clips?particle_id=11"))["clips"]
    assert (mine["t0_s"], mine["t1_s"], mine["height"], mine["width"], mine["onset_frame"]) == (0.5, 1.5, 6, 5, 100)
    async with with_run.ask("GET", f"/runs/r1/clips/{mine['clip_id']}") as response:
        assert response.content_type == "image/png"
        assert response.headers["X-Times-S"] == "0.500,1.000,1.500"
        assert Image.open(io.BytesIO(await response.read())).size == (4 * (3 * 6 - 1), 4 * 6)


async def test_a_clip_that_is_not_there(with_run: Served) -> None:
    body = await with_run.json("GET", "/runs/r1/clips/777", status=404)
    assert body["code"] == "run.not_found"
    assert (await with_run.json("GET", "/runs/r1/clips?particle_id=10"))["clips"] == []


async def test_a_damaged_clip_is_not_shown(with_run: Served, run_file: RunSummary) -> None:
    def damage() -> None:
        put(run_file)
        db = open_writing(run_file.path, RUN)
        with db.conn:
            db.conn.execute("update clips set particle_id = 13 where particle_id = 11")
            prove_again(db.conn, "clips", "particle_id = 13")  # the row is as it should be, the looks are another's
        db.close()

    await asyncio.to_thread(damage)
    (row,) = (await with_run.json("GET", "/runs/r1/clips?particle_id=13"))["clips"]
    assert (await with_run.json("GET", f"/runs/r1/clips/{row['clip_id']}", status=500))["code"] == "store.corrupt"


def test_looks_are_stretched_alike() -> None:
    looks = np.stack([np.full((4, 4), 100), np.full((4, 4), 200)]).astype(np.uint16)
    picture = np.asarray(Image.open(io.BytesIO(strip_png(looks, 1))))
    assert picture.shape == (4, 9)
    assert (picture[:, :4] == 0).all() and (picture[:, 5:] == 255).all()
