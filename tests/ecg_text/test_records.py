"""One record from disk: leads by name, units, rates, lengths, and an exact message for every kind of damage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ecg_text.data.records import LEADS, SignalSettings, Source, fit_length, load_signal, read_record, select_leads
from shared.data.problems import DataError

Write = Callable[..., None]


def noise(samples: int = 1000, leads: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(-2000, 2000, (leads, samples)).astype(np.int16)


def load(stem: Path, sampling_rate: int = 100, duration: float = 10.0, leads: tuple[str, ...] = LEADS) -> np.ndarray:
    return load_signal(Source(str(stem), SignalSettings(sampling_rate, duration, leads)))


def error_of(stem: Path, **kwargs: int) -> str:
    with pytest.raises(DataError) as caught:
        load(stem, **kwargs)
    return str(caught.value)


def edit_header(stem: Path, old: str, new: str, count: int = -1) -> None:
    header = stem.with_name(f"{stem.name}.hea")
    assert old in header.read_text()
    header.write_text(header.read_text().replace(old, new, count))


@pytest.fixture
def stem(tmp_path: Path, write_record: Write) -> Path:
    """A sound record of PTB-XL's form at 100 Hz."""
    write_record(tmp_path / "00001_lr", noise())
    return tmp_path / "00001_lr"


# ---- sound records ----


def test_at_its_own_rate_the_stored_microvolts_are_exact(stem: Path) -> None:
    signal = load(stem)
    assert signal.dtype == np.int16
    assert np.array_equal(signal, noise())


def test_all_int16_values_but_the_invalid_one_are_exact(tmp_path: Path, write_record: Write) -> None:
    values = np.tile(np.arange(-32767, 32768, dtype=np.int32).astype(np.int16), (12, 1))
    write_record(tmp_path / "all", values)
    assert np.array_equal(load(tmp_path / "all", duration=655.35), values)


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_the_extension_may_be_given(stem: Path, suffix: str) -> None:
    signal, names, rate = read_record(f"{stem}{suffix}")
    assert signal.shape == (12, 1000)
    assert names == LEADS
    assert rate == 100.0


def test_leads_are_ordered_by_name_in_any_spelling(tmp_path: Path, write_record: Write) -> None:
    order = np.random.default_rng(1).permutation(12)
    shuffled = [LEADS[index].upper() if index % 2 else LEADS[index].lower() for index in order]
    write_record(tmp_path / "shuffled", noise()[order], leads=shuffled)
    assert np.array_equal(load(tmp_path / "shuffled"), noise())
    assert np.array_equal(load(tmp_path / "shuffled", leads=("V2", "aVR")), noise()[[7, 3]])


def test_a_lead_beyond_the_twelve_is_left_out_even_twice(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "more", noise(leads=14), leads=[*LEADS, "VX", "VX"])
    assert np.array_equal(load(tmp_path / "more"), noise(leads=14)[:12])


@pytest.mark.parametrize(
    ("gain", "to_microvolts"),
    [
        ("1000.0(0)/mV", lambda adu: adu),
        ("200(0)/mV", lambda adu: adu * 5),
        ("200(-37)/mV", lambda adu: (adu + 37) * 5),
        ("500(100)/mV", lambda adu: (adu - 100) * 2),
        ("0.5(0)/uV", lambda adu: adu * 2),
        ("1(12)/uV", lambda adu: adu - 12),
        ("1000000(0)/V", lambda adu: adu),
        ("1000/MV", lambda adu: adu),
        ("1000", lambda adu: adu),  # no unit is mV by the format's definition
    ],
)
def test_gain_baseline_and_unit_of_the_header(
    tmp_path: Path, write_record: Write, gain: str, to_microvolts: Callable[[np.ndarray], np.ndarray]
) -> None:
    write_record(tmp_path / "r", noise(), gain=gain)
    assert np.array_equal(load(tmp_path / "r"), to_microvolts(noise().astype(int)))


def test_beyond_the_range_of_int16_values_are_clipped_not_wrapped(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "r", noise(), gain="10(0)/mV")
    assert np.array_equal(load(tmp_path / "r"), np.clip(noise().astype(int) * 100, -32768, 32767))


@pytest.mark.parametrize(("stored", "wanted"), [(500, 100), (100, 500), (360, 100), (500, 250)])
def test_resampling_keeps_a_sines_amplitude_and_phase(
    tmp_path: Path, write_record: Write, stored: int, wanted: int
) -> None:
    def sine(rate: int) -> np.ndarray:
        phase = np.linspace(0, 1.5, 12)[:, None]
        return 1000 * np.sin(2 * np.pi * 5 * np.arange(rate * 10) / rate + phase) + 200 * np.arange(12)[:, None]

    write_record(tmp_path / "sine", np.rint(sine(stored)), rate=str(stored))
    error = load(tmp_path / "sine", wanted) - sine(wanted)
    assert error.shape == (12, wanted * 10)
    assert np.abs(error[:, wanted // 2 : -wanted // 2]).max() < 5  # 5 of 1000 microvolts
    assert np.abs(error).max() < 300  # at the ends, where the filter looks beyond the record


def test_a_rate_with_a_counter_frequency_is_the_rate(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "r", noise(), rate="100/1000(5)")
    assert np.array_equal(load(tmp_path / "r"), noise())
    assert read_record(tmp_path / "r")[2] == 100.0


def test_short_records_are_padded_and_long_ones_cut_at_their_end(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "short", noise(700))
    short = load(tmp_path / "short")
    assert np.array_equal(short[:, :700], noise(700))
    assert short.shape == (12, 1000)
    assert not short[:, 700:].any()
    write_record(tmp_path / "long", noise(1300))
    assert np.array_equal(load(tmp_path / "long"), noise(1300)[:, :1000])
    assert np.array_equal(fit_length(np.ones((1, 2)), 3), [[1, 1, 0]])


def test_samples_follow_rate_and_duration() -> None:
    assert SignalSettings().samples == 5000
    assert SignalSettings(360, 2.5).samples == 900


def test_the_original_cpsc2018_matlab_files(tmp_path: Path) -> None:
    millivolts = np.random.default_rng(2).integers(-3000, 3000, (12, 5200)) / 1000
    scipy.io.savemat(tmp_path / "A0001.mat", {"ECG": {"sex": "Male", "age": 74, "data": millivolts}})
    assert np.array_equal(load(tmp_path / "A0001", 500), np.rint(millivolts[:, :5000] * 1000))
    signal, names, rate = read_record(tmp_path / "A0001.mat")
    assert names == LEADS
    assert rate == 500.0
    np.testing.assert_allclose(signal, millivolts * 1000)


def test_physionets_matlab_files_with_a_header(tmp_path: Path) -> None:
    """A Level-4 MATLAB file of int16 behind 24 bytes, which the header points into."""
    values = noise(600)
    scipy.io.savemat(tmp_path / "A0001.mat", {"val": values}, format="4")
    lines = [f"A0001.mat 16+24 1000/mV 16 0 {row[0]} 0 0 {lead}" for lead, row in zip(LEADS, values, strict=True)]
    (tmp_path / "A0001.hea").write_text("\n".join(["A0001 12 500 600", *lines]) + "\n")
    assert np.array_equal(load(tmp_path / "A0001", 500, 1.2), values)
    content = (tmp_path / "A0001.mat").read_bytes()
    (tmp_path / "A0001.mat").write_bytes(content[:-24])
    assert error_of(tmp_path / "A0001").startswith(
        f"{tmp_path / 'A0001'} cannot be read as a WFDB record, it may be truncated ("
    )


# ---- damaged records ----


def test_a_missing_record_names_the_file(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none") == (
        f"no file {tmp_path / 'none'}.hea (a WFDB record is a .hea header beside its signal file)"
    )


def test_a_missing_signal_file_is_named(stem: Path) -> None:
    stem.with_name("00001_lr.dat").unlink()
    message = error_of(stem)
    assert message.startswith(f"{stem} cannot be read as a WFDB record, it may be truncated (")
    assert "00001_lr.dat" in message


@pytest.mark.parametrize("cut", [1, 5, 24, 12_000, 23_999, 24_000])
def test_a_truncated_signal_file_is_noticed(stem: Path, cut: int) -> None:
    data = stem.with_name("00001_lr.dat")
    data.write_bytes(data.read_bytes()[:-cut])
    assert error_of(stem).startswith(f"{stem} cannot be read as a WFDB record, it may be truncated (")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"# a comment\n",
        b"\xff\xfe\x00\x01 damaged",
        b"00001_lr 12 100 1000\n",
        b"00001_lr 99999999999999999999",
    ],
)
def test_a_damaged_header_is_noticed(stem: Path, content: bytes) -> None:
    stem.with_name("00001_lr.hea").write_bytes(content)
    assert error_of(stem).startswith(f"{stem} cannot be read as a WFDB record, it may be truncated (")


def test_a_header_of_absurd_length_is_no_memory_error(stem: Path) -> None:
    edit_header(stem, "100 1000", "100 99999999999999")
    assert error_of(stem).startswith(f"{stem} cannot be read as a WFDB record, it may be truncated (")


def test_a_header_without_signals_is_noticed(stem: Path) -> None:
    stem.with_name("00001_lr.hea").write_text("00001_lr 0 100 1000\n")
    message = error_of(stem)
    assert message in (
        f"{stem} holds no signal",
        f"{stem} cannot be read as a WFDB record, it may be truncated (list index out of range)",
    )


@pytest.mark.parametrize("rate", ["", "0", "0.0", "-100", "abc", "1e2", "nan", "inf"])
def test_a_rate_that_is_absent_zero_or_unknown_is_not_taken_for_250(
    tmp_path: Path, write_record: Write, rate: str
) -> None:
    write_record(tmp_path / "r", noise(), rate=rate)
    line = f"r 12 {rate} 1000" if rate else "r 12"
    assert error_of(tmp_path / "r") == (
        f"{tmp_path / 'r'}.hea states no sampling rate: expected '<name> <leads> <Hz> <samples>' in its first line, "
        f"found '{line}'"
    )


def test_a_rate_that_is_no_whole_number_cannot_be_resampled(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "r", noise(), rate="128.5")
    assert error_of(tmp_path / "r") == (
        f"{tmp_path / 'r'} has the sampling rate 128.5 Hz; only whole numbers can be resampled"
    )


def test_an_unknown_unit_is_named(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "r", noise(), gain="1000.0(0)/mmHg")
    assert error_of(tmp_path / "r") == f"{tmp_path / 'r'}.hea has the unit 'mmhg'; expected mV, uV or V"


def test_missing_leads_are_named(tmp_path: Path, write_record: Write) -> None:
    leads = [lead for lead in LEADS if lead not in ("aVF", "V4")]
    write_record(tmp_path / "r", noise(leads=10), leads=leads)
    assert error_of(tmp_path / "r") == (
        f"{tmp_path / 'r'} lacks lead aVF, V4; it has I, II, III, aVR, aVL, V1, V2, V3, V5, V6"
    )


def test_a_lead_that_occurs_twice_is_named(tmp_path: Path, write_record: Write) -> None:
    write_record(tmp_path / "r", noise(leads=13), leads=[*LEADS, "AVR"])
    assert error_of(tmp_path / "r") == f"{tmp_path / 'r'} has lead AVR twice"
    with pytest.raises(DataError, match=r"^here has lead v1 twice$"):
        select_leads(np.zeros((2, 3)), ["V1", " v1"], ["V1"], "here")


def test_leads_without_names_are_said(stem: Path) -> None:
    header = stem.with_name("00001_lr.hea")
    first, *signals = header.read_text().splitlines()
    header.write_text("\n".join([first, *(line.rsplit(" ", 1)[0] for line in signals)]) + "\n")
    message = error_of(stem)
    assert message.startswith(f"{stem} lacks lead I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6; it has (no name)")


@pytest.mark.parametrize("rate", [100, 500])
def test_samples_marked_as_invalid_are_counted(tmp_path: Path, write_record: Write, rate: int) -> None:
    values = noise()
    values[8, [3, 5, 900]] = -32768  # WFDB's mark for a missing sample in format 16
    write_record(tmp_path / "r", values)
    assert error_of(tmp_path / "r", sampling_rate=rate) == "lead V3 has 3 samples that are not numbers"


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("value", [0, 250])
def test_a_constant_lead_is_named(tmp_path: Path, write_record: Write, rate: int, value: int) -> None:
    values = noise()
    values[5] = value
    write_record(tmp_path / "r", values)
    assert error_of(tmp_path / "r", sampling_rate=rate) == "lead aVF is constant"


def test_a_matlab_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "val.mat", {"val": np.zeros((12, 10))})
    scipy.io.savemat(tmp_path / "eleven.mat", {"ECG": {"data": np.zeros((11, 10))}})
    (tmp_path / "text.mat").write_text("no MATLAB")
    assert error_of(tmp_path / "val") == (
        f"{tmp_path / 'val.mat'} has no header beside it and is not a CPSC2018 MATLAB file (KeyError('ECG'))"
    )
    assert error_of(tmp_path / "eleven") == (
        f"{tmp_path / 'eleven.mat'} holds an array of shape (11, 10), expected (12, samples)"
    )
    scipy.io.savemat(tmp_path / "cut.mat", {"ECG": {"data": np.ones((12, 500))}})
    (tmp_path / "cut.mat").write_bytes((tmp_path / "cut.mat").read_bytes()[:-100])
    for name in ("text", "cut"):
        assert error_of(tmp_path / name).startswith(
            f"{tmp_path / name}.mat has no header beside it and is not a CPSC2018 MATLAB file ("
        )


@pytest.mark.parametrize("name", ["../secret.dat", "/etc/hostname", "sub/x.dat"])
def test_a_header_cannot_point_out_of_its_folder(stem: Path, name: str) -> None:
    (stem.parent.parent / "secret.dat").write_bytes(stem.with_name("00001_lr.dat").read_bytes())
    edit_header(stem, "00001_lr.dat", name)
    assert error_of(stem).startswith(f"{stem} cannot be read as a WFDB record, it may be truncated (")
