"""The invertible network and what stands in its place: round trips, what the fixed transforms are, and Eq. 9."""

import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from commin.model.invertible import Degradation, GaussianBlur, LiftingINN, PlainCNN, Split, blur, to_y_loss
from shared.data.problems import DataError

SNR = torch.tensor([-5.0, 0.0, 5.0])
Net = TypeVar("Net", bound=nn.Module)
SPLITS: list[Split] = ["frame", "decimated", "augmented"]


def images(seed: int = 0, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(net: Net) -> Net:
    """With weights as after training: none is zero."""
    generator = torch.Generator().manual_seed(7)
    for value in net.parameters():
        nn.init.normal_(value, 0, 0.6 / math.sqrt(max(value[0].numel(), 9)), generator=generator)
    return net


def members() -> list[Degradation]:
    lifting = [LiftingINN(split, levels, width=16) for split in SPLITS for levels in (1, 2)]
    return [*lifting, LiftingINN(snr_conditioned=False), GaussianBlur(1.5), PlainCNN(width=16)]


@pytest.mark.parametrize("number", range(9))
def test_the_inverse_undoes_the_forward_pass(number: int) -> None:
    net = members()[number]
    x = images()
    untrained, _ = net(x, SNR)
    trained(net)
    c, d = net(x, SNR)
    assert (net.inverse(c, d, SNR) - x).abs().max() < 1e-5
    if not isinstance(net, GaussianBlur):
        assert (c - untrained).square().mean().sqrt() > 0.05  # the networks do something
    with torch.autocast("cpu", torch.bfloat16):
        mixed, details = net(x.bfloat16(), SNR)
        back = net.inverse(mixed, details, SNR)
    assert mixed.dtype == back.dtype == torch.float32
    assert (back - x.bfloat16()).abs().max() < 1e-5


@pytest.mark.parametrize("number", range(9))
def test_an_image_does_not_depend_on_its_batch(number: int) -> None:
    net = trained(members()[number]).double()
    x, snr_db = images().double(), SNR.double()
    c, d = net(x, snr_db)
    for row in range(3):
        own = slice(row, row + 1)
        alone = net(x[own], snr_db[own])
        torch.testing.assert_close((c[own], d[own]), alone, rtol=1e-10, atol=1e-10)
    other, _ = net(x, snr_db.flip(0))
    knows_the_snr = getattr(net, "embed", None) is not None
    assert torch.equal(other[[0, 2]], c[[0, 2]]) is not knows_the_snr
    torch.testing.assert_close(other[1], c[1], rtol=1e-10, atol=1e-10)


def test_the_decimated_split_is_haars_as_initialised() -> None:
    """Each block's mean, and its three signed sums, written out by hand; the second level splits the means."""
    x = images().double()
    c, d = LiftingINN("decimated", 2).double()(x, SNR)
    assert c.shape == (3, 3, 4, 6)
    assert d.shape == (3, 45, 4, 6)
    torch.testing.assert_close(c, LiftingINN("decimated", 2).coarse_of(x))
    signs = torch.tensor([[[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]).double() / 4
    means = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    blocks = means.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    torch.testing.assert_close(d[:, 36:], torch.einsum("bchiwj,sij->bschw", blocks, signs).flatten(1, 2))
    torch.testing.assert_close(c, blocks.mean((3, 5)))


@pytest.mark.parametrize("levels", [1, 2])
def test_the_decimated_split_is_a_bijection(levels: int) -> None:
    """Lifting leaves volumes as they are; each of Haar's blocks halves four numbers: the determinant is known."""
    net = trained(LiftingINN("decimated", levels, width=8)).double()
    x, snr_db = images(height=4, width=4)[:1].double(), SNR[:1].double()

    def parts(x: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in net(x.view(1, 3, 4, 4), snr_db)])

    jacobian = torch.autograd.functional.jacobian(parts, x.flatten())
    assert jacobian.shape == (48, 48)
    sign, log_determinant = torch.linalg.slogdet(jacobian)
    assert sign != 0
    assert log_determinant.item() == pytest.approx(-(48 + 12 * (levels - 1)) * math.log(2), rel=1e-9)


def test_the_frame_keeps_energy_and_has_the_blur_as_its_coarse_part() -> None:
    x = images(1, 20, 31).double()
    c, d = LiftingINN("frame", 2).double()(x, SNR)
    torch.testing.assert_close(c.square().sum() + d.square().sum(), x.square().sum())
    torch.testing.assert_close(c, blur(x, math.sqrt(15 / 12)))
    low, rest = LiftingINN("augmented", 2).double()(x, SNR)
    torch.testing.assert_close((low, rest), (c, x - c))


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_the_blur_is_a_gaussian_that_reflects(sigma: float) -> None:
    x = images(2, 20, 31).double()
    expected = gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=10)
    np.testing.assert_allclose(blur(x, sigma), expected, atol=1e-5)  # scipy samples the Gaussian instead
    c, d = GaussianBlur(sigma)(x, SNR)
    torch.testing.assert_close(c, blur(x, sigma))
    torch.testing.assert_close(d, x - c)


@pytest.mark.parametrize("split", SPLITS)
def test_the_own_coarse_part_gives_the_image_and_no_gradient(split: Split) -> None:
    net = trained(LiftingINN(split, 1, width=8))
    x = images().requires_grad_()
    c, d = net(x, SNR)
    merged = net.inverse(c.detach(), d, SNR)
    torch.testing.assert_close(merged, x, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad((merged - x).square().sum(), x)
    assert gradient.abs().max() < 1e-4
    other = net.inverse(c.detach() + 0.1, d.detach(), SNR)
    assert (other - x).square().mean().sqrt() > 0.02


def test_only_a_redundant_split_has_a_gap_when_it_is_analysed_again() -> None:
    x = images()
    for split in SPLITS:
        net = trained(LiftingINN(split, 1, width=8))
        c, d = net(x, SNR)
        changed = c + 0.3 * torch.randn(c.shape, generator=torch.Generator().manual_seed(1))
        gap = net.reanalysis_gap(changed, d, SNR)
        assert gap.shape == (3,)
        assert net.reanalysis_gap(c, d, SNR).max() < 1e-4
        assert (gap < 1e-4).all() if split == "decimated" else (gap > 0.05).all()
    c, d = GaussianBlur(2.0)(x, SNR)
    changed = c + torch.ones(3, 1, 1, 1) * torch.tensor([1.0, -1.0]).repeat(12)  # nothing of it passes the blur
    torch.testing.assert_close(GaussianBlur(2.0).reanalysis_gap(changed, d, SNR), torch.ones(3), rtol=0, atol=0.05)


def test_pictures_of_both_parts_add_up_to_the_image_before_training() -> None:
    x = images().double()
    for levels in (1, 2, 3):
        net = LiftingINN("decimated", levels).double()
        c, d = net(x, SNR)
        torch.testing.assert_close(net.picture(c) + net.picture(d), x)
        torch.testing.assert_close(net.picture(c), c.repeat_interleave(2**levels, 2).repeat_interleave(2**levels, 3))
    for whole in (LiftingINN("augmented", 1).double(), GaussianBlur(1.0)):
        c, d = whole(x, SNR)
        torch.testing.assert_close(whole.picture(c) + whole.picture(d), x)


def test_a_network_that_is_reset_is_its_fixed_transform() -> None:
    net, x = trained(LiftingINN(levels=1, width=8)), images()
    net.reset()
    c, d = net(x, SNR)
    expected = LiftingINN(levels=1, width=8)(x, SNR)
    assert torch.equal(c, expected[0])
    assert torch.equal(d, expected[1])


def test_the_loss_is_the_mean_squared_difference() -> None:
    c, y = images(3), images(4)
    expected = np.mean([np.mean((one - other) ** 2) for one, other in zip(c.numpy(), y.numpy(), strict=True)])
    assert float(to_y_loss(c, y)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("number", [0, 1])
def test_the_coarse_part_learns_what_the_snr_does(number: int) -> None:
    """What is received is brighter at a higher SNR: a network that does not know the SNR cannot come below 1/6."""
    torch.manual_seed(0)
    net = [LiftingINN("decimated", 1, steps=1, width=8), PlainCNN(width=16, blocks=1)][number]
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    level = torch.tensor([-0.5, 0.0, 0.5])[:, None, None, None]
    losses = []
    for step in range(80):
        x = images(step, 8, 8)
        loss = to_y_loss(net(x, SNR)[0], net.coarse_of(0.5 * blur(x, 1.0) + level))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 / 6
    x = images(99, 8, 8)
    c, d = net(x, SNR)
    torch.testing.assert_close(net.inverse(c, d, SNR), x, rtol=0, atol=1e-5)


def test_levels_share_their_networks_and_the_plain_network_is_of_equal_size() -> None:
    def size(net: nn.Module) -> int:
        return sum(value.numel() for value in net.parameters())

    assert size(LiftingINN(levels=1)) == size(LiftingINN(levels=3)) == 341_904
    assert size(PlainCNN()) == pytest.approx(size(LiftingINN()), rel=0.05)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^split must be frame, decimated or augmented, got 'haar'$"):
        LiftingINN("haar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^levels and steps must be at least 1, got 0 and 4$"):
        LiftingINN(levels=0)
    with pytest.raises(ValueError, match=r"^sigma must be positive, got 0$"):
        GaussianBlur(0)
    said = r"^an image of 16 x 22 pixels cannot be halved 2 times: give sides that are multiples of 4$"
    with pytest.raises(DataError, match=said):
        LiftingINN()(images(0, 16, 22), SNR)
    with pytest.raises(DataError, match=r"^an image of 16 x 23 pixels has an odd side: give even ones$"):
        PlainCNN()(images(0, 16, 23), SNR)
