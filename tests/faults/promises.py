"""What a writer's process said, against what its files hold afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from daemon.store.check import check_file
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.reading import forget_tallies
from daemon.store.recovery import recover
from tests.faults.subject import FRAMES


@dataclass
class Said:
    """Lines of `subject.py`."""

    run: bool = False
    ended: bool = False
    done: bool = False
    calls: int = 0
    frames: set[int] = field(default_factory=set)
    rows: set[float] = field(default_factory=set)
    clips: set[int] = field(default_factory=set)
    events: set[int] = field(default_factory=set)
    refused_frames: int = 0
    dropped: int | None = None

    @classmethod
    def of(cls, lines: Iterable[str]) -> Said:
        """Of whole lines."""
        said = cls()
        for line in lines:
            match line.split():
                case ["promised", "frames", first, count]:
                    said.frames |= set(range(int(first), int(first) + int(count)))
                case ["promised", "rows", turn]:
                    said.rows.add(float(turn))
                case ["promised", "clip", first]:
                    said.clips.add(int(first))
                case ["promised", "event", seq]:
                    said.events.add(int(seq))
                case ["promised", "run"]:
                    said.run = True
                case ["promised", "end"]:
                    said.ended = True
                case ["refused", _, count]:
                    said.refused_frames += int(count)
                case ["dropped", count]:
                    said.dropped = int(count)
                case ["calls", count]:
                    said.calls = int(count)
                case ["done"]:
                    said.done = True
                case words:
                    raise AssertionError(f"the writer said {words}")
        return said


def check(folder: Path, said: Said) -> None:
    """Recover as a daemon does at its start, then fail unless everything promised is there and whole."""
    forget_tallies()
    catalogue = folder / "instrument.db"
    if not catalogue.exists():
        assert not said.run
        return
    recover(catalogue)
    with CatalogueReader(catalogue) as reader:
        run, seqs = reader.run("r1"), {each.seq for each in reader.events()}
        assert not reader.damaged_rows, reader.damage
    assert seqs >= said.events
    if not said.run:
        return
    assert run is not None and run.state in ("interrupted", "done"), run
    assert not run.path.name.endswith("-1"), run
    assert run.state == "done" or not said.ended
    path = folder / "runs" / "r1.db"
    with RunReader(path) as reader:
        numbers = reader.frames()["frame"].tolist()
        assert set(numbers) >= said.frames
        assert {row["t_s"] for row in reader.ensemble()} >= said.rows
        assert {row["onset_frame"] for row in reader.clips()} >= said.clips
        assert {each.seq for each in reader.events()} >= said.events
        assert len(numbers) % FRAMES == 0 and len(numbers) == len(set(numbers)), "half a transaction"
        drops = sum(row["count"] for row in reader.drops())
        assert not reader.damaged_rows and not reader.corrupt_chunks
    if said.dropped is not None:
        assert said.dropped == said.refused_frames
        assert drops in (0, said.dropped) or drops <= said.dropped
    for each in (catalogue, path):
        outcome = check_file(each)
        assert outcome.is_sound, outcome
