"""Status, health, metrics, settings, versions."""

from __future__ import annotations

from daemon.api.instrument import worst
from daemon.api.models import ConfigReply
from daemon.config import MASK, load_settings, masked
from daemon.parts import PartStatus
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import ADMIN, READ, TOKENS, event

SIMULATED = load_settings(None, simulate=True, environ={}).origins


async def test_status_tells_every_part_and_nulls_what_is_not_known(served: Served) -> None:
    served.fakes.blocking = [PartStatus("store", "failed", "store.disk_full", "the disk is full", "Free space.")]
    served.fakes.feed.publish([event(41), event(42)])
    status = await served.json("GET", "/status")
    assert status["state"] == "failed"
    assert [part["name"] for part in status["parts"]] == ["engine", "cell", "store", "api"]
    assert status["parts"][2]["remedy"] == "Free space."
    assert status["science"] == {"particles_active": 3, "soc_mean": None}
    assert status["cell"] == {"state": "idle", "detail": "", "values": {"voltage_v": 3.7, "current_ma": None}}
    assert (status["run"], status["measuring"], status["last_event_seq"]) == (None, False, 42)
    assert (status["version"], status["uptime_s"]) == ("1.2.3", 5.0)


async def test_status_shows_the_run_in_progress(with_run: Served) -> None:
    status = await with_run.json("GET", "/status")
    assert status["run"]["run_id"] == "r1"
    assert status["run"]["path"].endswith("r1.db")
    assert status["measuring"]


def test_the_gravest_state_wins() -> None:
    lines = [PartStatus("a", "ready"), PartStatus("b", "degraded"), PartStatus("c", "stopped")]
    assert worst(lines) == "degraded"
    assert worst(lines[:1]) == "ready"
    assert worst([]) == "starting"


async def test_health_and_readiness_need_no_token(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    assert await served.json("GET", "/healthz") == {"status": "ok"}
    assert (await served.json("GET", "/readyz"))["ready"]
    served.fakes.blocking = [PartStatus("engine", "starting", "engine.silent", "compiling", "Wait.")]
    unready = await served.json("GET", "/readyz", 503)
    assert unready["blocking"][0]["name"] == "engine"
    assert (await served.json("GET", "/version"))["asks_for_tokens"]


async def test_metrics_are_prometheus_text(served: Served) -> None:
    async with served.ask("GET", "/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await response.read()).endswith(b"up 1.0\n")


async def test_config_shows_origin_and_hides_secrets(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    headers = {"Authorization": f"Bearer {READ}"}
    async with served.ask("GET", "/config", headers=headers) as response:
        text = await response.text()
    assert READ not in text
    assert ADMIN not in text
    settings = (await served.json("GET", "/config", headers=headers))["settings"]
    assert settings["api.port"] == {"value": 0, "origin": "file"}
    assert settings["api.host"]["origin"] == "default"
    assert settings["cell.limits"]["origin"] == "env"
    assert settings["api.tokens"]["value"][0] == {
        "name": "viewer",
        "secret": MASK,
        "secret_sha256": None,
        "scopes": ["read"],
    }
    assert settings["autostart"] == {"value": None, "origin": "default"}


async def test_config_tells_what_the_simulated_instrument_sets(served: Served) -> None:
    served.fakes.origins |= SIMULATED
    shown = ConfigReply.model_validate(await served.json("GET", "/config"))
    assert shown.settings["camera.driver"].origin == "simulate"


async def test_config_masks_as_everything_else_does(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    headers = {"Authorization": f"Bearer {READ}"}
    shown = (await served.json("GET", "/config", headers=headers))["settings"]
    expected = masked(served.fakes.settings)
    assert {name: entry["value"] for name, entry in shown.items() if name.startswith("api.")} == {
        f"api.{name}": value for name, value in expected["api"].items()
    }


async def test_whoami_names_the_scopes(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    told = await served.json("GET", "/whoami", headers={"Authorization": f"Bearer {READ}"})
    assert told == {"actor": "token:viewer", "scopes": ["read"]}


async def test_finished_requests_are_counted_with_their_status(served: Served) -> None:
    await served.json("GET", "/healthz")
    await served.json("GET", "/nothing", 404)
    assert served.fakes.counted == [("GET", 200), ("GET", 404)]
