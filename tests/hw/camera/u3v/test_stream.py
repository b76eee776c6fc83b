import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.camera.u3v.registers import StreamNeeds
from hw.camera.u3v.stream import plan
from hw.errors import UsbError

FULL = 1920 * 1200


def test_a_whole_number_of_units_is_one_transfer():
    layout = plan(StreamNeeds(1024, FULL, 52, 32), FULL, 8 << 20, 1024)
    assert (layout.transfer_bytes, layout.transfers, layout.final_1_bytes, layout.final_2_bytes) == (FULL, 1, 0, 0)
    assert layout.leader_bytes == layout.trailer_bytes == 1024 and layout.body_bytes == FULL


def test_what_is_behind_whole_units_is_a_transfer_of_its_own():
    layout = plan(StreamNeeds(1024, FULL + 100, 52, 36), FULL, 1 << 20, 1024)
    assert list(layout.payload) == [1 << 20, 1 << 20, FULL - (2 << 20), 1024]


@given(
    alignment=st.sampled_from([1, 4, 16, 512, 1024, 4096, 65536]),
    image=st.integers(1, 5_000_000),
    chunks=st.integers(0, 3000),
    most=st.integers(1, 8 << 20),
    leader=st.integers(0, 5000),
)
def test_every_plan_is_one_a_camera_accepts_and_the_slot_holds(alignment, image, chunks, most, leader):
    needs = StreamNeeds(alignment, image + chunks, leader, leader)
    layout = plan(needs, image, max(most, image // 50), 1024)
    sizes = [*layout.payload, layout.leader_bytes, layout.trailer_bytes]
    assert all(size > 0 and size % alignment == 0 for size in sizes)
    assert sum(layout.payload) >= image + chunks and layout.leader_bytes >= max(leader, 1024)
    assert layout.body_bytes <= image and image - layout.body_bytes < alignment
    ends = [sum(list(layout.payload)[: k + 1]) for k in range(len(list(layout.payload)))]
    assert layout.body_bytes in [0, *ends]  # no transfer is in the slot in part
    assert layout.frame_bytes == sum(sizes)


def test_a_payload_smaller_than_its_image_is_refused():
    with pytest.raises(UsbError, match="needs 101"):
        plan(StreamNeeds(1, 100, 52, 32), 101, 1 << 20, 1024)
