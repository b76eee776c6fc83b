"""Every command that talks to the daemon: what it asks, what it prints, how it ends."""

import json
import tarfile

import pytest

from daemon.ctl import client
from tests.daemon.ctl.fake_daemon import ARCHIVE, EVENTS, PARTICLES, PNG, RUN, STATUS, answering, refusing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "POLL_S", 0.01)


def test_status(ctl):
    done = ctl("status")
    assert done.exit_code == 0 and done.stderr == ""
    for words in ("9.8.7", "degraded", "run r7", "1234 frames", "[camera.stalled] no frame came. Power-cycle it.",
                  "cell running", "voltage 3.71 V", "current -1.5 mA", "1 active", "1 dead",
                  "soc_mean=0.51235"):  # fmt: skip
        assert words in done.stdout, words


@pytest.mark.parametrize("where", ["before", "after"])
def test_json_may_stand_before_or_after(ctl, where):
    done = ctl("--json", "status") if where == "before" else ctl("status", "--json")
    assert json.loads(done.stdout) == STATUS


def test_options_may_stand_after_the_command(run, fake):
    assert run("status", "--url", fake.url).exit_code == 0
    assert run("status", "--socket", fake.socket).exit_code == 0


def test_the_environment_names_daemon_and_token(run, fake, monkeypatch):
    monkeypatch.setenv("PHOTOMETRYCTL_URL", fake.url)
    monkeypatch.setenv("PHOTOMETRYCTL_TOKEN", "from-the-environment")
    assert run("status").exit_code == 0
    assert fake.headers[-1]["Authorization"] == "Bearer from-the-environment"
    for asked in (["status", "--token", "given"], ["--token", "given", "status"]):
        assert run(*asked).exit_code == 0
        assert fake.headers[-1]["Authorization"] == "Bearer given"


@pytest.mark.parametrize("elsewhere", ["URL", "SOCKET"])
@pytest.mark.parametrize("option", ["url", "socket"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_the_daemon_that_is_named_wins_over_the_environment(run, fake, monkeypatch, elsewhere, option, where):
    nowhere = {"URL": "http://127.0.0.1:9", "SOCKET": str(fake.socket.with_name("none.sock"))}
    monkeypatch.setenv(f"PHOTOMETRYCTL_{elsewhere}", nowhere[elsewhere])
    named = [f"--{option}", getattr(fake, option)]
    done = run(*named, "status") if where == "before" else run("status", *named)
    assert done.exit_code == 0, done.stderr


def test_a_socket_is_preferred_where_both_are_named_alike(run, fake, monkeypatch):
    assert run("--url", "http://127.0.0.1:9", "--socket", fake.socket, "status").exit_code == 0
    assert run("--url", "http://127.0.0.1:9", "status", "--socket", fake.socket).exit_code == 0
    assert run("--socket", fake.socket.with_name("none.sock"), "status", "--url", fake.url).exit_code == 0
    monkeypatch.setenv("PHOTOMETRYCTL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PHOTOMETRYCTL_SOCKET", str(fake.socket))
    assert run("status").exit_code == 0


@pytest.mark.parametrize(
    "document", [{}, {"parts": [{}], "cell": None, "run": {}}, {"parts": 3, "science": [], "cell": {"values": 1}},
                 {"state": None, "parts": [{"name": 1, "state": {}, "values": {"a": {"b": [1, None]}}}]}]
)  # fmt: skip
@pytest.mark.parametrize("command", [["status"], ["watch", "--once"], ["runs"], ["particles", "--run", "r7"]])
def test_answers_with_less_in_them_are_shown_too(ctl, fake, document, command):
    for place in ("GET /status", "GET /runs", "GET /runs/r7/particles"):
        fake.answers[place] = answering(document)
    done = ctl(*command)
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [["status"], ["watch"], ["watch", "--once"], ["runs"], ["stop"], ["events"], ["events", "--follow"], ["particles"],
     ["table", "rates"],
     ["trace", "4"], ["frame", "--out", "f.png"], ["cell", "off"], ["selftest"]],
)  # fmt: skip
def test_without_a_daemon_every_command_says_so(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = run("--socket", tmp_path / "none.sock", *command)
    assert done.exit_code == 1 and done.stdout == ""
    assert "the daemon is not running" in done.stderr and "systemctl start photometryd" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_refusal_is_its_sentence(ctl, fake):
    fake.answers["GET /status"] = refusing(401, "api.unauthorised", "the token is not known", "Use one that is.")
    done = ctl("status")
    assert (done.exit_code, done.stderr) == (1, "photometryctl: the token is not known. Use one that is.\n")


def test_watch_once(ctl):
    done = ctl("watch", "--once")
    assert done.exit_code == 0
    for words in (
        "engine",
        "captured 1000",
        "ring=2",
        "cell running",
        "particle 4",
        "0.25 ± 0.01",
        "the ring was full",
    ):
        assert words in done.stdout, words
    assert done.stdout.index("crack") < done.stdout.index("step")


def test_runs(ctl, fake):
    done = ctl("runs", "--limit", "7")
    assert "r7" in done.stdout and "running" in done.stdout and "1234" in done.stdout
    assert fake.asked("GET", "/runs") == [({"limit": "7"}, None)]
    assert json.loads(ctl("runs", "--json").stdout) == {"runs": [RUN]}


RECIPE_TOML = 'name = "night"\n[masks]\nmin_area_px = 40\n[experiment]\nsteps = ["Rest for 1 hour"]\n'
RECIPE = {"name": "night", "masks": {"min_area_px": 40}, "experiment": {"steps": ["Rest for 1 hour"]}}


@pytest.mark.parametrize(
    ("name", "text"), [("r.toml", RECIPE_TOML), ("r.json", json.dumps(RECIPE)), ("r", RECIPE_TOML)]
)
def test_start_sends_the_recipe_and_waits(ctl, fake, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    log = ["run r8 is being prepared"]
    states = (
        {"state": "running", "log": log, "result": {"run_id": "r8"}},
        {"state": "done", "log": log, "result": {"run_id": "r8", "run": RUN | {"run_id": "r8"}}},
    )
    fake.answers["POST /runs"] = fake.operation("s1", *states)
    done = ctl("start", tmp_path / name)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "run r8 is running\n", "run r8 is being prepared\n")
    assert fake.asked("POST", "/runs") == [({}, RECIPE)]


def test_start_from_standard_input_without_waiting(ctl, fake):
    fake.answers["POST /runs"] = answering({"operation_id": "s2", "state": "running", "result": {"run_id": "r8"}}, 202)
    done = ctl("start", "-", "--no-wait", input=json.dumps(RECIPE))
    assert done.stdout == "run r8 is being prepared\n" and fake.asked("POST", "/runs") == [({}, RECIPE)]


def test_start_that_is_refused(ctl, fake, tmp_path):
    (tmp_path / "r.toml").write_text("nam = 3")
    fake.answers["POST /runs"] = refusing(
        400, "run.bad_recipe", "nam: is no field; did you mean 'name'?", "Correct it."
    )
    done = ctl("start", tmp_path / "r.toml")
    assert done.exit_code == 1 and "did you mean 'name'" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("r.toml", b"name = ]", "line 1"), ("r.json", b"{", "line 1 column"), ("r.json", b"[1]", "list"),
     ("r.toml", b"t = 2026-01-02", "not JSON serializable"), ("r.toml", b"\xff", "'utf-8'"),
     ("r.json", b'{"a": NaN}', "JSON"), ("r.json", b"[" * 100_000, "recursion"),
     ("r.toml", b"#" * 1_000_001, "larger")],
)  # fmt: skip
def test_a_recipe_that_cannot_be_read(ctl, fake, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    done = ctl("start", tmp_path / name)
    assert done.exit_code == 1 and f"{name}'" in done.stderr and words in done.stderr
    assert fake.asked("POST", "/runs") == []


def test_stop_takes_the_run_in_progress(ctl, fake):
    done = ctl("stop")
    assert done.stdout == "run r7 is done, 1234 frames\n"
    assert len(fake.asked("POST", "/runs/r7/stop")) == 1


def test_stop_names_are_quoted(ctl, fake):
    assert ctl("stop", "../status?x").exit_code == 1
    assert fake.requests[-1][1].endswith("/runs/../status?x/stop") and fake.requests[-1][2] == {}


def test_stop_without_a_run(ctl, fake):
    fake.answers["GET /status"] = answering(STATUS | {"run": None})
    done = ctl("stop")
    assert (done.exit_code, done.stderr) == (1, "photometryctl: no run is in progress. Start a run first.\n")


def test_events(ctl, fake):
    lines = ctl("events").stdout.splitlines()
    assert len(lines) == 3 and "step" in lines[0] and "the ring was full" in lines[1]
    assert fake.asked("GET", "/events")[0][0] == {"after": "0", "follow": "false"}


def test_events_as_json_of_some_kinds(ctl, fake):
    done = ctl("events", "--json", "--after", "1", "--kind", "crack", "--kind", "step")
    assert [json.loads(line) for line in done.stdout.splitlines()] == EVENTS[2:]
    assert fake.asked("GET", "/events")[0][0]["after"] == "1"


def test_particles(ctl, fake):
    done = ctl("particles")
    assert "monotone" in done.stdout and "20.25" in done.stdout
    only = json.loads(ctl("particles", "--json", "--state", "dead").stdout)
    assert only == {"run_id": "r7", "particles": PARTICLES[1:]}


def test_without_a_run_in_progress_the_newest_is_taken(ctl, fake):
    fake.answers["GET /status"] = answering(STATUS | {"run": None})
    assert ctl("particles").exit_code == 0
    fake.answers["GET /runs"] = answering({"runs": []})
    done = ctl("particles")
    assert done.exit_code == 1 and "there is no run yet" in done.stderr


def test_trace(ctl, fake):
    done = ctl("trace", "4", "--columns", "contrast", "--from", "0.5", "--points", "10")
    assert done.stdout.splitlines()[0].split() == ["frame", "t_s", "contrast"]
    assert "-0.125" in done.stdout
    query = fake.asked("GET", "/runs/r7/traces")[0][0]
    assert query == {"particles": "4", "columns": "contrast", "from": "0.5", "points": "10"}
    assert json.loads(ctl("trace", "4", "--json").stdout)["traces"][0]["t_s"] == [0.0, 0.01]


def test_frame(ctl, fake, tmp_path):
    fake.answers["GET /frame.png"] = answering(("image/png", PNG))
    done = ctl("frame", "--out", tmp_path / "f.png", "--overlay", "soc")
    assert done.exit_code == 0 and (tmp_path / "f.png").read_bytes() == PNG
    assert fake.asked("GET", "/frame.png") == [({"overlay": "soc"}, None)]


@pytest.mark.parametrize("command", [["frame"], ["bundle"]])
def test_a_place_that_cannot_be_written(ctl, tmp_path, command):
    done = ctl(*command, "--out", tmp_path / "no" / "such" / "file")
    assert done.exit_code == 1 and "there is no directory" in done.stderr


@pytest.mark.parametrize(
    ("command", "path", "words"),
    [("pause", "/cell/pause", "the cell is paused (3.7 V)"), ("resume", "/cell/resume", "the cell is running"),
     ("off", "/cell/off", "the cell is off: operator")],
)  # fmt: skip
def test_cell(ctl, fake, command, path, words):
    done = ctl("cell", command)
    assert done.stdout == words + "\n" and len(fake.asked("POST", path)) == 1
    assert json.loads(ctl("cell", command, "--json").stdout)["state"] in words


def test_cell_off_with_a_reason(ctl, fake):
    ctl("cell", "off", "--reason", "smoke")
    assert fake.asked("POST", "/cell/off") == [({"reason": "smoke"}, None)]


def test_cell_experiment(ctl, fake, tmp_path):
    (tmp_path / "e.toml").write_text('steps = ["Charge at 1C until 4.2 V"]\ncycles = 3\n')
    assert ctl("cell", "experiment", tmp_path / "e.toml").stdout == "the cell is running\n"
    assert fake.asked("POST", "/cell/experiment") == [({}, {"steps": ["Charge at 1C until 4.2 V"], "cycles": 3})]


def checked(*outcomes):
    checks = [{"name": f"check{i}", "outcome": o, "measured": "3 MB", "limit": "5 MB"} for i, o in enumerate(outcomes)]
    return {"state": "done", "result": {"outcome": max(outcomes), "checks": checks}}


def test_selftest(ctl, fake):
    fake.answers["POST /selftest"] = fake.operation("t1", checked("pass", "warn"))
    done = ctl("selftest")
    assert done.exit_code == 0 and "check1" in done.stdout and "warn" in done.stdout
    fake.answers["POST /selftest"] = fake.operation("t2", checked("pass", "fail"))
    done = ctl("selftest", "--json")
    assert done.exit_code == 1 and "the self-test failed: check1" in done.stderr
    assert json.loads(done.stdout)["checks"][1]["outcome"] == "fail"


def test_version(ctl, run, tmp_path):
    assert ctl("version").stdout.splitlines()[1] == "photometryd 9.8.7"
    done = run("--socket", tmp_path / "none.sock", "version")
    assert done.exit_code == 0 and "not running" in done.stdout
    assert json.loads(ctl("version", "--json").stdout)["photometryd"]["version"] == "9.8.7"


def test_check_config(run, tmp_path):
    good = tmp_path / "good.toml"
    good.write_text('[api]\nport = 9000\n[camera]\ndriver = "replay"\noptions = { path = "x.h5" }\n')
    done = run("check-config", good)
    assert (done.exit_code, done.stderr) == (0, "") and "is good: 3 settings given" in done.stdout
    assert json.loads(run("check-config", good, "--json").stdout)["good"] is True


@pytest.mark.parametrize(
    ("text", "words"),
    [("[api]\nprt = 1\n", "port"), ("[api]\nport = 'x'\n", "api.port"), ("[api\n", "bad.toml"),
     ('[camera]\ndriver = "replay"\noptions = { pth = "x.h5" }\n', "path")],
)  # fmt: skip
def test_check_config_that_is_wrong(run, tmp_path, text, words):
    (tmp_path / "bad.toml").write_text(text)
    done = run("check-config", tmp_path / "bad.toml")
    assert done.exit_code == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_bundle_from_the_daemon(ctl, fake, tmp_path):
    fake.answers["GET /diagnostics/bundle"] = answering(("application/gzip", ARCHIVE))
    done = ctl("bundle", "--out", tmp_path / "b.tar.gz")
    assert (done.exit_code, done.stderr) == (0, "") and (tmp_path / "b.tar.gz").read_bytes() == ARCHIVE


def test_bundle_with_the_daemon_dead(run, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[[api.tokens]]\nname = "a"\nsecret = "a-very-secret-token"\n')
    out = tmp_path / "b.tar.gz"
    done = run(
        "--socket", tmp_path / "no.sock", "bundle", "--out", out, "--config", config, "--state-dir", tmp_path / "state"
    )
    assert done.exit_code == 0, done.stderr
    assert "not running" in done.stderr and "collecting what this machine holds" in done.stderr
    with tarfile.open(out) as archive:
        everything = b"".join(archive.extractfile(member).read() for member in archive if member.isfile())
    assert b"a-very-secret-token" not in everything and b"python" in everything.lower()


def test_bundle_with_the_daemon_ill(ctl, fake, tmp_path):
    fake.answers["GET /diagnostics/bundle"] = refusing(
        500, "api.internal", "an unexpected error happened", "Report it."
    )
    out = tmp_path / "b.tar.gz"
    done = ctl("bundle", "--out", out, "--config", tmp_path / "none.toml", "--state-dir", tmp_path)
    assert done.exit_code == 0 and "an unexpected error happened" in done.stderr
    with tarfile.open(out) as archive:
        texts = [archive.extractfile(member).read() for member in archive if member.isfile()]
    assert any(b"9.8.7" in text for text in texts)
