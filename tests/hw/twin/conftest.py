"""A small instrument for the tests of this folder."""

import pytest

from hw.twin.instrument import TwinInstrument
from hw.twin.settings import TwinOptions

SMALL = {"particles": 6, "height_px": 120, "width_px": 160, "frame_rate_hz": 1.0}


def options_of(**options):
    return TwinOptions(**SMALL | options)


@pytest.fixture
def make():
    """Builds a small instrument from options; `c_rate` and `rest_s` go to its cycler."""

    def build(c_rate=None, rest_s=0.0, **options):
        return TwinInstrument(options_of(**options), c_rate, rest_s)

    return build
