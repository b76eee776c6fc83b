from __future__ import annotations

import numpy as np
import pytest

from daemon.store.assemble import MAX_CHUNK_FRAMES, ChunkAssembler, checked_batch, encode_chunk
from daemon.store.codec import decode_column
from tests.daemon.store.helpers import PARTICLES, frames


def test_batches_become_one_chunk_in_order():
    chunk = encode_chunk([checked_batch(*frames(first, 5)) for first in (10, 15, 20)])
    assert (chunk.first_frame, chunk.frames, chunk.particles, chunk.t0_s, chunk.t1_s) == (10, 15, PARTICLES, 0.10, 0.24)
    stored = {(per, name): (codec, blob) for per, name, codec, blob in chunk.columns}
    numbers = decode_column("frame", "frame", *stored["frame", "frame"], (15, PARTICLES))
    assert numbers.tolist() == list(range(10, 25))
    both_flags = [decode_column(per, "flags", *stored[per, "flags"], (15, PARTICLES)) for per in ("frame", "particle")]
    assert [flags.shape for flags in both_flags] == [(15,), (15, PARTICLES)]


def test_a_batch_is_a_copy():
    frame, particle = frames(0, 5)
    batch = checked_batch(frame, particle)
    particle["contrast"][:] = 99
    assert not (batch.particle_columns["contrast"] == 99).any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, p: p.pop("layer_core"), "layer_core"),
        (lambda f, p: p.update(extra=p["contrast"]), "extra"),
        (lambda f, p: f.update(focus=f["focus"][:-1]), "focus"),
        (lambda f, p: p.update(flags=p["flags"][:, :-1]), "flags"),
        (lambda f, p: f["t_s"].__setitem__(2, np.nan), "t_s"),
        (lambda f, p: p.update({name: values[:, 0] for name, values in p.items()}), "frames, particles"),
    ],
)
def test_wrong_columns_are_named(change, says):
    frame, particle = frames(0, 5)
    change(frame, particle)
    with pytest.raises(ValueError, match=says):
        checked_batch(frame, particle)


def test_a_full_chunk_and_other_particles_begin_a_new_one():
    assembler = ChunkAssembler()
    assembler.add(checked_batch(*frames(0, MAX_CHUNK_FRAMES - 4)), "first")
    assert assembler.fits(checked_batch(*frames(0, 4)))
    assert not assembler.fits(checked_batch(*frames(0, 5)))
    assert not assembler.fits(checked_batch(*frames(0, 4, particles=3)))
    batches, tokens = assembler.take()
    assert (len(batches), tokens, assembler.frames) == (1, ["first"], 0)
    assert assembler.fits(checked_batch(*frames(0, 1000)))
