"""What holds across faults: frame numbers that go on, and pictures that must not repeat."""

from __future__ import annotations

import numpy as np

LOOKED_AT = 257  # pixels: noise never repeats so many


class BlockIds:
    """A camera's frame numbers as one series from its start, through restarts that the camera does not know of.

    After a restart the frames that were missed are reckoned from the time that passed: their number is not known.
    """

    def __init__(self, frame_rate_hz: float) -> None:
        self.frame_rate_hz = frame_rate_hz
        self._offset: int | None = None
        self._last: tuple[int, float] | None = None
        self.reckoned = 0
        """Frames that were lost as far as the time tells."""

    def interrupted(self) -> None:
        """The camera begins to count anew."""
        self._offset = None

    def next(self, block_id: int, host_t_s: float) -> int:
        """The number of a frame that the camera calls `block_id`; the first is 0, or 1 where the camera begins so."""
        if self._offset is None:
            self._offset = self._begin(block_id, host_t_s)
        number = block_id + self._offset
        self._last = number, host_t_s
        return number

    def _begin(self, block_id: int, host_t_s: float) -> int:
        if self._last is None:
            return 0 if block_id in (0, 1) else -block_id
        last, last_t_s = self._last
        step = max(1, round((host_t_s - last_t_s) * self.frame_rate_hz))
        self.reckoned += step - 1
        return last + step - block_id


class Repeats:
    """How long one picture has come again and again. A picture of one value only (saturated, dark) does not count: the
    engine flags it, and restarting the camera would not help."""

    def __init__(self) -> None:
        self._places: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._since_s: float | None = None

    def seen(self, payload: np.ndarray, host_t_s: float) -> float:
        """Seconds for which the picture has been the same; 0 when it is new."""
        if self._places is None or self._places[-1] != payload.size - 1:
            self._places = np.linspace(0, payload.size - 1, LOOKED_AT).astype(np.intp)
            self._last = None
        sample = payload[self._places]
        if self._last is None or (sample != self._last).any() or (sample == sample[0]).all():
            self._last, self._since_s = sample, host_t_s
        assert self._since_s is not None
        return host_t_s - self._since_s
