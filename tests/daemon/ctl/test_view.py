from io import StringIO

from rich.console import Console

from daemon.ctl import view


def printed(science: dict, **more: object) -> str:
    out = StringIO()
    Console(width=200, file=out).print(view.status({"state": "ready", "science": science, **more}))
    return out.getvalue()


def test_status_says_who_is_unusual_and_what_the_spread_is_of() -> None:
    text = printed({
        "particles": 3, "particles_active": 3, "rate_cv": 0.31, "rate_cv_sigma": 0.02, "rate_cv_basis": "held_current",
        "rate_cv_means": "rates under held current", "particles_warned": 1,
        "unusual": [{"particle_id": 17, "by": "lag_s", "score": 5.2, "reason": "particle 17 lags by 43 s on charge"}],
    })  # fmt: skip
    assert "spread of rates 31 +- 2 %: rates under held current" in text
    assert "particle 17 lags by 43 s on charge" in text
    assert "particles_warned=1" in text
    assert "rate_cv_basis" not in text


def test_an_unknown_spread_is_left_out() -> None:
    text = printed({"particles": 3, "particles_active": 3, "rate_cv": None, "unusual": []})
    assert "particles 3" in text
    assert "spread" not in text


def test_the_last_self_test_is_one_line() -> None:
    selftest = {"outcome": "fail", "utc": "2026-01-02T03:04:05+00:00", "failed": ["free_space"], "warned": ["clock"]}
    text = printed({}, selftest=selftest)
    assert "self-test fail  failed: free_space  warned: clock  2026-01-02T03:04:05+00:00" in text
    assert "self-test" not in printed({}, selftest=None)


def test_the_disk_is_told_with_its_forecast_when_there_is_one() -> None:
    out = StringIO()
    for disk in ({"free_mb": 12_345, "full_in_h": 3.25}, {"free_mb": 500, "full_in_h": None}, {"free_mb": None}, None):
        Console(width=200, file=out).print(view.status({"state": "ready", "disk": disk}))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("photometryd")]
    assert "12.3 GB free, full in 3.2 h" in lines[0] and lines[1].rstrip().endswith("0.5 GB free  -")
    assert "free" not in lines[2] + lines[3]
