from dataclasses import replace

import numpy as np
import pytest

from daemon.engine.measures import Detection, FrameFlag, ParticleFlag
from daemon.events import Event, EventKind
from daemon.photometry.classify import (
    EventBudget,
    FrameFacts,
    InstrumentEvents,
    ParticleEpisodes,
    is_common,
    step_event,
)
from daemon.photometry.lookback import Step
from daemon.photometry.settle import Settled, Suspect


def facts(frame: int, every_s: float = 0.01, **changes) -> FrameFacts:
    values = {
        "block_id": frame, "drift_y_px": 0.0, "drift_x_px": 0.0, "illumination": 1.0, "focus": 1.0, "flags": 0,
    }  # fmt: skip
    return FrameFacts(frame=frame, t_s=frame * every_s, host_t_s=50.0 + frame * every_s, **(values | changes))


def watch(frames: list[FrameFacts]) -> list[Event]:
    instrument = InstrumentEvents()
    return [event for frame in frames for event in instrument.add(frame)] + instrument.finish()


def found(onset: int = 50, settled: int = 53, size: float = -0.01, common: float = 0.01, index: int = 0) -> Detection:
    return Detection(index, onset, settled, size, 1e-3, 40.0, common)


@pytest.mark.parametrize(
    ("flag", "change", "kind", "magnitude"),
    [
        (FrameFlag.FOCUS_JUMP, {"focus": 0.8}, EventKind.FOCUS_JUMP, -0.2),
        (FrameFlag.ILLUMINATION_STEP, {"illumination": 1.05}, EventKind.ILLUMINATION_STEP, 0.05),
        (FrameFlag.DRIFT_JUMP, {"drift_y_px": 3.0, "drift_x_px": 4.0}, EventKind.DRIFT_JUMP, 5.0),
    ],
)
def test_flags_become_events_with_their_size(flag: FrameFlag, change: dict, kind: EventKind, magnitude: float) -> None:
    frames = [facts(k) for k in range(20)] + [facts(k, flags=int(flag), **change) for k in range(20, 24)]
    (event,) = watch(frames)
    assert event.kind is kind
    assert event.particle_id is None
    assert event.magnitude == pytest.approx(magnitude)
    assert event.t_s == event.detected_t_s == pytest.approx(0.2)
    assert event.detected_host_t_s == pytest.approx(50.2)


def test_light_that_is_gone_is_a_step_by_all_of_it_and_its_return_one_of_unknown_size() -> None:
    step, dark = int(FrameFlag.ILLUMINATION_STEP), int(FrameFlag.DARK)
    frames = [facts(k) for k in range(20)]
    frames += [facts(k, illumination=np.nan, flags=dark | (step if k == 20 else 0)) for k in range(20, 27)]
    frames += [facts(k, flags=step if k == 27 else 0) for k in range(27, 40)]
    gone, back = watch([replace(each, t_s=each.frame * 1.0) for each in frames])
    assert gone.kind is back.kind is EventKind.ILLUMINATION_STEP
    assert gone.magnitude == -1.0 and np.isnan(back.magnitude)


def test_a_jump_out_of_sight_has_the_size_of_the_whole_way() -> None:
    unknown = {"drift_y_px": np.nan, "drift_x_px": np.nan, "illumination": 2.8, "flags": int(FrameFlag.DRIFT_UNKNOWN)}
    frames = [facts(k) for k in range(20)] + [facts(k, **unknown) for k in range(20, 90)]
    frames.append(facts(90, drift_y_px=3.0, drift_x_px=4.0, flags=int(FrameFlag.DRIFT_JUMP)))
    (event,) = watch(frames)
    assert event.magnitude == 5.0


def test_light_is_compared_with_frames_that_showed_the_scene() -> None:
    unknown = {"illumination": 2.8, "flags": int(FrameFlag.DRIFT_UNKNOWN)}
    frames = [facts(k) for k in range(12)] + [facts(k, **unknown) for k in range(12, 20)]
    (event,) = watch([*frames, facts(20, illumination=1.1, flags=int(FrameFlag.ILLUMINATION_STEP))])
    assert event.magnitude == pytest.approx(0.1)


def test_a_second_jump_later_is_told_again() -> None:
    flags = {20: int(FrameFlag.FOCUS_JUMP), 90: int(FrameFlag.FOCUS_JUMP)}
    assert len(watch([facts(k, flags=flags.get(k, 0)) for k in range(100)])) == 2


def test_drops_are_counted_from_block_ids_and_told_at_most_once_a_second() -> None:
    frames, block = [], 0
    for k in range(300):
        lost = 3 if k % 10 == 5 else 0
        block += 1 + lost
        frames.append(facts(k, block_id=block, flags=int(FrameFlag.GAP_BEFORE) if lost else 0))
    events = watch(frames)
    assert {event.kind for event in events} == {EventKind.FRAMES_DROPPED}
    assert len(events) <= 5
    assert sum(event.magnitude for event in events) == 90
    assert events[0].detected_t_s == pytest.approx(0.05)


def test_a_gap_without_block_ids_counts_one() -> None:
    (event,) = watch([facts(0, block_id=0), facts(1, block_id=0, flags=int(FrameFlag.GAP_BEFORE))])
    assert event.magnitude == 1


def test_a_common_step_is_the_instrument_s_and_said_once() -> None:
    instrument = InstrumentEvents()
    for k in range(53):
        instrument.add(facts(k))
    now = facts(53, focus=0.9)
    instrument.add(now)
    onset = instrument.onset_t_s(50, now)
    events = [event for index in range(30) for event in instrument.common(found(index=index, common=0.9), now, onset)]
    assert [event.kind for event in events] == [EventKind.FOCUS_JUMP]
    assert events[0].magnitude == pytest.approx(-0.1)
    assert events[0].t_s == pytest.approx(0.5)
    assert instrument.explains(onset, 50)


def test_a_common_step_under_steady_light_and_focus_is_the_cells_own() -> None:
    instrument = InstrumentEvents()
    for k in range(54):
        instrument.add(facts(k))
    assert instrument.common(found(common=0.9, size=-0.02), facts(53), 0.5) == []


@pytest.mark.parametrize(("every_s", "frame", "explained"), [(0.01, 75, True), (0.01, 85, False), (0.6, 52, True)])
def test_steps_near_a_jump_are_explained_by_it(every_s: float, frame: int, explained: bool) -> None:
    instrument = InstrumentEvents()
    for k in range(100):
        instrument.add(facts(k, every_s, flags=int(FrameFlag.FOCUS_JUMP) if k == 50 else 0))
    assert instrument.explains(frame * every_s, frame) == explained


def test_common_needs_a_share_and_a_number() -> None:
    assert is_common(found(common=0.5), 300)
    assert not is_common(found(common=0.1), 300)
    assert not is_common(found(common=1.0), 1)
    assert not is_common(found(common=0.5), 4)


@pytest.mark.parametrize("kind", [EventKind.STEP, EventKind.CRACK, EventKind.CRACK_CLOSED])
def test_a_step_is_known_from_its_alarm_and_others_when_told_apart(kind: EventKind) -> None:
    suspect = Suspect(found(size=-0.04), 0.5, facts(53), 1.2)
    settled = Settled(suspect, facts(120), Step(0.51, -0.05, 2e-4), False, False, True, True, None, np.full(14, np.nan))
    event = step_event(settled, 12, kind)
    assert (event.kind, event.particle_id, event.t_s) == (kind, 12, 0.51)
    assert event.detected_t_s == pytest.approx(0.53 if kind is EventKind.STEP else 1.2)
    assert event.detected_host_t_s == pytest.approx(51.2), "the frame that let it be told"
    assert (event.magnitude, event.magnitude_sigma, event.score) == (-0.05, 2e-4, 40.0)


def test_onsets_are_dated_by_kept_frames_and_beyond_them_by_rate() -> None:
    instrument = InstrumentEvents()
    for k in range(100, 150):
        instrument.add(facts(k))
    assert instrument.onset_t_s(120, facts(149)) == pytest.approx(1.2)
    assert instrument.onset_t_s(149, facts(149)) == pytest.approx(1.49)
    assert instrument.onset_t_s(90, facts(149)) == pytest.approx(0.9)
    assert instrument.onset_t_s(-(10**6), facts(149)) == 0.0


def episodes(particle_flags: list[int], every_s: float = 1.0, **changes) -> list[Event]:
    watcher = ParticleEpisodes(np.array([5]), 5.0)
    return [
        event
        for k, flag in enumerate(particle_flags)
        for event in watcher.add(facts(k, every_s, **changes), np.array([flag], np.uint16))
    ]


def test_saturation_is_told_once_an_episode() -> None:
    saturated = int(ParticleFlag.SATURATED)
    events = episodes([0, saturated, saturated, 0, saturated, *[0] * 15, saturated])
    assert [(event.kind, event.t_s) for event in events] == [(EventKind.SATURATED, 1.0), (EventKind.SATURATED, 20.0)]


def test_lost_after_a_while_at_the_edge_dated_from_its_start() -> None:
    edge = int(ParticleFlag.EDGE)
    (event,) = episodes([0, 0] + [edge] * 20)
    assert (event.kind, event.t_s, event.detected_t_s) == (EventKind.LOST, 2.0, 11.0)
    assert episodes([edge] * 4 + [0] + [edge] * 4) == []


def test_a_particle_that_comes_back_is_no_longer_lost() -> None:
    watcher = ParticleEpisodes(np.array([5]), 5.0)
    for k in range(20):
        watcher.add(facts(k, 1.0), np.array([ParticleFlag.EDGE], np.uint16))
    assert watcher.lost[0]
    watcher.add(facts(20, 1.0), np.array([0], np.uint16))
    assert not watcher.lost[0]


def test_a_particle_that_flickers_at_the_edge_is_lost_once() -> None:
    edge = int(ParticleFlag.EDGE)
    flickers = [edge] * 15 + ([0] * 3 + [edge] * 15) * 4
    assert len(episodes(flickers)) == 1
    again = episodes(flickers + [0] * 12 + [edge] * 15)
    assert [event.t_s for event in again] == [0.0, float(len(flickers) + 12)]


def test_frames_without_measures_say_nothing() -> None:
    assert episodes([int(ParticleFlag.SATURATED)], flags=int(FrameFlag.REPEATED)) == []


def test_particle_events_are_bounded_and_the_rest_counted() -> None:
    budget = EventBudget(0)
    event = Event(EventKind.STEP, 0.0, 0.0, particle_id=1)
    assert len(budget.admit([event] * 500)) == budget.burst == 200
    assert budget.suppressed == 300
    assert budget.admit([event]) == []
    budget.frame()
    told, untold = budget.admit([event, event])
    assert told.detail.startswith("301 ")
    assert untold.detail == ""
    assert budget.suppressed == 301
    assert EventBudget(300).burst > 300
