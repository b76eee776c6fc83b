"""Settings: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import (
    KNOWN,
    MASK,
    BadSettings,
    Settings,
    Token,
    check_drivers,
    load_settings,
    masked,
)
from daemon.errors import ConfigError, ConfigReason

SECRET = "correct-horse-battery"


def write(directory: Path, text: str) -> Path:
    path = directory / "photometryd.toml"
    path.write_text(text)
    return path


def refused(directory: Path, text: str, environ: dict[str, str] | None = None) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        load_settings(write(directory, text), environ=environ or {})
    return caught.value


def test_no_file_gives_the_defaults() -> None:
    loaded = load_settings(None, environ={})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins["engine.ring_frames"] == "default"
    assert "engine" not in loaded.origins


def test_file_over_default_and_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[api]\nport = 1\nhost = "::1"\n[camera.options]\nspeed = 2\n')
    environ = {"PHOTOMETRYD_API__PORT": "9000", "PHOTOMETRYD_CAMERA__OPTIONS__SEED": "7", "PHOTOMETRYD_API__HOST": ""}
    loaded = load_settings(path, environ=environ)
    assert loaded.settings.api.port == 9000
    assert loaded.settings.api.host == "::1"
    assert loaded.settings.camera.options == {"speed": 2, "seed": 7}
    assert loaded.path == path
    origins = loaded.origins
    assert [origins[n] for n in ("api.port", "api.host", "api.socket")] == ["env", "file", "default"]
    assert [origins[n] for n in ("camera.options.speed", "camera.options.seed")] == ["file", "env"]


@pytest.mark.parametrize(
    ("variable", "raw", "value"),
    [
        ("SERVICE__LOG_LEVEL", "debug", "debug"),
        ("STORE__STATE_DIR", "/srv/a b", Path("/srv/a b")),
        ("STORE__COMMIT_INTERVAL_S", "0.5", 0.5),
        ("CELL__LIMITS__MAX_VOLTAGE_V", "4", 4.0),
        ("CAMERA__DRIVER", "replay", "replay"),
        ("API__TOKENS", f'[{{name="1", secret="{SECRET}"}}]', [Token(name="1", secret=SECRET)]),
    ],
)
def test_environment_values_take_the_type_of_their_setting(variable: str, raw: str, value: Any) -> None:
    found: Any = load_settings(None, environ={f"PHOTOMETRYD_{variable}": raw}).settings
    for part in variable.lower().split("__"):
        found = getattr(found, part)
    assert found == value


def test_foreign_environment_names_are_left_alone() -> None:
    load_settings(None, environ={"PHOTOMETRYD_TOKEN": "x", "PHOTOMETRY__API__PORT": "x", "API__PORT": "x"})


@pytest.mark.parametrize(
    ("text", "place", "meant"),
    [
        ("[camera]\npixle_size_nm = 96", "camera.pixle_size_nm", "camera.pixel_size_nm"),
        ("[camra]\ndriver = 'twin'", "camra", "camera"),
        ("[cell.limits]\nmax_volts_v = 4.2", "cell.limits.max_volts_v", "cell.limits.max_voltage_v"),
        ("state_dir = '/x'", "state_dir", "store.state_dir"),
        ("[api]\ncommit_interval_s = 2", "api.commit_interval_s", "store.commit_interval_s"),
        (f"[[api.tokens]]\nname='a'\nsecret='{SECRET}'\nscope=['read']", "api.tokens[0].scope", "api.tokens[].scopes"),
        ("[autostart.masks]\nmin_area = 9", "autostart.masks.min_area", "autostart.masks.min_area_px"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(
    tmp_path: Path, text: str, place: str, meant: str
) -> None:
    error = refused(tmp_path, text)
    assert error.reason is ConfigReason.UNKNOWN_SETTING
    assert error.problems[0].place == place
    assert f"'{place}'" in str(error)
    assert f"did you mean '{meant}'?" in str(error)


def test_an_unknown_name_like_nothing_lists_its_neighbours(tmp_path: Path) -> None:
    assert "known here: log_level, thread_stall_s" in str(refused(tmp_path, "[service]\nzzz = 1"))


def test_an_unknown_environment_name_says_which_variable(tmp_path: Path) -> None:
    error = refused(tmp_path, "", {"PHOTOMETRYD_API__PROT": "1"})
    assert error.reason is ConfigReason.UNKNOWN_SETTING
    assert "PHOTOMETRYD_API__PROT" in str(error)
    assert "'api.port'" in str(error)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[engine]\nring_frames = 2", "'engine.ring_frames' is 2: it takes an integer of 4 to 4096"),
        ("[engine]\nring_frames = 8.5", "'engine.ring_frames' is 8.5: it takes an integer of 4 to 4096"),
        ("[engine]\nring_frames = true", "'engine.ring_frames' is true: it takes an integer"),
        ("[engine]\nbatch_s = '0.05'", "'engine.batch_s' is '0.05': it takes a number above 0"),
        ("[engine]\nbatch_s = inf", "'engine.batch_s' is inf: it takes a number above 0"),
        ("[engine]\nbatch_s = nan", "'engine.batch_s' is nan: it takes a number above 0"),
        (
            "[service]\nlog_level = 'loud'",
            """'service.log_level' is 'loud': it takes one of "debug", "info", "warning\"""",
        ),
        ("camera = 3", "'camera' is 3: it takes a table"),
        ("[store]\nstate_dir = 4", "'store.state_dir' is 4: it takes a path"),
        ("[store]\nstate_dir = 'here'", "'store.state_dir' is 'here': it takes an absolute path"),
        ("[cell]\nelectrode = 'kathode'", """'cell.electrode' is 'kathode': it takes one of "cathode", "anode\""""),
        ("[cell.limits]\nmin_voltage_v = 4.6", "'cell.limits': min_voltage_v = 4.6 must be below max_voltage_v = 4.5"),
        ("[autostart.masks]\nmin_area_px = 60000", "min_area_px = 60000 must be below max_area_px = 50000"),
        ("[autostart.experiment]\ncycles = 2", "'autostart.experiment.steps' is missing: it takes a list of 1 to 1000"),
        (
            "[autostart.experiment]\nsteps = ['Charge at 1D']",
            "'autostart.experiment.steps' cannot be understood: step 1",
        ),
        ("[camera]\ndriver = 'twinn'", "'camera.driver' is 'twinn': it takes one of"),
        ("[potentiostat]\ndriver = 'reply'", "did you mean 'replay'?"),
        ("[api]\nhost = '0.0.0.0'", "'api.host' is '0.0.0.0', which others can reach: add at least one of api.tokens"),
        ("[api]\nhost = 'instrument.local'", "which others can reach"),
        (f"[api]\nsocket = '/{'x' * 107}'", "'api.socket' is longer than 107 bytes"),
        ("[engine]\nsilence_s = 1.5", "'engine.silence_s' is 1.5: it must exceed camera.frame_deadline_s (2)"),
        ("[api]\ntokens = 5", f"'api.tokens' is {MASK}: it takes a list"),
    ],
)
def test_a_bad_value_is_refused_with_its_place_and_what_is_allowed(tmp_path: Path, text: str, sentence: str) -> None:
    error = refused(tmp_path, text)
    assert error.reason is ConfigReason.BAD_VALUE
    assert sentence in str(error)
    assert str(tmp_path) in str(error)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    error = refused(tmp_path, "[api]\nport = -1\nprot = 2\n[engine]\nring_frames = 2\n[store]\nmin_free_mb = 'x'")
    assert [p.place for p in error.problems] == ["engine.ring_frames", "store.min_free_mb", "api.port", "api.prot"]


def test_a_flood_of_problems_is_capped(tmp_path: Path) -> None:
    error = refused(tmp_path, "[api]\n" + "".join(f"zz{n} = 1\n" for n in range(300)))
    assert "and 280 more" in str(error)
    assert len(str(error)) < 5000


def test_loopback_and_tokens_open_the_host(tmp_path: Path) -> None:
    token = f"[[api.tokens]]\nname = 'a'\nsecret = '{SECRET}'\n"
    for text in ("[api]\nhost = '127.0.0.2'", "[api]\nhost = 'localhost'", f"[api]\nhost = '0.0.0.0'\n{token}"):
        load_settings(write(tmp_path, text), environ={})


@pytest.mark.parametrize(("key", "text"), [("name", "name='a'\nsecret='{}1'"), ("secret", "name='b'\nsecret='{}'")])
def test_tokens_must_differ(tmp_path: Path, key: str, text: str) -> None:
    first = f"[[api.tokens]]\nname = 'a'\nsecret = '{SECRET}'\n"
    assert f"the same {key}" in str(refused(tmp_path, first + "[[api.tokens]]\n" + text.format(SECRET)))


@pytest.mark.parametrize(
    "text", ["name='a'", f"name='a'\nsecret='{SECRET}'\nsecret_sha256='{'0' * 64}'", "name='a'\nsecret_sha256='0'"]
)
def test_a_token_has_one_secret(tmp_path: Path, text: str) -> None:
    assert "api.tokens[0]" in str(refused(tmp_path, f"[[api.tokens]]\n{text}"))


def test_tokens_of_the_state_directory_open_the_host(tmp_path: Path) -> None:
    text = f"[api]\nhost = '0.0.0.0'\n[store]\nstate_dir = '{tmp_path}'"
    assert "photometryctl token create" in str(refused(tmp_path, text))
    (tmp_path / "tokens.json").write_text("{}")
    load_settings(write(tmp_path, text), environ={})


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    assert "api.tls_certificate" in str(refused(tmp_path, "[api]\ntls_key = '/k.pem'"))


def test_no_secret_appears_in_a_message(tmp_path: Path) -> None:
    text = (
        f"[[api.tokens]]\nname = 'a'\nsecret = '{SECRET[:12]}'\n[[api.tokens]]\nsecret = '{SECRET[:13]}'\nx='{SECRET}'"
    )
    assert SECRET[:12] not in str(refused(tmp_path, text))


@pytest.mark.parametrize("section", ["camera", "potentiostat"])
def test_no_secret_appears_that_stands_in_place_of_a_drivers_options(tmp_path: Path, section: str) -> None:
    for value in (f"'{SECRET}'", f"'password = {SECRET}'"):
        message = str(refused(tmp_path, f"[{section}]\noptions = {value}"))
        assert SECRET not in message and f"'{section}.options' is {MASK}" in message
    text = f"[api]\nport = 'https://me:{SECRET}@host'"
    assert SECRET not in str(refused(tmp_path, text))


def test_masked_settings_hold_no_secret() -> None:
    values = {
        "api": {"tokens": [{"name": "a", "secret": SECRET}]},
        "camera": {"options": {"password": SECRET, "speed": 3}},
        "potentiostat": {
            "options": {"url": f"tcp://me:{SECRET}@host", "login": {"api_key": SECRET, "credentials": [SECRET]}}
        },
    }
    shown = masked(Settings.model_validate(values))
    assert SECRET not in str(shown)
    assert shown["api"]["tokens"][0] == {"name": "a", "secret": MASK, "secret_sha256": None, "scopes": ["read"]}
    assert shown["camera"]["options"] == {"password": MASK, "speed": 3}
    assert shown["potentiostat"]["options"] == {
        "url": f"tcp://{MASK}@host",
        "login": {"api_key": MASK, "credentials": MASK},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[camera]\ndriver = \n", "line 2"),
        (b"a = 1\nb = '\xff'\n", "line 2"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"a = 1\na = 2\n", "line 2"),
    ],
)
def test_broken_toml_names_the_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "photometryd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ={})
    assert caught.value.reason is ConfigReason.SYNTAX
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "photometryd.toml"
    path.write_bytes(b"\xef\xbb\xbf[api]\nport = 1\n")
    assert load_settings(path, environ={}).settings.api.port == 1


def test_unreadable_files(tmp_path: Path) -> None:
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * 1_000_001)
    for path, said in ((tmp_path / "absent.toml", "No such file"), (tmp_path, "Is a directory"), (huge, "larger than")):
        with pytest.raises(ConfigError, match=said) as caught:
            load_settings(path, environ={})
        assert caught.value.reason is ConfigReason.UNREADABLE


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_settings(path, environ={})
    except ConfigError as error:
        assert error.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(name for name in KNOWN if "[]" not in name)), JSON)
def test_any_value_anywhere_is_settings_or_problems(name: str, value: Any) -> None:
    from daemon.config import _validated

    tables: dict[str, Any] = {}
    inner = tables
    *path, last = name.split(".")
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    problems: list[Any] = []
    settings = _validated(tables, problems)
    assert (settings is None) == bool(problems)
    assert all(problem.sentence for problem in problems)


def test_check_drivers_names_the_option(tmp_path: Path) -> None:
    settings = load_settings(None, simulate=True, environ={"XDG_STATE_HOME": str(tmp_path)}).settings
    camera = settings.camera.model_copy(update={"options": {**settings.camera.options, "sped": 2.0}})
    with pytest.raises(
        BadSettings, match=r"'camera.options': driver 'twin' has no option 'sped'; did you mean 'speed'"
    ):
        check_drivers(settings.model_copy(update={"camera": camera}))


def test_every_setting_has_a_sentence() -> None:
    assert [name for name, setting in KNOWN.items() if not setting.doc.endswith(".")] == []
