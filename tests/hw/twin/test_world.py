import threading
import time

import numpy as np
import pytest

from hw.twin.electrode import Electrode, ParticleState
from hw.twin.sample import make_sample
from hw.twin.settings import SampleOptions
from hw.twin.world import SEQUENCE_AT, WorldError, WorldReader, WorldState, WorldWriter

OPTIONS = SampleOptions(particles=20, height_px=300, width_px=400, seed=3)


def state_of(t_s=1.0, fill=None):
    particles = Electrode(make_sample(OPTIONS)).state
    if fill is not None:
        for name in ParticleState.FIELDS:
            getattr(particles, name)[:] = fill
    return WorldState(t_s, time.monotonic(), 60.0, 1, 3.7, 0.5, False, particles)


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "world"
    writer = WorldWriter(path, OPTIONS, "clock", state_of())
    reader = WorldReader(path)
    yield path, writer, reader
    reader.close()
    writer.close()


def test_a_reader_sees_what_was_written(world):
    _, writer, reader = world
    sent = state_of(7.5, fill=0.25)
    writer.publish(sent)
    got = reader.read()
    assert (got.t_s, got.host_t_s, got.speed, got.mode, got.voltage_v, got.current_ma, got.closed) == (
        7.5, sent.host_t_s, 60.0, 1, 3.7, 0.5, False,
    )  # fmt: skip
    for name in ParticleState.FIELDS:
        np.testing.assert_array_equal(getattr(got.particles, name), 0.25)
    assert reader.sample == OPTIONS and reader.clock_id == "clock"


def test_a_copy_is_the_readers_own(world):
    _, writer, reader = world
    writer.publish(state_of(fill=1.0))
    got = reader.read()
    writer.publish(state_of(fill=2.0))
    writer.publish(state_of(fill=3.0))
    assert (got.particles.c == 1).all()
    got.particles.c[:] = 9


def test_no_half_state_is_ever_seen(world):
    _, writer, reader = world
    state, ended = state_of(), threading.Event()

    def write():
        n = 0.0
        while not ended.is_set():
            n += 1
            state.t_s = n
            for name in ParticleState.FIELDS:
                getattr(state.particles, name)[:] = n
            writer.publish(state)

    writer.publish(state_of(0.0, fill=0.0))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen, deadline = [], time.monotonic() + 5
        while len({got.t_s for got in seen}) < 20 and time.monotonic() < deadline:
            seen.append(reader.read())
    finally:
        ended.set()
        thread.join()
    for got in seen:
        assert all((getattr(got.particles, name) == got.t_s).all() for name in ParticleState.FIELDS)
    assert len({got.t_s for got in seen}) == 20


def test_a_writer_that_dies_while_writing_leaves_the_last_state(world):
    path, writer, reader = world
    writer.publish(state_of(5.0))
    sequence = int.from_bytes(path.read_bytes()[SEQUENCE_AT : SEQUENCE_AT + 8], "little")
    with path.open("r+b") as file:  # half a write into the slot that is not current
        size = (path.stat().st_size - SEQUENCE_AT - 64) // 2
        file.seek(SEQUENCE_AT + 64 + ((sequence + 1) % 2) * size + 8)
        file.write(b"\xff" * (size // 2))
    assert reader.read().t_s == 5.0


def test_a_damaged_state_is_an_error(world):
    path, _, reader = world
    with path.open("r+b") as file:
        file.seek(SEQUENCE_AT + 64)
        file.write(b"\xff" * (path.stat().st_size - SEQUENCE_AT - 64))
    with pytest.raises(WorldError, match="no whole state"):
        reader.read()


def test_closing_says_so_and_removes_the_file(world):
    path, writer, reader = world
    writer.close()
    writer.close()
    assert reader.read().closed and not path.exists()


def test_a_newer_world_at_the_same_path_is_left_alone(world):
    path, writer, _ = world
    newer = WorldWriter(path, OPTIONS, "newer", state_of())
    writer.close()
    reader = WorldReader(path)
    assert reader.clock_id == "newer" and not reader.read().closed
    reader.close()
    newer.close()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda raw: b"", "cannot be read"),
        (lambda raw: b"x" * len(raw), "not a simulated world"),
        (lambda raw: raw[:9000], "cut short"),
        (lambda raw: raw.replace(b'"format": 1', b'"format": 9'), "format 9"),
        (lambda raw: raw[:20] + b"}" * 30 + raw[50:], "damaged"),
    ],
)
def test_a_file_that_is_no_world_is_named(world, tmp_path, spoil, message):
    path = tmp_path / "spoilt"
    path.write_bytes(spoil(world[0].read_bytes()))
    with pytest.raises(WorldError, match=message) as caught:
        WorldReader(path)
    assert str(path) in str(caught.value)


def test_nothing_is_left_when_the_place_cannot_be_taken(tmp_path):
    (tmp_path / "world").mkdir()
    with pytest.raises(OSError):
        WorldWriter(tmp_path / "world", OPTIONS, "clock", state_of())
    assert [p.name for p in tmp_path.iterdir()] == ["world"]
