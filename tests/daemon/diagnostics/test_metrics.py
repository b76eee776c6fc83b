"""Metrics: names, values, bounds."""

from __future__ import annotations

import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.diagnostics.metrics import MAX_LABELS, Metrics


def values(metrics: Metrics) -> dict[str, float]:
    """Sample name with labels -> value, as a scraper reads them."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_frames_add_up() -> None:
    metrics = Metrics()
    metrics.frames_captured(120)
    metrics.frames_idle(20)
    metrics.frames_processed(96)
    metrics.frames_stored(90)
    metrics.frames_dropped("ring", "full", 3)
    metrics.frames_dropped("camera", "block_gap")
    metrics.frames_in_flight(6)
    metrics.frames_unaccounted(0)
    found = values(metrics)
    dropped = [value for name, value in found.items() if name.startswith("instrument_frames_dropped_total{")]
    assert sorted(dropped) == [1, 3]
    in_flight = found["instrument_frames_in_flight"] + found["instrument_frames_idle_total"]
    assert (
        found["instrument_frames_captured_total"] == found["instrument_frames_stored_total"] + sum(dropped) + in_flight
    )
    assert found["instrument_frames_dropped_total{reason=full,stage=ring}"] == 3


def test_every_typed_method_moves_its_metric() -> None:
    metrics = Metrics()
    metrics.queue("link", 3, 64)
    metrics.queue_dropped("link", 2)
    metrics.stage_duration("measure", 0.004)
    metrics.event("crack", latency_s=0.11)
    metrics.event("focus_jump")
    metrics.commit(0.02, written_bytes=4096)
    metrics.wal_bytes(5)
    metrics.free_bytes(6)
    metrics.loss_bound(1.0)
    metrics.loop_lag(0.003)
    metrics.resident_memory("engine", 7)
    metrics.engine_restarted()
    metrics.clock_offset(0.5, 0.001)
    metrics.clock_step()
    metrics.fault("camera.stalled")
    metrics.particles("active", 290)
    metrics.request("GET", 200, 0.01)
    metrics.selftest("clock", 1)
    metrics.log_lines_dropped(8)
    metrics.part("camera", 2)
    metrics.snapshot()
    metrics.storage_written("engine", 4097)
    metrics.camera_remedy("reset", 3)
    metrics.reconnected("potentiostat", 2)
    metrics.failed_commits(1)
    metrics.store_lag(0.25)
    found = values(metrics)
    expected = {
        "queue_depth_items{queue=link}": 3, "queue_bound_items{queue=link}": 64,
        "queue_dropped_items_total{queue=link}": 2, "stage_duration_seconds_count{stage=measure}": 1,
        "events_total{kind=crack}": 1, "events_total{kind=focus_jump}": 1, "event_latency_seconds_count": 1,
        "event_latency_seconds_bucket{le=0.15}": 1, "event_latency_seconds_bucket{le=0.1}": 0,
        "commit_duration_seconds_sum": 0.02, "store_written_bytes_total": 4096, "store_wal_bytes": 5,
        "store_free_bytes": 6, "store_loss_bound_seconds": 1, "loop_lag_seconds_count": 1,
        "resident_memory_bytes{process=engine}": 7, "engine_restarts_total": 1, "clock_offset_seconds": 0.5,
        "clock_offset_sigma_seconds": 0.001, "clock_steps_total": 1, "faults_total{code=camera.stalled}": 1,
        "particles{state=active}": 290, "http_requests_total{method=GET,status=200}": 1,
        "selftest_severity{check=clock}": 1, "log_dropped_lines": 8, "part_severity{part=camera}": 2,
        "snapshots_total": 1,
        "storage_written_bytes_total{process=engine}": 4097, "camera_remedies_total{step=reset}": 3,
        "reconnects_total{device=potentiostat}": 2, "failed_commits_total": 1, "store_lag_seconds": 0.25,
    }  # fmt: skip
    assert {name: found[f"instrument_{name}"] for name in expected} == pytest.approx(expected)


def test_ages_run_on_the_monotonic_clock() -> None:
    metrics = Metrics()
    assert metrics.last_frame_age_s is None
    assert metrics.last_sample_age_s is None
    assert str(values(metrics)["instrument_last_frame_age_seconds"]) == "nan"
    metrics.frame_arrived(time.monotonic() - 5)
    metrics.cell_sample_arrived(time.monotonic() - 7, count=4)
    found = values(metrics)
    assert found["instrument_last_frame_age_seconds"] == pytest.approx(5, abs=1)
    assert found["instrument_last_cell_sample_age_seconds"] == pytest.approx(7, abs=1)
    assert found["instrument_cell_samples_total"] == 4
    assert str(values(metrics)["instrument_selftest_age_seconds"]) == "nan"
    metrics.selftest("clock", 0)
    assert values(metrics)["instrument_selftest_age_seconds"] == pytest.approx(0, abs=5)


def test_names_follow_the_convention() -> None:
    documented = Metrics().documentation()
    names = [name for name, *_ in documented]
    assert len(set(names)) == len(names)
    for name, kind, sentence, _ in documented:
        assert re.fullmatch(r"instrument_[a-z]+(_[a-z]+)*", name)
        assert (kind == "counter") == name.endswith("_total")
        assert sentence.endswith(".")


def test_the_documentation_lists_what_is_scraped() -> None:
    families = {family.name for family in text_string_to_metric_families(Metrics().text().decode())}
    assert families == {name.removesuffix("_total") for name, *_ in Metrics().documentation()}


def test_hostile_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_LABELS + 50):
        metrics.fault(f'x{number}"\n')
    found = [name for name in values(metrics) if name.startswith("instrument_faults_total{")]
    assert len(found) == MAX_LABELS + 1
    assert values(metrics)["instrument_faults_total{code=other}"] == 50


def test_two_instances_do_not_share_figures() -> None:
    one, other = Metrics(), Metrics()
    one.frames_captured(5)
    assert values(other)["instrument_frames_captured_total"] == 0
