"""One ECG record from disk to a fixed array: 12 leads by name, one sampling rate, one length, microvolts."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.signal
import wfdb
from numpy.typing import NDArray

from shared.data.problems import DataError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MICROVOLTS_PER_UNIT = {"mv": 1e3, "uv": 1.0, "µv": 1.0, "v": 1e6}
# The original CPSC2018 release has MATLAB files without a header: 500 Hz, leads in the order of LEADS.
CPSC2018_SAMPLING_RATE = 500
# The errors that reading a damaged file raises: the readers pass on their parsers' errors.
WFDB_ERRORS = (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError)
MATLAB_ERRORS = (*WFDB_ERRORS, NotImplementedError, scipy.io.matlab.MatReadError, zlib.error)
# A WFDB record line: name[/segments], number of signals, rate[/counter frequency]; more may follow.
RECORD_LINE = re.compile(r"\S+\s+\d+\s+(\d+(?:\.\d*)?|\.\d+)(?:/\S*)?(?:\s|$)")


@dataclass(frozen=True)
class SignalSettings:
    """What a model expects of its input; saved in every checkpoint, so that later input is prepared in the same way.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        duration: Length in seconds; longer records are cut, and shorter ones are padded with zeros at their end.
        leads: Names of the leads, in the order of the channels.
        normalize: `"lead"` gives every lead zero mean and unit variance (which treats records of unknown gain alike);
            `"record"` removes each lead's mean and divides by one standard deviation over all leads (which keeps the
            leads' relative voltages); `"minmax"` maps each record to [0, 1] by its minimum and maximum (as MERL does);
            `"none"` leaves millivolts.
    """

    sampling_rate: int = 500
    duration: float = 10.0
    leads: tuple[str, ...] = LEADS
    normalize: str = "record"

    @property
    def samples(self) -> int:
        """Number of samples per lead, `T`."""
        return round(self.sampling_rate * self.duration)


@dataclass(frozen=True)
class Source:
    """A record to read, with what the reader needs to know; it is sent to worker processes."""

    path: str
    settings: SignalSettings


def record_stem(path: str | Path) -> Path:
    """A record's path without the extension of one of its files."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path


def read_record(path: str | Path) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    """Read a WFDB record, or a MATLAB file of the original CPSC2018 release.

    Args:
        path: Path of the record, with or without extension (`<path>.hea` is beside its signal files).

    Returns:
        The signal in microvolts `(L, T)`, the lead names as the file spells them, and the sampling rate in Hz.

    Raises:
        DataError: The record is missing, unreadable, truncated, or has no usable sampling rate or unit.
    """
    stem = record_stem(path)
    header, matlab = stem.with_name(stem.name + ".hea"), stem.with_name(stem.name + ".mat")
    if header.exists():
        return _read_wfdb(stem)
    if matlab.exists():
        return _read_cpsc2018_matlab(matlab)
    raise DataError(f"no file {header} (a WFDB record is a .hea header beside its signal file)")


def _read_wfdb(stem: Path) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    try:
        record = wfdb.rdrecord(str(stem), return_res=64)
        rate = _stated_rate(stem.with_name(stem.name + ".hea"))
    except DataError:
        raise
    except WFDB_ERRORS as error:
        raise DataError(f"{stem} cannot be read as a WFDB record, it may be truncated ({error})") from error
    signal: NDArray[np.float64] | None = record.p_signal
    if signal is None or signal.size == 0:
        raise DataError(f"{stem} holds no signal")
    units = [str(unit).lower() for unit in record.units]
    unknown = sorted({unit for unit in units if unit not in MICROVOLTS_PER_UNIT})
    if unknown:
        raise DataError(f"{stem}.hea has the unit {unknown[0]!r}; expected mV, uV or V")
    scale = np.array([MICROVOLTS_PER_UNIT[unit] for unit in units])
    return (signal * scale).T, tuple(name or "(no name)" for name in record.sig_name), rate


def _stated_rate(header: Path) -> float:
    """The sampling rate that the header states; wfdb assumes 250 Hz if it is missing or not a number."""
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    line = next(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    match = RECORD_LINE.match(line)
    if match is None or float(match[1]) == 0:
        raise DataError(
            f"{header} states no sampling rate: expected '<name> <leads> <Hz> <samples>' in its first line, "
            f"found {line!r}"
        )
    return float(match[1])


def _read_cpsc2018_matlab(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    try:
        content: dict[str, Any] = scipy.io.loadmat(path)
        millivolts = np.asarray(content["ECG"]["data"][0, 0], dtype=np.float64)
    except MATLAB_ERRORS as error:
        raise DataError(f"{path} has no header beside it and is not a CPSC2018 MATLAB file ({error!r})") from error
    if millivolts.ndim != 2 or len(millivolts) != len(LEADS):
        raise DataError(f"{path} holds an array of shape {millivolts.shape}, expected (12, samples)")
    return millivolts * 1e3, LEADS, float(CPSC2018_SAMPLING_RATE)


def select_leads(
    signal: NDArray[np.float64], names: Sequence[str], leads: Sequence[str], origin: str
) -> NDArray[np.float64]:
    """Order the rows of `signal` `(L, T)` by lead name, ignoring case.

    Raises:
        DataError: A lead is missing or occurs twice.
    """
    position: dict[str, int] = {}
    for index, name in enumerate(names):
        key = name.strip().lower()
        if key in position and key in {lead.lower() for lead in leads}:
            raise DataError(f"{origin} has lead {name.strip()} twice")
        position[key] = index
    missing = [lead for lead in leads if lead.lower() not in position]
    if missing:
        raise DataError(f"{origin} lacks lead {', '.join(missing)}; it has {', '.join(names)}")
    return signal[[position[lead.lower()] for lead in leads]]


def fit_length(signal: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """Cut `(L, T)` after `samples`, or pad it with zeros at its end."""
    if signal.shape[1] >= samples:
        return signal[:, :samples]
    return np.pad(signal, ((0, 0), (0, samples - signal.shape[1])))


def load_signal(source: Source) -> NDArray[np.int16]:
    """Read one record as the cache keeps it: `(L, T)` int16 microvolts (exact for PTB-XL at its own rates).

    The rate is changed by polyphase filtering (`scipy.signal.resample_poly`). Values beyond +-32.767 mV, which no
    heart produces, are clipped.

    Raises:
        DataError: The record cannot be read (see `read_record`), a lead is missing or occurs twice, a sample is not a
            number, or a lead is constant.
    """
    settings = source.settings
    signal, names, rate = read_record(source.path)
    signal = select_leads(signal, names, settings.leads, source.path)
    if rate != settings.sampling_rate:
        if rate != round(rate):
            raise DataError(f"{source.path} has the sampling rate {rate} Hz; only whole numbers can be resampled")
        _check_values(signal, source)  # before the filter spreads a NaN over its neighbours
        divisor = gcd(round(rate), settings.sampling_rate)
        signal = scipy.signal.resample_poly(
            signal, settings.sampling_rate // divisor, round(rate) // divisor, axis=1, padtype="line"
        )
    _check_values(signal, source)
    signal = fit_length(signal, settings.samples)
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(signal), limits.min, limits.max).astype(np.int16)


def _check_values(signal: NDArray[np.float64], source: Source) -> None:
    for row, lead in zip(signal, source.settings.leads, strict=True):
        if not np.isfinite(row).all():
            raise DataError(f"lead {lead} has {int((~np.isfinite(row)).sum())} samples that are not numbers")
        if np.ptp(row) == 0:
            raise DataError(f"lead {lead} is constant")
