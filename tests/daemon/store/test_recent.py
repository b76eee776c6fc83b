"""Columns that were read lately."""

from __future__ import annotations

import numpy as np

from daemon.store import reader as module
from daemon.store.codec import Unpacked
from daemon.store.reader import RunReader
from daemon.store.recent import Recent
from tests.daemon.api.fakes import make_run


def column(value: int, size: int = 40) -> Unpacked:
    return Unpacked(np.full(size, value, np.uint8), np.zeros(10, np.uint8))


def test_what_was_read_is_kept_within_its_bound():
    recent = Recent(1000)
    for number in range(50):
        recent.put(number, column(number))
        recent.put(number, column(number))  # a second time takes no more room
        recent.get(0)
    held = [number for number in range(50) if recent.get(number) is not None]
    assert held == [0, *range(31, 50)]  # what is asked for stays
    assert recent.get(49).stored[0] == 49
    recent.forget()
    assert recent.get(49) is None
    recent.put(1, column(1, 2000))  # more than there is room for
    assert recent.get(1) is None


def test_a_chunk_is_read_once_for_whoever_watches_some_particles(tmp_path, monkeypatch):
    asked = []
    load = RunReader._columns_of

    def counting(reader, chunk_id, places):
        asked.append(places)
        return load(reader, chunk_id, places)

    monkeypatch.setattr(RunReader, "_columns_of", counting)
    monkeypatch.setattr(module, "RECENT", Recent())
    path = make_run(tmp_path / "r1.db").path
    with RunReader(path) as reader:
        whole = reader.particle_columns(("contrast", "flags"))[1]
        chunks = len(asked)
        assert chunks > 1
        for indices in ([0, 2], [3], [1, 2]):
            frames, values = reader.particle_columns(("contrast", "flags"), indices)
            for name, array in values.items():
                np.testing.assert_array_equal(array, whole[name][:, indices])
                array[:] = 0  # is the caller's own
            assert frames["t_s"][-1] > 0
            frames["t_s"][:] = 0
        assert len(asked) == 2 * chunks
        reader.frames()
    with RunReader(path) as reader:  # and by whoever opens the file next
        reader.particle_columns(("contrast", "contrast_sigma"), [1])
    assert len(asked) == 4 * chunks
    assert asked[-1] == [("particle", "contrast_sigma")]


def test_another_file_of_the_same_name_is_another(tmp_path):
    path = make_run(tmp_path / "r1.db").path
    with RunReader(path) as reader:
        before = reader.particle_columns(("contrast",), [0])[1]["contrast"]
    path.rename(tmp_path / "r0.db")
    other = make_run(path, frames=len(before) // 2).path
    with RunReader(other) as reader:
        assert len(reader.particle_columns(("contrast",), [0])[1]["contrast"]) == len(before) // 2
