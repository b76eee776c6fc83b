"""The live frame and what is drawn over it."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from daemon.api.picture import (
    OUTLINE_COLOUR,
    STATE_COLOURS,
    UNKNOWN_COLOUR,
    VIRIDIS,
    outlines,
    shifted,
    soc_colours,
    state_colours,
    stretched,
)
from daemon.tables import PARTICLE_STATES
from tests.daemon.api.conftest import Served
from tests.daemon.api.fakes import summary


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((60, 80), np.int32)
    labels[10:20, 10:20] = 1
    labels[10:20, 40:50] = 2
    labels[40:50, 10:20] = 3
    return labels


@pytest.fixture
def scene(served: Served, labels: np.ndarray, tmp_path) -> Served:
    image = np.random.default_rng(1).normal(500, 20, labels.shape).astype(np.uint16)
    image[labels > 0] += 1500
    served.fakes.engine.image = image
    served.fakes.engine.drift = (3.2, -2.4)
    served.fakes.runs.runs["r1"] = summary("r1", tmp_path / "r1.db")
    served.fakes.runs.labels = labels
    served.fakes.runs.states = np.array([0, 2, 1])
    served.fakes.runs.soc = np.array([0.0, 1.0, np.nan], np.float32)
    return served


async def picture(served: Served, query: str = "") -> np.ndarray:
    async with served.ask("GET", f"/frame.png{query}") as response:
        assert response.content_type == "image/png"
        assert response.headers["X-Frame"] == "7"
        return np.asarray(Image.open(io.BytesIO(await response.read())).convert("RGB"))


async def test_overlays_change_the_particles_and_nothing_else(scene: Served, labels: np.ndarray) -> None:
    plain = await picture(scene)
    assert plain.shape == (60, 80, 3)
    where = shifted(labels, 3.2, -2.4) > 0
    for overlay in ("masks", "soc", "state"):
        drawn = await picture(scene, f"?overlay={overlay}")
        changed = (drawn != plain).any(axis=2)
        assert changed.any(), overlay
        assert not (changed & ~where).any(), overlay


async def test_the_masks_stand_where_the_scene_stands(scene: Served) -> None:
    drawn = await picture(scene, "?overlay=masks")
    assert tuple(drawn[13, 8]) == OUTLINE_COLOUR
    assert tuple(drawn[22, 17]) == OUTLINE_COLOUR
    assert tuple(drawn[18, 12]) != OUTLINE_COLOUR
    assert tuple(drawn[10, 10]) != OUTLINE_COLOUR


async def test_particles_wear_the_colour_of_their_charge_and_state(scene: Served) -> None:
    soc = await picture(scene, "?overlay=soc")
    edges = [tuple(int(v) for v in soc[y, x]) for y, x in ((13, 8), (13, 38), (43, 8))]
    assert edges == [tuple(VIRIDIS[0]), tuple(VIRIDIS[-1]), UNKNOWN_COLOUR]
    state = await picture(scene, "?overlay=state")
    edges = [tuple(int(v) for v in state[y, x]) for y, x in ((13, 8), (13, 38), (43, 8))]
    assert edges == [STATE_COLOURS["active"], STATE_COLOURS["dead"], STATE_COLOURS["partial"]]


async def test_the_scale_scales(scene: Served) -> None:
    assert (await picture(scene, "?scale=0.5")).shape == (30, 40, 3)
    assert (await picture(scene, "?scale=2&overlay=masks")).shape == (120, 160, 3)


async def test_new_particles_are_drawn_as_unknown(scene: Served) -> None:
    scene.fakes.runs.states = np.array([0])
    scene.fakes.runs.soc = None
    state = await picture(scene, "?overlay=state")
    assert tuple(state[43, 8]) == UNKNOWN_COLOUR
    assert tuple((await picture(scene, "?overlay=soc"))[13, 8]) == UNKNOWN_COLOUR


async def test_overlays_need_a_run(scene: Served) -> None:
    scene.fakes.runs.labels = None
    assert (await scene.json("GET", "/frame.png?overlay=masks", 409))["code"] == "run.not_running"
    assert (await picture(scene)).shape == (60, 80, 3)


async def test_many_ask_at_once(scene: Served) -> None:
    pictures = await asyncio.gather(*(picture(scene, "?overlay=soc") for _ in range(20)))
    assert all((found == pictures[0]).all() for found in pictures)


def test_hot_pixels_do_not_darken_the_rest() -> None:
    image = np.linspace(100, 300, 10_000).astype(np.uint16).reshape(100, 100)
    image[50, 51] = 4095
    grey = stretched(image)
    assert grey.dtype == np.uint8
    assert grey[0, 0] == 0
    assert 110 < np.median(grey) < 145
    assert (stretched(np.full((20, 20), 7, np.uint16)) == 128).all()
    assert stretched(np.zeros((1, 1), np.uint16)).shape == (1, 1)


def test_shifting_loses_what_leaves_and_wraps_nothing(labels: np.ndarray) -> None:
    assert (shifted(labels, 0.4, -0.4) == labels).all()
    moved = shifted(labels, -12.0, 35.0)
    assert (moved[0:8, 45:55] == 1).all()
    assert (moved == 1).sum() == 80
    assert not shifted(labels, 1000.0, 0.0).any()
    assert (shifted(labels, float("nan"), 0.0) == labels).all()


def test_outlines_are_inside_the_particle(labels: np.ndarray) -> None:
    edge = outlines(labels)
    assert edge.sum() == 3 * 36
    assert not edge[labels == 0].any()
    touching = np.array([[1, 1, 1, 2, 2, 2]] * 3)
    assert outlines(touching)[:, 2:4].all()


def test_colours_of_the_unknown() -> None:
    colours = soc_colours(np.array([np.nan, -1.0, 2.0, 0.5]))
    assert tuple(colours[0]) == UNKNOWN_COLOUR
    assert tuple(colours[1]) == tuple(VIRIDIS[0])
    assert tuple(colours[2]) == tuple(VIRIDIS[-1])
    assert set(STATE_COLOURS) == set(PARTICLE_STATES)
    assert (state_colours(np.array([-1, 99])) == UNKNOWN_COLOUR).all()
