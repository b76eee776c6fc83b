import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from hw.twin.recording import main, write_recording

SMALL = ["--set", "particles=5", "--set", "height_px=120", "--set", "width_px=160"]


@pytest.fixture
def recording(tmp_path, make):
    """(open file, its instrument): 30 frames 20 s apart of a cycling electrode with cracks."""
    instrument = make(c_rate=4.0, rest_s=60.0, speed=20.0, cracks_per_h=30.0, publish_flat=True)
    seen = []
    write_recording(tmp_path / "r.h5", instrument, 30, seen.append)
    assert seen == list(range(1, 31))
    with h5py.File(tmp_path / "r.h5") as file:
        yield file, instrument


def test_the_layout_is_that_of_recordings(recording):
    file, _ = recording
    assert file["movie"].shape == (30, 120, 160) and file["movie"].dtype == np.uint16
    timing = file["camera_timing"][:]
    assert timing.shape == (2, 30)
    np.testing.assert_allclose(timing[1], np.arange(30) * 20.0, atol=1e-3)
    assert dict(file.attrs) == {
        "pixel_size_nm": 96.0, "exposure_us": 2000.0, "bit_depth": 12, "gain_e_per_dn": 8.0, "read_noise_e": 7.0,
        "dark_dn": 64.0, "electrode": "cathode", "capacity_mah": 0.5, "potentiostat_offset_s": 0.0,
    }  # fmt: skip
    np.testing.assert_allclose(file["flat"][:].mean(), 1, atol=1e-4)
    assert 1000 < file["movie"][0].mean() < 1500


def test_the_cell_record_is_volts_milliamperes_charge_and_seconds(recording):
    file, _ = recording
    volts, current_ma, charge_mah, t_s = file["potentiostat_value"][:]
    assert (np.diff(t_s) > 0).all() and t_s[-1] == pytest.approx(580.0) and np.diff(t_s).max() < 1.6
    assert volts.min() > 3.0 and volts.max() < 4.4
    assert set(np.abs(current_ma).round(6)) == {0.0, 2.0}
    summed = np.concatenate([[0], np.cumsum(current_ma[1:] * np.diff(t_s))]) / 3600
    np.testing.assert_allclose(charge_mah, summed, atol=2e-3)


def test_truth_goes_with_every_frame(recording):
    file, instrument = recording
    truth = file["truth"]
    for name in ("soc", "flux_e", "c", "c_surface", "step_gain", "front_px", "gradient", "charged_fraction"):
        assert truth[name].shape == (30, 6)
    for name in ("t_s", "block_id", "drift_y_px", "drift_x_px", "blur_px", "illumination", "voltage_v"):
        assert truth[name].shape == (30,)
    np.testing.assert_allclose(
        truth["soc"][-1], instrument.sample.material.soc(instrument.electrode.state.c), rtol=1e-6
    )
    assert truth["labels"].shape == (120, 160) and truth["labels"][:].max() == 6
    np.testing.assert_array_equal(truth["particles/dead"][:], instrument.sample.dead)
    events = truth["events"][:]
    assert [event["kind"].decode() for event in events] == [event.kind for event in instrument.events]
    assert (events["kind"] == b"crack").any()


def test_the_command_writes_a_recording(tmp_path):
    out = tmp_path / "r.h5"
    result = CliRunner().invoke(main, ["--out", str(out), "--frames", "3", "--interval-s", "2", *SMALL])
    assert result.exit_code == 0, result.output
    with h5py.File(out) as file:
        assert file["movie"].shape == (3, 120, 160)
        np.testing.assert_allclose(np.diff(file["camera_timing"][1]), 2.0, atol=1e-3)
        assert file["truth/events"].shape == (0,)


@pytest.mark.parametrize(
    "arguments, words, code",
    [
        (["--set", "psf_sigma=1"], "did you mean 'psf_sigma_px'", 1),
        (["--set", "speed=fast"], "speed", 1),
        (["--set", "particles=3000"], "do not fit", 1),
        (["--set", "nonsense"], "KEY=VALUE", 2),
        (["--frames", "0"], "frames", 2),
    ],
)
def test_bad_arguments_are_sentences(tmp_path, arguments, words, code):
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "r.h5"), *arguments])
    assert result.exit_code == code and words in result.output


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "no" / "r.h5"), "--frames", "1", *SMALL])
    assert result.exit_code == 1 and "r.h5" in result.output
