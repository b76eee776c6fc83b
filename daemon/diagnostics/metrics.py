"""The figures of `/metrics`, each set by one typed method, so that no other part touches the metrics library.

Counters count within the life of the process. All methods are cheap and may be called from any thread.
"""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from daemon.events import EventKind

disable_created_metrics()  # a second line for each counter that nothing reads

STAGE_BUCKETS_S = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 1e-2, 2e-2, 5e-2, 0.1, 1.0)  # a frame lasts 10 ms
LATENCY_BUCKETS_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
COMMIT_BUCKETS_S = (1e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LAG_BUCKETS_S = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
MAX_LABELS = 100  # distinct label values a metric; further ones are counted as "other"


class Metrics:
    """The registry and its typed methods. Construct once a process (or once a test)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._documented: list[tuple[str, str, str, tuple[str, ...]]] = []
        self._labels: dict[str, set[tuple[str, ...]]] = {}
        self._last_frame_s: float | None = None
        self._last_sample_s: float | None = None
        self._last_selftest_s: float | None = None
        self._frame_metrics()
        self._flow_metrics()
        self._store_metrics()
        self._process_metrics()
        self._outcome_metrics()

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def documentation(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """(name, type, sentence, labels) of every metric, in order of name."""
        return sorted(self._documented)

    def frames_captured(self, count: int) -> None:
        """Frames that the camera delivered or itself reported as lost."""
        self._captured.inc(count)

    def frames_idle(self, count: int) -> None:
        """Frames that came while no run was in progress."""
        self._idle.inc(count)

    def frames_processed(self, count: int) -> None:
        """Frames that were measured."""
        self._processed.inc(count)

    def frames_stored(self, count: int) -> None:
        """Frames whose results were committed."""
        self._stored.inc(count)

    def frames_dropped(self, stage: str, reason: str, count: int = 1) -> None:
        """Frames lost at `stage` (camera, ring, link, store) for `reason`."""
        self._dropped.labels(*self._bounded("dropped", stage, reason)).inc(count)

    def frames_in_flight(self, count: int) -> None:
        """Frames captured, neither stored nor dropped yet."""
        self._in_flight.set(count)

    def frames_unaccounted(self, count: int) -> None:
        """Captured minus idle, stored, dropped and in flight: anything but 0 is a fault of the software."""
        self._unaccounted.set(count)

    def frame_arrived(self, host_t_s: float) -> None:
        """`time.monotonic()` of the newest frame."""
        self._last_frame_s = host_t_s

    def cell_sample_arrived(self, host_t_s: float, count: int = 1) -> None:
        """`time.monotonic()` of the newest of `count` cell samples."""
        self._last_sample_s = host_t_s
        self._samples.inc(count)

    @property
    def last_frame_age_s(self) -> float | None:
        """Seconds since the newest frame; None before the first."""
        return _age_s(self._last_frame_s)

    @property
    def last_sample_age_s(self) -> float | None:
        """Seconds since the newest cell sample; None before the first."""
        return _age_s(self._last_sample_s)

    def queue(self, name: str, depth: int, bound: int) -> None:
        """How full a bounded queue is."""
        (label,) = self._bounded("queue", name)
        self._depth.labels(label).set(depth)
        self._bound.labels(label).set(bound)

    def queue_dropped(self, name: str, count: int = 1) -> None:
        """Items (frames) refused by a full queue."""
        self._queue_dropped.labels(*self._bounded("queue", name)).inc(count)

    def stage_duration(self, stage: str, duration_s: float) -> None:
        """What one frame took in `stage` (unpack, register, measure, detect, science)."""
        self._stage.labels(*self._bounded("stage", stage)).observe(duration_s)

    def event(self, kind: str, latency_s: float | None = None) -> None:
        """An event reached the feed, `latency_s` after the frame that settled it."""
        self._events.labels(*self._bounded("event", kind)).inc()
        if latency_s is not None:
            self._latency.observe(latency_s)

    def commit(self, duration_s: float, written_bytes: int = 0) -> None:
        """One commit of the store."""
        self._commit.observe(duration_s)
        self._written.inc(written_bytes)

    def wal_bytes(self, size_bytes: int) -> None:
        """Size of the store's write-ahead log."""
        self._wal.set(size_bytes)

    def failed_commits(self, count: int) -> None:
        """Commits that failed since last told."""
        self._failed_commits.inc(count)

    def store_lag(self, lag_s: float) -> None:
        """Age of the oldest thing that is not on disk yet."""
        self._store_lag.set(lag_s)

    def free_bytes(self, size_bytes: int) -> None:
        """Free space where results are kept."""
        self._free.set(size_bytes)

    def full_in(self, hours: float | None) -> None:
        """Hours until a run ends for want of room, None when not known."""
        self._full_in.set(float("nan") if hours is None else 3600 * hours)

    def storage_written(self, process: str, count_bytes: int) -> None:
        """Bytes that `process` sent to storage, its logs and SQLite's among them."""
        self._on_storage.labels(*self._bounded("process", process)).inc(count_bytes)

    def runs_deleted(self, count: int) -> None:
        """Runs deleted so far."""
        self._runs_deleted.set(count)

    def maintenance(self, job: str, outcome: str, took_s: float) -> None:
        """A job of maintenance ended."""
        self._maintained.labels(*self._bounded("maintenance", job, outcome)).inc()
        self._maintenance_took.labels(*self._bounded("job", job)).set(took_s)
        if outcome == "done":
            self._maintenance_utc.labels(*self._bounded("job", job)).set_to_current_time()

    def loss_bound(self, bound_s: float) -> None:
        """What a power cut may cost, by configuration."""
        self._loss_bound.set(bound_s)

    def loop_lag(self, lag_s: float) -> None:
        """How late the event loop woke a sleeper."""
        self._lag.observe(lag_s)

    def resident_memory(self, process: str, size_bytes: int) -> None:
        """Resident memory of `process` (daemon, engine)."""
        self._rss.labels(*self._bounded("process", process)).set(size_bytes)

    def camera_remedy(self, step: str, count: int) -> None:
        """The camera's driver tried a remedy (clear, restart, reset) `count` times more."""
        self._remedies.labels(*self._bounded("remedy", step)).inc(count)

    def reconnected(self, device: str, count: int = 1) -> None:
        """A device (camera, potentiostat) was opened anew after it was lost, `count` times more."""
        self._reconnects.labels(*self._bounded("device", device)).inc(count)

    def engine_restarted(self) -> None:
        """The engine process was started again after a failure."""
        self._restarts.inc()

    def clock_offset(self, offset_s: float, sigma_s: float) -> None:
        """Camera time minus potentiostat time as fitted, and its uncertainty."""
        self._offset.set(offset_s)
        self._offset_sigma.set(sigma_s)

    def clock_step(self) -> None:
        """The wall clock was stepped."""
        self._steps.inc()

    def fault(self, code: str) -> None:
        """A fault was recorded."""
        self._faults.labels(*self._bounded("fault", code)).inc()

    def particles(self, state: str, count: int) -> None:
        """Particles of the current run in `state`."""
        self._particles.labels(*self._bounded("state", state)).set(count)

    def request(self, method: str, status: int, duration_s: float) -> None:
        """One HTTP request was answered."""
        self._requests.labels(*self._bounded("request", method, str(status))).inc()
        self._request_duration.observe(duration_s)

    def unauthorised(self, kind: str) -> None:
        """A request was refused for want of a token: `missing`, `malformed`, `unknown`, `expired`, `proxied`, ..."""
        self._unauthorised.labels(*self._bounded("unauthorised", kind)).inc()

    def selftest(self, check: str, severity: int) -> None:
        """Last result of a self-test check: 0 pass, 1 warn, 2 fail."""
        self._selftest.labels(*self._bounded("check", check)).set(severity)
        self._last_selftest_s = time.monotonic()

    def snapshot(self) -> None:
        """Evidence of a fault was written."""
        self._snapshots.inc()

    def part(self, name: str, severity: int) -> None:
        """State of a part: 0 ready or stopped, 1 starting or degraded, 2 failed."""
        self._parts.labels(*self._bounded("part", name)).set(severity)

    def log_lines_dropped(self, count: int) -> None:
        """Log lines lost so far because they came faster than they could be written."""
        self._log_dropped.set(count)

    def _frame_metrics(self) -> None:
        self._captured = self._counter("frames_captured", "Frames the camera delivered or reported as lost.")
        self._idle = self._counter("frames_idle", "Frames that came while no run was in progress.")
        self._processed = self._counter("frames_processed", "Frames measured.")
        self._stored = self._counter("frames_stored", "Frames whose results were committed.")
        self._dropped = self._counter("frames_dropped", "Frames lost, by stage and reason.", "stage", "reason")
        self._in_flight = self._gauge("frames_in_flight", "Frames captured, neither stored nor dropped yet.")
        self._unaccounted = self._gauge(
            "frames_unaccounted", "Captured minus idle, stored, dropped and in flight; must be 0."
        )
        age = self._gauge("last_frame_age_seconds", "Time since the newest frame; NaN before the first.")
        age.set_function(lambda: _or_nan(self.last_frame_age_s))
        self._samples = self._counter("cell_samples", "Samples the potentiostat delivered.")
        sample_age = self._gauge(
            "last_cell_sample_age_seconds", "Time since the newest cell sample; NaN before the first."
        )
        sample_age.set_function(lambda: _or_nan(self.last_sample_age_s))

    def _flow_metrics(self) -> None:
        self._depth = self._gauge("queue_depth_items", "Items waiting in a bounded queue.", "queue")
        self._bound = self._gauge("queue_bound_items", "The most items a queue takes.", "queue")
        self._queue_dropped = self._counter("queue_dropped_items", "Items (frames) that a full queue refused.", "queue")
        self._stage = self._histogram(
            "stage_duration_seconds", "Time a frame took in a stage.", STAGE_BUCKETS_S, "stage"
        )
        self._latency = self._histogram(
            "event_latency_seconds", "From the frame that settled an event to the event feed.", LATENCY_BUCKETS_S
        )

    def _store_metrics(self) -> None:
        self._commit = self._histogram("commit_duration_seconds", "Time a commit of the store took.", COMMIT_BUCKETS_S)
        self._written = self._counter("store_written_bytes", "Bytes handed to the store.")
        self._failed_commits = self._counter("failed_commits", "Commits of the store that failed.")
        self._store_lag = self._gauge("store_lag_seconds", "Age of the oldest result that is not on disk yet.")
        self._wal = self._gauge("store_wal_bytes", "Size of the write-ahead log.")
        self._free = self._gauge("store_free_bytes", "Free space where results are kept.")
        self._full_in = self._gauge("store_full_in_seconds", "Until a run ends for want of room; NaN: not known.")
        self._full_in.set(float("nan"))
        self._on_storage = self._counter("storage_written_bytes", "Bytes sent to storage, by process.", "process")
        self._runs_deleted = self._gauge("runs_deleted", "Runs deleted since the start of the process.")
        self._maintained = self._counter("maintenance_runs", "Runs of maintenance jobs.", "job", "outcome")
        self._maintenance_took = self._gauge("maintenance_duration_seconds", "What a job last took.", "job")
        self._maintenance_utc = self._gauge("maintenance_done_timestamp_seconds", "When a job was last done.", "job")
        self._loss_bound = self._gauge("store_loss_bound_seconds", "What a power cut may cost.")

    def _process_metrics(self) -> None:
        self._lag = self._histogram("loop_lag_seconds", "How late the event loop woke a sleeper.", LAG_BUCKETS_S)
        self._rss = self._gauge("resident_memory_bytes", "Resident memory by process.", "process")
        self._remedies = self._counter(
            "camera_remedies", "Remedies that the camera's driver tried: clearing, restarting, resetting it.", "step"
        )
        self._reconnects = self._counter("reconnects", "Devices opened anew after they were lost.", "device")
        self._restarts = self._counter("engine_restarts", "Starts of the engine after a failure.")
        self._offset = self._gauge("clock_offset_seconds", "Camera time minus potentiostat time, fitted.")
        self._offset_sigma = self._gauge("clock_offset_sigma_seconds", "Uncertainty of the clock offset.")
        self._steps = self._counter("clock_steps", "Steps of the wall clock.")
        self._requests = self._counter("http_requests", "Requests answered.", "method", "status")
        self._unauthorised = self._counter("http_unauthorised", "Requests without a token that is let in.", "kind")
        self._request_duration = self._histogram(
            "http_request_duration_seconds", "Time to an answer.", LATENCY_BUCKETS_S
        )
        self._log_dropped = self._gauge("log_dropped_lines", "Log lines lost because they came too fast.")

    def _outcome_metrics(self) -> None:
        self._events = self._counter("events", "Events by kind.", "kind")
        for kind in EventKind:  # a counter that appears with its first event has not risen, for Prometheus
            self._events.labels(*self._bounded("event", kind.value))
        self._faults = self._counter("faults", "Faults recorded, by code.", "code")
        self._particles = self._gauge("particles", "Particles of the current run by state.", "state")
        self._parts = self._gauge("part_severity", "A part's state: 0 well, 1 starting or degraded, 2 failed.", "part")
        self._snapshots = self._counter("snapshots", "Snapshots written at the first fault of a kind.")
        age = self._gauge("selftest_age_seconds", "Time since the last self-test; NaN before the first.")
        age.set_function(lambda: _or_nan(_age_s(self._last_selftest_s)))
        self._selftest = self._gauge("selftest_severity", "Last result of a check: 0 pass, 1 warn, 2 fail.", "check")

    def _counter(self, name: str, sentence: str, *labels: str) -> Counter:
        return Counter(
            self._named(f"{name}_total", "counter", sentence, labels), sentence, labels, registry=self._registry
        )

    def _gauge(self, name: str, sentence: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, "gauge", sentence, labels), sentence, labels, registry=self._registry)

    def _histogram(self, name: str, sentence: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        full = self._named(name, "histogram", sentence, labels)
        return Histogram(full, sentence, labels, registry=self._registry, buckets=buckets)

    def _named(self, name: str, kind: str, sentence: str, labels: tuple[str, ...]) -> str:
        self._documented.append((f"instrument_{name}", kind, sentence, labels))
        return f"instrument_{name}"

    def _bounded(self, family: str, *values: str) -> tuple[str, ...]:
        """`values`, or "other" for each once the family has too many combinations."""
        known = self._labels.setdefault(family, set())
        if values in known or len(known) < MAX_LABELS:
            known.add(values)
            return values
        return ("other",) * len(values)


def _age_s(moment_s: float | None) -> float | None:
    return None if moment_s is None else time.monotonic() - moment_s


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
