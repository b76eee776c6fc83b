"""Alerts and dashboard ask for what the daemon says; promtool, where it is installed, understands rules and metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.diagnostics.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/photometryd.rules.yml"
RULE_TESTS = RULES.with_suffix(".test.yml")
BOARD = ROOT / "packaging/grafana/photometryd.json"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(ROOT / ".tools"))
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing: packaging/environment --for-tests fetches it on Debian"
)
DEADLINE_S = 50
SUFFIX = r"_(bucket|sum|count)$"


def exposed() -> set[str]:
    """Every name that a scrape may give."""
    names = set()
    for name, kind, _, _ in Metrics().documentation():
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def labels() -> dict[str, set[str]]:
    """The labels of each metric, beside those that Prometheus adds."""
    own = {"job", "instance", "le"}
    return {name: {*names, *own} for name, _, _, names in Metrics().documentation()}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def panels() -> list[dict[str, Any]]:
    return json.loads(BOARD.read_text(encoding="utf-8"))["panels"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", ()))
    for variable in json.loads(BOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_every_metric_asked_for_exists_with_its_labels() -> None:
    known, of = exposed(), labels()
    asked = 0
    for expression in expressions():
        for name, matchers in re.findall(r"(instrument_\w+)(?:\{([^}]*)\})?", expression):
            asked += 1
            assert name in known, expression
            base = re.sub(SUFFIX, "", name)
            assert set(re.findall(r"(\w+)=", matchers)) <= of[base], expression
    assert asked > 60


def test_what_everybody_looks_for_is_on_the_board() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel.get("targets", ()))
    looked_for = (
        "frames_captured_total frames_processed_total frames_stored_total frames_dropped_total frames_unaccounted "
        "queue_depth_items queue_bound_items stage_duration_seconds camera_remedies_total reconnects_total "
        "last_frame_age_seconds commit_duration_seconds store_wal_bytes storage_written_bytes_total loop_lag_seconds "
        "resident_memory_bytes clock_offset_seconds clock_steps_total selftest_severity store_loss_bound_seconds"
    )
    assert [name for name in looked_for.split() if f"instrument_{name}" not in shown] == []


def test_legends_name_labels_that_there_are() -> None:
    of = labels()
    for panel in panels():
        for target in panel.get("targets", ()):
            asked = [re.sub(SUFFIX, "", name) for name in re.findall(r"instrument_\w+", target["expr"])]
            known = set().union(*(of.get(name, set()) for name in asked))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, target


def test_panels_have_a_place_and_a_sentence_each() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith(".")


def test_every_alert_tells_what_to_do_and_names_pages_that_there_are() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        for page in re.findall(r"docs/[\w/]+\.md", rule["annotations"]["description"]):
            assert (ROOT / page).exists(), page


def test_every_alert_is_tried_by_the_rules_own_tests() -> None:
    text = RULE_TESTS.read_text(encoding="utf-8")
    assert [rule["alert"] for rule in alerts() if f'"{rule["alert"]}"' not in text] == []


def promtool(*arguments: str, given: bytes = b"") -> str:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=given, capture_output=True, timeout=DEADLINE_S, check=False, cwd=RULES.parent
    )
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, told
    return told


@needs_promtool
def test_promtool_understands_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES.name)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS.name)


@needs_promtool
def test_promtool_has_nothing_to_say_about_the_metrics() -> None:
    metrics = Metrics()
    metrics.frames_dropped("ring", "full")
    metrics.stage_duration("engine", 0.003)
    metrics.commit(0.01, 100)
    metrics.queue("ring", 1, 64)
    metrics.selftest("clock", 1)
    assert promtool("check", "metrics", given=metrics.text()).strip() == ""
