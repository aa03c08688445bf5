"""Attributions: exact where the closed form holds, equal to captum, and maps that lie where the evidence is."""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabular_imaging.model import attributions
from tabular_imaging.model.attributions import (
    field_importance,
    field_shares,
    guided_grad_cam,
    mlp_attributions,
    numerical_attributions,
)


def make_mlp(inputs: int = 12, hidden: int = 48, dims: int = 20, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """The paper's tabular encoder as after training: every number of batch norm is its own."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(hidden)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.2, 3.0)
    return nn.Sequential(nn.Linear(inputs, hidden, bias=bias), norm, nn.ReLU(), nn.Linear(hidden, dims)).eval()


def by_hand(mlp: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """`(D, I)` in float64, unit by unit: where does it switch, and how much of the path lies on its active side?"""
    first, norm, _, second = mlp
    w1, w2 = (layer.weight.detach().double().numpy() for layer in (first, second))
    b1 = np.zeros(len(w1)) if first.bias is None else first.bias.detach().double().numpy()
    gamma, beta = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    result = np.zeros((len(w2), len(x)))
    for h in range(len(w1)):

        def activation(alpha: float, h: int = h) -> float:
            return gamma[h] * (w1[h] @ (alpha * x) + b1[h] - mean[h]) / np.sqrt(var[h] + norm.eps) + beta[h]

        start, end = activation(0.0), activation(1.0)
        if (start > 0) == (end > 0):
            share = float(start > 0)
        else:
            switch = -start / (end - start)
            share = 1 - switch if end > 0 else switch
        for d in range(len(w2)):
            for i in range(len(x)):
                result[d, i] += x[i] * w2[d, h] * share * gamma[h] * w1[h, i] / np.sqrt(var[h] + norm.eps)
    return result


@pytest.mark.parametrize("bias", [True, False])
def test_the_closed_form_equals_a_unit_by_unit_transcription(bias: bool) -> None:
    mlp, x = make_mlp(bias=bias), torch.randn(3, 12)
    expected = np.stack([by_hand(mlp, row.double().numpy()) for row in x])
    np.testing.assert_allclose(mlp_attributions(mlp.double(), x.double()), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(mlp_attributions(mlp.float(), x), expected, rtol=0, atol=2e-6)


def test_attributions_of_an_output_sum_to_what_the_inputs_change() -> None:
    mlp, x = make_mlp(inputs=120, hidden=512, dims=512), torch.randn(8, 120)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-14)):
        mlp, x = mlp.to(dtype), x.to(dtype)
        change = (mlp(x) - mlp(torch.zeros_like(x))).detach()
        error = (mlp_attributions(mlp, x).sum(2) - change).abs().max() / change.abs().max()
        assert error < bound


def test_float64_inputs_are_enough_for_float64_attributions() -> None:
    mlp, x = make_mlp(), torch.randn(2, 12, dtype=torch.float64)
    result = mlp_attributions(mlp, x)
    torch.testing.assert_close(result, mlp_attributions(mlp.double(), x), rtol=0, atol=1e-13)


def test_captum_with_2000_steps_agrees_within_its_own_error() -> None:
    """The midpoint rule misses a unit's switch by at most half a step; the sum over units bounds captum's error."""
    mlp, x = make_mlp(dims=6).double(), torch.randn(2, 12, dtype=torch.float64)
    first, norm, _, second = mlp
    slope = first.weight * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]
    exact = mlp_attributions(mlp, x)
    for steps in (50, 2000):
        error = (numerical_attributions(mlp, x, steps) - exact).abs()
        bound = (second.weight.abs() @ slope.abs()) * x.abs()[:, None] / (2 * steps)
        assert (error < bound + 1e-6 * exact.abs().max()).all()  # captum's step sizes are float32
        assert error.max() > 0.02 * bound.max()  # so the bound says something


def one_unit(weight: tuple[float, ...], bias: float) -> nn.Sequential:
    mlp = nn.Sequential(nn.Linear(len(weight), 1), nn.BatchNorm1d(1, eps=0.0), nn.ReLU(), nn.Linear(1, 1, bias=False))
    mlp[0].weight.data[:], mlp[0].bias.data[:], mlp[3].weight.data[:] = torch.tensor([weight]), bias, 1.0
    return mlp.eval()


@pytest.mark.parametrize(
    ("case", "weight", "bias", "x", "expected"),
    [
        ("always active", (2.0,), 3.0, (1.0,), (2.0,)),
        ("never active", (2.0,), -3.0, (1.0,), (0.0,)),
        ("on after a quarter", (4.0,), -1.0, (1.0,), (3.0,)),
        ("off after a quarter", (-4.0,), 1.0, (1.0,), (-1.0,)),
        ("from exactly zero upwards", (2.0,), 0.0, (1.0,), (2.0,)),
        ("from exactly zero downwards", (-2.0,), 0.0, (1.0,), (0.0,)),
        ("to exactly zero from below", (2.0,), -2.0, (1.0,), (0.0,)),
        ("to exactly zero from above", (-2.0,), 2.0, (1.0,), (-2.0,)),
        ("level and active: the inputs cancel", (1.0, -1.0), 1.0, (2.0, 2.0), (2.0, -2.0)),
        ("level and inactive", (1.0, -1.0), -1.0, (2.0, 2.0), (0.0, 0.0)),
        ("level and exactly zero", (1.0, -1.0), 0.0, (2.0, 2.0), (0.0, 0.0)),
        ("no input, active", (2.0,), 1.0, (0.0,), (0.0,)),
        ("no input, exactly zero", (2.0,), 0.0, (0.0,), (0.0,)),
    ],
)
def test_a_unit_that_switches_at_an_edge_or_never(
    case: str, weight: tuple[float, ...], bias: float, x: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    result = mlp_attributions(one_unit(weight, bias), torch.tensor([x]))
    torch.testing.assert_close(result, torch.tensor([[expected]]), msg=case)


def test_batch_norm_counts_in_its_evaluation_form_and_is_not_touched() -> None:
    mlp, x = make_mlp(), torch.randn(6, 12)
    expected, before = mlp_attributions(mlp, x), copy.deepcopy(mlp.state_dict())
    mlp.train()
    assert torch.equal(mlp_attributions(mlp, x), expected)
    numerical_attributions(mlp, x[:1], steps=2)
    assert mlp.training
    assert all(torch.equal(value, before[name]) for name, value in mlp.state_dict().items())
    assert torch.equal(mlp_attributions(nn.SyncBatchNorm.convert_sync_batchnorm(mlp), x), expected)


def test_field_importance_follows_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute value first, then the mean over dimensions, the sum over choices, the mean over samples, the share."""
    mlp = make_mlp()
    field = [0, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4]  # three numbers and three one-hot fields
    x = torch.randn(7, 12)
    for columns in (range(2, 6), range(6, 9), range(9, 12)):
        choice = torch.randint(len(columns), (7,))
        x[:, columns] = F.one_hot(choice, len(columns)).float()
    x[0, 2:6] = 0.0  # an unknown label
    importance = np.zeros(5)
    for row in x.double().numpy():
        absolute = np.abs(by_hand(mlp, row))
        for i, owner in enumerate(field):
            importance[owner] += absolute[:, i].mean()
    for pairs in (4096, 24, 1):  # all samples at once, two, one
        monkeypatch.setattr(attributions, "PAIRS_A_PASS", pairs)
        result = field_importance(mlp, x, field)
        np.testing.assert_allclose(result, importance / importance.sum(), rtol=1e-5)
        assert float(result.sum()) == pytest.approx(1.0)
    by_captum = field_shares(numerical_attributions(mlp, x, steps=100).abs().mean((0, 1)), torch.tensor(field))
    torch.testing.assert_close(by_captum, result, rtol=0, atol=2e-3)


def test_another_network_or_other_inputs_are_refused() -> None:
    linear = nn.Linear(12, 4)
    message = (
        r"holds for nn\.Sequential\(Linear, BatchNorm1d, ReLU, Linear\), got {}; use numerical_attributions for it"
    )
    with pytest.raises(TypeError, match=message.format("Linear - ReLU - Linear")):
        mlp_attributions(nn.Sequential(linear, nn.ReLU(), linear), torch.ones(1, 12))
    with pytest.raises(TypeError, match=message.format("Linear - BatchNorm1d - GELU - Linear")):
        field_importance(
            nn.Sequential(linear, nn.BatchNorm1d(4), nn.GELU(), nn.Linear(4, 4)), torch.ones(1, 12), range(12)
        )
    with pytest.raises(TypeError, match=message.format("Linear$|Linear")):
        mlp_attributions(linear, torch.ones(1, 12))  # type: ignore[arg-type]
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="must keep running statistics"):
        mlp_attributions(nn.Sequential(linear, norm, nn.ReLU(), nn.Linear(4, 4)), torch.ones(1, 12))
    with pytest.raises(ValueError, match=r"inputs must be \(B, 12\) and finite, got shape \(1, 11\)"):
        mlp_attributions(make_mlp(), torch.ones(1, 11))
    with pytest.raises(ValueError, match=r"got shape \(1, 12\) with 12 values that are not finite"):
        mlp_attributions(make_mlp(), torch.full((1, 12), torch.nan))


def test_shares_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one field for each of the 12 inputs, got shape \(3,\)"):
        field_importance(make_mlp(), torch.ones(1, 12), [0, 1, 2])
    for nothing in (torch.zeros(2, 12), torch.zeros(0, 12)):
        with pytest.raises(ValueError, match="The importance of all inputs sums to 0, so there are no shares"):
            field_importance(make_mlp(), nothing, range(12))


# Guided Grad-CAM


class GuidedReLU(torch.autograd.Function):
    """Guided backpropagation, from its definition: a gradient passes where both the input and it are positive."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return grad.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class GuidedModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return GuidedReLU.apply(x)


def with_guided_relus(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, GuidedModule())
    return module


def tiny_resnet(name: str = "resnet18", channels: int = 1, classes: int = 3) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    encoder = timm.create_model(
        name, layers=(1, 1, 1, 1), channels=(8, 16, 16, 16), in_chans=channels, num_classes=0, zero_init_last=False
    )
    return encoder, nn.Linear(encoder.num_features, classes)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_guided_grad_cam_equals_its_definition_on_timms_residual_networks(name: str) -> None:
    """Their in-place ReLUs are no obstacle; basic blocks and bottlenecks, two-channel images, a class an image."""
    encoder, head = tiny_resnet(name, channels=2)
    encoder(torch.rand(16, 2, 64, 64))  # batch-norm statistics
    encoder.eval()
    images, target = torch.rand(3, 2, 64, 64), torch.tensor([2, 0, 1])

    features = encoder.forward_features(images)  # layer4 is the last of them
    pooled = encoder.forward_head(features)
    (gradient,) = torch.autograd.grad(head(pooled).gather(1, target[:, None]).sum(), features)
    cam = (features * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).clamp(min=0)
    cam = F.interpolate(cam, images.shape[2:], mode="bilinear")
    leaf = images.clone().requires_grad_()
    score = head(with_guided_relus(encoder)(leaf)).gather(1, target[:, None]).sum()
    expected = (cam * torch.autograd.grad(score, leaf)[0]).abs().sum(1).detach()

    result = guided_grad_cam(encoder, head, images, target, encoder.layer4)
    assert result.shape == (3, 64, 64)
    assert (result.amax((1, 2)) > 0).any()
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    one = guided_grad_cam(encoder, head, images[:1], 2, encoder.layer4)
    torch.testing.assert_close(one, result[:1], rtol=1e-3, atol=1e-5 * float(expected.max()))


def test_the_network_stays_as_it_was_in_inference_mode_frozen_and_in_training() -> None:
    encoder, head = tiny_resnet()
    images = torch.rand(2, 1, 64, 64)
    expected = guided_grad_cam(encoder.eval(), head, images, torch.tensor([0, 1]), encoder.layer4)
    encoder.train().requires_grad_(False)
    before = copy.deepcopy(encoder.state_dict())
    with torch.inference_mode():  # as in Lightning's validation
        inside = images * 1
        result = guided_grad_cam(encoder, head, inside, torch.tensor([0, 1]), encoder.layer4)
    assert torch.equal(result, expected)
    assert all(module.training for module in encoder.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


SIDE, SQUARE = 48, 12


def draw_squares(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a plain square anywhere, and a square with stripes across (class 0), upright (1) or none (2).

    Without class 2 a network may call class 0 whatever is not class 1, and nothing would speak for class 0. Returns
    the images `(count, 1, SIDE, SIDE)`, the classes and a mask of the striped square.
    """
    images = rng.normal(0.4, 0.05, (count, 1, SIDE, SIDE))
    mask = np.zeros((count, SIDE, SIDE), bool)
    target = rng.integers(0, 3, count)
    stripes = np.tile(0.3 + 0.6 * (np.arange(SQUARE) // 2 % 2), (SQUARE, 1))
    halves = SIDE // 2 * rng.permuted(np.tile([0, 1], (count, 1)), axis=1)  # the two never overlap
    for i in range(count):
        top, left = rng.integers(0, SIDE - SQUARE, 2), halves[i] + rng.integers(0, SIDE // 2 - SQUARE, 2)
        boxes = [np.s_[y : y + SQUARE, x : x + SQUARE] for y, x in zip(top, left, strict=True)]
        images[i, 0][boxes[1]] = 0.8
        if target[i] < 2:
            images[i, 0][boxes[0]] = stripes if target[i] else stripes.T
            mask[i][boxes[0]] = True
    return torch.tensor(images, dtype=torch.float32), torch.tensor(target), torch.tensor(mask)


def test_the_map_lies_where_the_evidence_is() -> None:
    rng = np.random.default_rng(0)
    encoder, head = tiny_resnet()
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    for _ in range(80):
        images, target, _ = draw_squares(24, rng)
        optimiser.zero_grad()
        F.cross_entropy(head(encoder(images)), target).backward()
        optimiser.step()
    images, target, mask = draw_squares(64, rng)
    encoder.eval()
    assert (head(encoder(images)).argmax(1) == target).float().mean() > 0.9
    maps = guided_grad_cam(encoder, head, images, target, encoder.layer4)
    assert maps.isfinite().all()
    inside = (maps * mask).sum((1, 2)) / maps.sum((1, 2))  # the striped square is a sixteenth of the image
    for label in (0, 1):
        assert inside[target == label].quantile(0.1) > 0.2
        assert inside[target == label].median() > 0.3


def test_images_and_layers_that_grad_cam_cannot_use_are_refused() -> None:
    encoder, head = tiny_resnet()
    with pytest.raises(
        ValueError, match=r"images must be floats \(B, C, H, W\), got torch.uint8 of shape \(2, 1, 8, 8\)"
    ):
        guided_grad_cam(encoder, head, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 0, encoder.layer4)
    with pytest.raises(ValueError, match=r"got torch.float32 of shape \(1, 8, 8\)"):
        guided_grad_cam(encoder, head, torch.zeros(1, 8, 8), 0, encoder.layer4)
    with pytest.raises(ValueError, match="layer must be a module of the encoder, got another Linear"):
        guided_grad_cam(encoder, head, torch.zeros(2, 1, 8, 8), 0, head)
