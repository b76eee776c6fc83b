"""Where one frame's scene stands relative to the reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shift:
    """Drift of one frame: an integer part that moves the index sets and a sub-pixel rest that bends the masks."""

    base_y: int
    base_x: int
    rest_y: float
    rest_x: float
    blur_px2: float
    """Change of the PSF's variance since the reference, px**2."""
    known: bool
    jumped: bool

    @property
    def y_px(self) -> float:
        """Drift down the image, px."""
        return self.base_y + self.rest_y

    @property
    def x_px(self) -> float:
        """Drift along the line, px."""
        return self.base_x + self.rest_x
