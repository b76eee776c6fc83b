"""What was wrong with a recording and yet survivable, and the door through which foreign parsers' errors leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hw.errors import RecordingError, RecordingReason


class Fault(NamedTuple):
    """Something wrong that did not stop the rest from being used."""

    code: str
    """Stable code of a `RecordingReason`."""
    detail: str
    """A sentence that names the dataset."""
    index: int | None = None  # type: ignore[assignment]  # nobody searches a fault for a value
    """First frame or sample concerned, in the file's own counting."""

    @classmethod
    def bad_dataset(cls, detail: str, index: int | None = None) -> Fault:
        """Something in the file is not as the layout says."""
        return cls(RecordingReason.BAD_DATASET.code, detail, index)

    @classmethod
    def truncated(cls, detail: str, index: int | None = None) -> Fault:
        """Something declared is not there."""
        return cls(RecordingReason.TRUNCATED.code, detail, index)


@contextmanager
def refused_as(reason: RecordingReason, detail: str, index: int | None = None) -> Iterator[None]:
    """Whatever a parser raises on foreign bytes leaves as a `RecordingError`: they fail in too many ways to list."""
    try:
        yield
    except RecordingError:
        raise
    except MemoryError as error:
        raise RecordingError(
            RecordingReason.BAD_DATASET, f"{detail}: it declares more than fits memory", index
        ) from error
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecordingError(reason, f"{detail}: {why}", index) from error
