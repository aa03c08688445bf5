"""The channel (section 2, Eqs. 1-4): complex symbols of limited power, and noise of a given SNR.

Power and noise variance are those of complex symbols. Each of a symbol's two reals has half of both; giving each real
the full power, as a much-used program does, makes every result 3.01 dB too good.

Everything is computed in float32 (float64 for float64 symbols), also where a network around it runs in half precision.

Shapes: B images, k complex symbols an image.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from commin.noise import unit_normal
from shared.data.problems import DataError

TINY = 1e-12  # inside the root, so that symbols that are all zero stay so instead of becoming NaN

Channel = Callable[[Tensor, Tensor, Tensor], Tensor]  # of symbols, SNRs and unit noise: what is received


def normalise_power(symbols: Tensor, power: float = 1.0) -> Tensor:
    r"""Scale each image's symbols to the power that is allowed (Eqs. 1 and 2).

    .. math:: z = \sqrt{k P} \, \tilde z / \sqrt{\tilde z^H \tilde z}

    Args:
        symbols: `(B, k)` complex.
        power: P, the mean of a symbol's squared modulus.

    Returns:
        `(B, k)` complex, with a sum of squared moduli of k P in each row.
    """
    energy = symbols.real.square().sum(1, keepdim=True) + symbols.imag.square().sum(1, keepdim=True)
    return symbols * (symbols.shape[1] * power / (energy + TINY)).sqrt()


def noise_variance(snr_db: Tensor, power: float = 1.0) -> Tensor:
    r""":math:`\sigma^2`, the variance of a complex noise symbol (Eq. 4).

    Raises:
        DataError: See `check_snr`.
    """
    check_snr(snr_db)
    return power * 10 ** (-snr_db / 10)


def check_snr(snr_db: Tensor) -> None:
    """Check SNRs in dB, of any shape.

    Raises:
        DataError: One is NaN or infinite.
    """
    finite = torch.isfinite(snr_db)
    if not finite.all():
        raise DataError(f"an SNR of {snr_db[~finite][0].item()} dB was given: give a finite number, such as -5")


def unit_noise(seed: int, keys: Tensor, symbols: int, *place: int) -> Tensor:
    """Complex Gaussian noise of variance 1, that is 1/2 for each real.

    The same draw serves every SNR and every method, so that they are compared in pairs.

    Args:
        seed: Of the experiment.
        keys: `(B,)`, see `commin.noise.image_keys`.
        symbols: k.
        place: See `commin.noise.unit_normal`.

    Returns:
        `(B, k)` complex64 on the CPU.
    """
    return torch.view_as_complex(unit_normal(seed, keys, (symbols, 2), *place) * math.sqrt(0.5))


def awgn(z: Tensor, snr_db: Tensor, noise: Tensor, power: float = 1.0) -> Tensor:
    r"""Additive white Gaussian noise, :math:`\hat z = z + \sigma n` (Eq. 3).

    Args:
        z: `(B, k)` complex symbols of power P.
        snr_db: `(B,)`, each image's.
        noise: `(B, k)` complex, of variance 1, see `unit_noise`.
        power: P.

    Returns:
        `(B, k)` complex.

    Raises:
        ValueError: The shapes do not fit each other.
        DataError: See `check_snr`.
    """
    if noise.shape != z.shape or snr_db.shape != z.shape[:1]:  # broadcast, it would be the same noise or SNR for all
        raise ValueError(
            f"symbols {tuple(z.shape)} need as many noise symbols, got {tuple(noise.shape)}, and an SNR for each "
            f"image, got {tuple(snr_db.shape)}"
        )
    with torch.autocast(z.device.type, enabled=False):
        sigma = noise_variance(snr_db.to(z.real), power).sqrt()
        return z + sigma[:, None] * noise.to(z)


def rayleigh_block_fading(z: Tensor, snr_db: Tensor, noise: Tensor, gain: Tensor, power: float = 1.0) -> Tensor:
    r"""Rayleigh block fading with coherent reception: :math:`\hat z = (h z + \sigma n) / h`.

    One gain h holds for all symbols of an image. The receiver knows it and divides by it, so that an image is sent
    at an SNR of its own, :math:`\text{snr\_db} + 20 \log_{10} |h|`; `snr_db` is the mean over gains.

    Args:
        z: `(B, k)` complex symbols of power P.
        snr_db: `(B,)`.
        noise: `(B, k)` complex, of variance 1.
        gain: `(B,)` complex, of variance 1; `unit_noise(seed, keys, 1, place)[:, 0]` draws it.
        power: P.

    Returns:
        `(B, k)` complex.

    Raises:
        ValueError: See `awgn`.
        DataError: See `check_snr`.
    """
    gain = gain.to(z)[:, None]
    return awgn(gain * z, snr_db, noise, power) / gain


def symbols_of(rho: float, source_numbers: int) -> int:
    """k, the nearest whole number to rho m, where rho is the bandwidth compression ratio k / m.

    Args:
        rho: The ratio; 0.0013 in section 4.
        source_numbers: m, the numbers that an image has: height times width times the channels of its source, one for
            a grey image whatever the network takes.

    Raises:
        DataError: There would be no symbol.

    Example:
        >>> symbols_of(0.0013, 256 * 256 * 3)
        256
    """
    symbols = round(rho * source_numbers) if math.isfinite(rho) else 0
    if symbols < 1:
        raise DataError(
            f"a bandwidth ratio of {rho} leaves no symbol for an image of {source_numbers} numbers: give at least "
            f"{1 / source_numbers:.2g}"
        )
    return symbols


def capacity_bits(symbols: int, snr_db: float) -> float:
    """The bits that k symbols can carry at most, k log2(1 + SNR) (Shannon).

    Example:
        >>> [round(capacity_bits(256, snr)) for snr in (-5, -3, -1, 1, 3, 5)]
        [101, 150, 216, 301, 405, 527]
    """
    return symbols * math.log2(1 + 10 ** (snr_db / 10))
