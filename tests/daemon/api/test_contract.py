"""The whole daemon keeps to its own OpenAPI document, whatever it is asked: a sample here, more in `make attack`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon.api.contract import Contract
from tests.service import SMALL, Service

SEED = int(os.environ.get("ATTACK_SEED", "1"))
EXAMPLES = int(os.environ.get("ATTACK_EXAMPLES", "2"))
ENOUGH_REQUESTS = 100


@pytest.mark.timeout(300 + 60 * EXAMPLES)
def test_no_answer_is_a_fault_or_undocumented(tmp_path: Path) -> None:
    toml = SMALL.replace("@AUTOSTART@", "").replace("port = 0", "port = 0\nmax_requests_per_s = 1e6")
    with Service(tmp_path / "service", toml) as service:
        run_id = service.post("/api/v1/runs", {"name": "one"}, timeout_s=90.0)["run_id"]
        service.wait_for(lambda status: status["run"] and status["run"]["frames"] > 40, 120)
        found = Contract(service.url, SEED, EXAMPLES, {"run_id": run_id}).run()
        print(f"seed {SEED}: {found.asked} requests, {dict(found.statuses)}")
        assert found.wrong == {}
        assert found.asked >= ENOUGH_REQUESTS
        assert found.statuses["200"] > 10
        assert not [line for line in service.lines if "Traceback" in line]
        assert service.get("/api/v1/healthz")
