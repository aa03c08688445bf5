"""What needs no neural network: principal components sent as they are, and the bound of an ideal digital link.

Both treat images as a Gaussian source with the training images' mean and covariance, and both know the SNR, as the
paper assumes (section 4). Power is limited in the mean over images (Eq. 1), not for each image (Eq. 2), which would
undo the receiver's linear estimate. Reconstructions are not clipped. Everything runs on the CPU.

Shapes: N images, D numbers an image, R components, k complex symbols an image.
"""

from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from commin.channel import awgn, capacity_bits, noise_variance
from shared.data.problems import DataError

NEGLIGIBLE = 1e-10  # of the largest variance: rounding error of the decomposition


@dataclass(frozen=True)
class LinearCode:
    """Principal components of images, and two ways of sending them.

    Attributes:
        mean: `(D,)`.
        components: `(R, D)`, orthonormal, of falling variance.
        variances: `(R,)` float64.

    Example:
        >>> code = LinearCode.fit(torch.randn(50, 12))
        >>> code.components.shape, code.capacity_distortion(2, 5.0) < code.linear_distortion(2, 5.0)
        (torch.Size([12, 12]), True)
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    @classmethod
    def fit(cls, images: Tensor) -> "LinearCode":
        """All components of the training images `(N, D)` in which they differ.

        Raises:
            DataError: They do not differ.
        """
        # The covariance is the faster way where there are many images, and does not fit in memory where there are few.
        solver = "covariance_eigh" if len(images) >= images.shape[1] else "full"
        found = PCA(svd_solver=solver).fit(images.numpy())
        kept = found.explained_variance_ > NEGLIGIBLE * found.explained_variance_[0]
        if not kept.any():
            raise DataError(f"the {len(images)} training images are all the same: a linear code needs some that differ")
        mean, components = (torch.from_numpy(array).to(images) for array in (found.mean_, found.components_[kept]))
        return cls(mean, components, torch.from_numpy(found.explained_variance_[kept]).double())

    def send_linear(self, images: Tensor, snr_db: Tensor, noise: Tensor) -> Tensor:
        """Linear analogue joint source-channel coding: each real of a symbol carries one component.

        The receiver takes the linear estimate of least mean squared error. For the powers see `linear_powers`.

        Args:
            images: `(N, D)`.
            snr_db: `(N,)`.
            noise: `(N, k)` complex, of variance 1.

        Returns:
            `(N, D)`.

        Raises:
            DataError: An SNR is NaN or infinite.
        """
        symbols = noise.shape[1]
        powers = self.linear_powers(symbols, snr_db)
        sent = powers.shape[1]
        variances = self.variances[:sent]
        gains = (powers / variances).sqrt()
        reals = torch.zeros(len(images), symbols, 2, dtype=torch.float64)
        reals.flatten(1)[:, :sent] = gains * self._coefficients(images)[:, :sent]
        z_hat = awgn(torch.view_as_complex(reals), snr_db, noise)
        received = torch.view_as_real(z_hat).flatten(1)[:, :sent]
        estimate = gains * variances / (powers + noise_variance(snr_db.double())[:, None] / 2)
        return self._images(estimate * received)

    def linear_powers(self, symbols: int, snr_db: Tensor) -> Tensor:
        r"""The components' powers that make the error of `send_linear` least, `(N, min(2k, R))`; they sum to k.

        With :math:`\nu` such that they do, and noise of variance :math:`\sigma^2 / 2` on each real,

        .. math:: p_i = \max(0, \nu \sqrt{\lambda_i} - \sigma^2 / 2),

        so that strong components get more power, though less than in proportion, and the weakest ones none.
        """
        root = self.variances[: 2 * symbols].sqrt()
        noise = noise_variance(snr_db.double())[:, None] / 2
        count = torch.arange(1, len(root) + 1)
        levels = (symbols + count * noise) / root.cumsum(0)  # nu if that many components are sent
        used = (levels * root > noise).sum(1, keepdim=True)
        return (levels.gather(1, used - 1) * root - noise).clamp(min=0)

    def linear_distortion(self, symbols: int, snr_db: float) -> float:
        """Mean squared error a number of `send_linear`, for a Gaussian source."""
        asked = torch.tensor([snr_db])
        powers = self.linear_powers(symbols, asked)[0]
        noise = noise_variance(asked.double()) / 2
        left = self.variances.clone()
        left[: len(powers)] *= noise / (noise + powers)
        return float(left.sum()) / len(self.mean)

    def send_at_capacity(self, images: Tensor, symbols: int, snr_db: Tensor, normal: Tensor) -> Tensor:
        r"""What the best code gives with as many bits as the channel can carry: reverse water-filling.

        A component of variance :math:`\lambda` with distortion D becomes :math:`\beta s + \sqrt{\beta D} \epsilon`,
        :math:`\beta = 1 - D / \lambda`, with a standard normal :math:`\epsilon` (Cover and Thomas 2006, section 10.3).
        For a Gaussian source no code of finite length does as well on average.

        Args:
            images: `(N, D)`.
            symbols: k.
            snr_db: `(N,)`.
            normal: `(N, R)`, see `commin.noise.unit_normal`.

        Returns:
            `(N, D)`.
        """
        bits = [capacity_bits(symbols, snr) for snr in snr_db.tolist()]
        distortions = self.distortions(torch.tensor(bits, dtype=torch.float64))
        shrink = 1 - distortions / self.variances
        return self._images(shrink * self._coefficients(images) + (shrink * distortions).sqrt() * normal)

    def distortions(self, bits: Tensor) -> Tensor:
        r"""Each component's squared error in the best code of some bits an image: `(N,)` float64 to `(N, R)`.

        It is :math:`\min(\theta, \lambda_i)`, where the level :math:`\theta` is such that
        :math:`\sum_i \max(0, \frac12 \log_2 (\lambda_i / \theta))` is the number of bits.
        """
        logs = self.variances.log2()
        count = torch.arange(1, len(logs) + 1)
        levels = (logs.cumsum(0) - 2 * bits[:, None]) / count  # log2 theta if that many components are coded
        used = (levels < logs).sum(1, keepdim=True).clamp(min=1)
        return torch.minimum(2 ** levels.gather(1, used - 1), self.variances)

    def capacity_distortion(self, symbols: int, snr_db: float) -> float:
        """Least mean squared error a number of any code, for a Gaussian source (Shannon)."""
        bits = torch.tensor([capacity_bits(symbols, snr_db)], dtype=torch.float64)
        return float(self.distortions(bits).sum()) / len(self.mean)

    def _coefficients(self, images: Tensor) -> Tensor:
        return ((images - self.mean) @ self.components.mT).double()

    def _images(self, coefficients: Tensor) -> Tensor:
        return self.mean + coefficients.to(self.mean) @ self.components[: coefficients.shape[1]]
