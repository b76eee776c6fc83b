import pytest

from hw.errors import UsbError, UsbReason
from hw.usb.ladder import Ladder, Rung

FAULT = UsbError(UsbReason.STALLED, "no frame")


class Scene:
    def __init__(self, **more):
        self.now_s, self.done, self.broken = 0.0, [], set()
        rungs = [Rung(name, lambda name=name: self.act(name), tries) for name, tries in (("retry", 2), ("clear", 1))]
        self.ladder = Ladder([*rungs, Rung("reset", lambda: self.act("reset"))], clock=lambda: self.now_s, **more)

    def act(self, name):
        self.done.append(name)
        if name in self.broken:
            raise UsbError(UsbReason.UNPLUGGED, f"{name} failed")


def test_it_climbs_to_the_top_and_gives_up_with_the_error():
    scene = Scene()
    assert [scene.ladder.failed(FAULT) for _ in range(4)] == ["retry", "retry", "clear", "reset"]
    with pytest.raises(UsbError) as caught:
        scene.ladder.failed(FAULT)
    assert caught.value is FAULT
    assert scene.ladder.counts == {"retry": 2, "clear": 1, "reset": 1, "give up": 1}


def test_success_that_lasts_begins_at_the_bottom_again():
    scene = Scene(settle_s=1.0)
    for _ in range(3):
        scene.ladder.failed(FAULT)
    scene.ladder.worked()
    scene.now_s = 0.9
    scene.ladder.worked()
    assert scene.ladder.troubled and scene.ladder.failed(FAULT) == "reset"  # it did not last
    scene.ladder.worked()
    scene.now_s = 2.0
    scene.ladder.worked()
    assert not scene.ladder.troubled and scene.ladder.failed(FAULT) == "retry"


def test_a_remedy_that_fails_hands_on_to_the_next_and_its_error_is_told():
    scene = Scene()
    scene.broken = {"clear", "reset"}
    assert [scene.ladder.failed(FAULT) for _ in range(2)] == ["retry", "retry"]
    with pytest.raises(UsbError, match="reset failed"):
        scene.ladder.failed(FAULT)
    assert scene.done == ["retry", "retry", "clear", "reset"]


def test_the_whole_takes_no_longer_than_it_may():
    scene = Scene(within_s=5.0)
    scene.ladder.failed(FAULT)
    scene.now_s = 6.0
    with pytest.raises(UsbError):
        scene.ladder.failed(FAULT)
    assert scene.done == ["retry"]


def test_success_without_trouble_is_nothing():
    scene = Scene()
    scene.ladder.worked()
    assert not scene.ladder.troubled and not scene.ladder.counts
