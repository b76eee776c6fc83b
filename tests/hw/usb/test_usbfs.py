import pytest

from hw.usb import usbfs
from hw.usb.usbfs import advice, frames_that_fit, memory_limit_mb

FRAME = 1920 * 1200


@pytest.mark.parametrize(
    ("limit_mb", "wanted", "fit"),
    [(16, 8, 6), (16, 4, 4), (256, 8, 8), (0, 500, 500), (None, 8, 8), (1, 8, 2), (1, 1, 1)],
)
def test_what_the_kernels_memory_holds(limit_mb, wanted, fit):
    assert frames_that_fit(wanted, FRAME, 3, limit_mb) == fit


def test_advice_says_how_much_is_needed():
    assert advice(8, 8, FRAME, 163.0, 256) is None
    told = advice(8, 6, FRAME, 163.0, 16)
    assert "holds 6 of 8 frames, 37 ms" in told and "20 or more" in told
    assert frames_that_fit(8, FRAME, 3, 20) == 8  # what is advised is enough


def test_the_limit_is_read_from_the_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(usbfs, "LIMIT", tmp_path / "mb")
    assert memory_limit_mb() is None
    (tmp_path / "mb").write_text("16\n")
    assert memory_limit_mb() == 16
