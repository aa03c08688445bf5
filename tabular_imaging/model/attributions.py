"""Which fields of the table an embedding depends on, and which pixels a class does (MMCL, Sections 3.2 and 4.5).

- `mlp_attributions`: integrated gradients of the paper's tabular encoder, exactly and at once.
- `field_importance`: the percentages of Figs. 3 and 4 and of Table 2, over many samples.
- `numerical_attributions`: the same of any encoder, by captum's numerical integration.
- `guided_grad_cam`: the overlays of Fig. 5.
"""

import copy
import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from captum.attr import GuidedGradCam, IntegratedGradients
from torch import Tensor, nn

PAIRS_A_PASS = 4096  # sample-input pairs in memory at once: 64 MB for 2,048 hidden units and dimensions in float32


@torch.no_grad()
def mlp_attributions(mlp: nn.Sequential, inputs: Tensor) -> Tensor:
    r"""Integrated gradients of every output of Linear - BatchNorm - ReLU - Linear from a zero baseline, exactly.

    With batch norm's running statistics folded into the first layer, hidden unit h has the pre-activation
    :math:`a_h(\alpha) = c_h + \alpha \sum_i W'_{hi} x_i` at the point :math:`\alpha x` of the straight path: it is
    affine in alpha, so the unit switches at most once. With :math:`\rho_h(x)` the share of the path on which it is
    active, the integral of Sundararajan et al. 2017, Eq. 1 is

    .. math::
        IG_{di}(x) = x_i \sum_h W^{(2)}_{dh} \, \rho_h(x) \, W'_{hi}, \qquad
        \rho_h(x) = \mathrm{clip}_{[0, 1]} \frac{\max(a_h(0), a_h(1))}{|a_h(1) - a_h(0)|} .

    The attributions of an output sum to what the inputs change: :math:`\sum_i IG_{di}(x) = f_d(x) - f_d(0)`.
    As in torch, a ReLU has no gradient at zero.

    Args:
        mlp: The encoder after its one-hot encoding. Batch norm counts in its evaluation form, whatever its mode.
        inputs: `(B, I)`. The result has B D I numbers: for many samples see `field_importance`.

    Returns:
        `(B, D, I)` in float32, or in float64 if the network or the inputs are.

    Raises:
        TypeError: if `mlp` is not of that form.
        ValueError: if batch norm has no running statistics, or `inputs` is not `(B, I)` and finite.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(mlp_attributions(mlp, x).sum(2), mlp(x) - mlp(torch.zeros(1, 3)), atol=1e-5)
        True
    """
    with torch.autocast(inputs.device.type, enabled=False):
        first, offset, second, inputs = _fold(mlp, inputs)
        share = _active_share(first, offset, inputs)
        return second @ (share[:, :, None] * first) * inputs[:, None, :]


@torch.no_grad()
def field_importance(mlp: nn.Sequential, inputs: Tensor, field_of_input: Sequence[int] | Tensor) -> Tensor:
    """Importance of every field for the embeddings of many samples: MMCL Figs. 3 and 4 and the share in Table 2.

    In the paper's order: the absolute value of every attribution (one sample, one dimension, one input), the mean
    over dimensions, the sum over the choices of a categorical; then the mean over samples and, for a percentage,
    the division by the sum over fields. Only the first step is not linear, so only its place matters.

    An input that is zero has no attribution from a zero baseline, so of a one-hot field only the chosen column is
    computed. Memory is bounded by `PAIRS_A_PASS`, whatever the number of samples.

    Args:
        mlp: As `mlp_attributions`.
        inputs: `(N, I)`.
        field_of_input: `(I,)` integers from 0 to M - 1: the field that each input belongs to.

    Returns:
        `(M,)`, at least 0, sum 1.

    Raises:
        TypeError, ValueError: as `mlp_attributions` and `field_shares`.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> field_importance(mlp, torch.eye(3), [0, 1, 1]).shape
        torch.Size([2])
    """
    with torch.autocast(inputs.device.type, enabled=False):
        first, offset, second, inputs = _fold(mlp, inputs)
        importance = inputs.new_zeros(inputs.shape[1])
        for batch in inputs.split(max(1, PAIRS_A_PASS // inputs.shape[1])):
            share = _active_share(first, offset, batch)
            row, column = batch.nonzero(as_tuple=True)
            attributions = second @ (first[:, column] * share[row].T * batch[row, column])  # (D, pairs)
            importance.index_add_(0, column, attributions.abs().mean(0))
    return field_shares(importance, field_of_input)


def field_shares(importance: Tensor, field_of_input: Sequence[int] | Tensor) -> Tensor:
    """Sum the importance of inputs over the columns of each field and divide by the total.

    With it the importance of fields for any other encoder is
    `field_shares(numerical_attributions(encoder, inputs).abs().mean((0, 1)), field_of_input)`.

    Args:
        importance: `(I,)`, at least 0.
        field_of_input: `(I,)` integers from 0 to M - 1.

    Returns:
        `(M,)`, sum 1.

    Raises:
        ValueError: if the lengths differ, or if the total is not a finite number above 0.

    Example:
        >>> field_shares(torch.tensor([1.0, 2.0, 1.0]), [0, 1, 1])
        tensor([0.2500, 0.7500])
    """
    field = torch.as_tensor(field_of_input, device=importance.device)
    if field.shape != importance.shape:
        raise ValueError(
            f"field_of_input must hold one field for each of the {len(importance)} inputs, got shape "
            f"{tuple(field.shape)}."
        )
    total = importance.sum()
    if not 0 < total.item() < math.inf:
        raise ValueError(
            f"The importance of all inputs sums to {total.item():g}, so there are no shares. Hand at least one sample "
            "that is not all zeros to an encoder that answers to its inputs."
        )
    return importance.new_zeros(int(field.max()) + 1).index_add_(0, field, importance) / total


def numerical_attributions(encoder: nn.Module, inputs: Tensor, steps: int = 50, rows_a_pass: int = 8192) -> Tensor:
    """Integrated gradients of every output of any encoder from a zero baseline, with captum (midpoint rule).

    Captum differentiates one number a row, so each sample is repeated for every output dimension. For a ReLU network
    the gradient is piecewise constant along the path: more steps help, a rule of higher order does not.

    Args:
        encoder: `(B, I) -> (B, D)`; a copy in evaluation mode is used.
        inputs: `(B, I)`, floats.
        steps: Points on the path.
        rows_a_pass: Rows in one forward pass, at least D.

    Returns:
        `(B, D, I)`.

    Example:
        >>> numerical_attributions(nn.Linear(3, 2), torch.ones(4, 3), steps=4).shape
        torch.Size([4, 2, 3])
    """
    # Lightning validates in inference mode, whose tensors autograd refuses.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
        encoder, inputs = copy.deepcopy(encoder).eval(), inputs.clone()
        dims = torch.arange(encoder(inputs[:1]).shape[1], device=inputs.device)
        method = IntegratedGradients(encoder)
        return torch.stack(
            [
                method.attribute(
                    row.expand(len(dims), -1),
                    target=dims,
                    n_steps=steps,
                    method="riemann_middle",
                    internal_batch_size=max(rows_a_pass, len(dims)),
                ).detach()
                for row in inputs
            ]
        )


def guided_grad_cam(
    encoder: nn.Module, head: nn.Module, images: Tensor, target: int | Tensor, layer: nn.Module
) -> Tensor:
    """Guided Grad-CAM of a class (Selvaraju et al. 2017, Section 3.2), with captum: MMCL Fig. 5.

    Grad-CAM (the stage's channels, weighted by the mean gradient of the class score, positive part, bilinear to the
    size of the image) times guided backpropagation (the score's gradient, with only positive gradients passed back
    through a ReLU). Of that product the absolute values are summed over the image's channels: its sign only says
    whether a pixel should be lighter or darker.

    Args:
        encoder: `(B, C, H, W) -> (B, D)`, with a `nn.ReLU` module for every ReLU, as in timm; where an encoder has
            another non-linearity, backpropagation through it is plain.
        head: `(B, D) -> (B, classes)`, the fine-tuned classifier.
        images: `(B, C, H, W)`, floats, prepared as for the encoder.
        target: Class whose score is explained, one for all or `(B,)`.
        layer: Module of `encoder` whose output is its last feature maps: `layer4` of timm's ResNets.

    Returns:
        `(B, H, W)`, at least 0, of any scale; all zero where nothing at that stage is evidence for the class.

    Raises:
        ValueError: if `layer` is not part of `encoder`, or `images` is not a `(B, C, H, W)` tensor of floats.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be floats (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}: Grad-CAM needs "
            "gradients of the image, so resize and scale it to [0, 1] first."
        )
    if not any(layer is module for module in encoder.modules()):
        raise ValueError(f"layer must be a module of the encoder, got another {type(layer).__name__}.")
    # Lightning validates in inference mode, whose tensors autograd refuses.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        # Captum hooks the network; a copy leaves the caller's as it is, in the mode and precision that it is in.
        network, layer = copy.deepcopy((nn.Sequential(encoder, head), layer))
        target = target.clone() if isinstance(target, Tensor) else target
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
            maps: Tensor = GuidedGradCam(network.eval(), layer).attribute(
                images.clone().requires_grad_(), target, interpolate_mode="bilinear"
            )
    return maps.detach().abs().sum(1)


def _fold(mlp: nn.Sequential, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W' `(H, I)` and c `(H,)` with batch norm folded in, W2 `(D, H)` and the inputs, checked and of one type."""
    layers = list(mlp) if isinstance(mlp, nn.Sequential) else [mlp]
    match layers:  # SyncBatchNorm: what Lightning makes of batch norm on several devices
        case [nn.Linear() as first, (nn.BatchNorm1d() | nn.SyncBatchNorm()) as norm, nn.ReLU(), nn.Linear() as second]:
            pass
        case _:
            raise TypeError(
                "The closed form holds for nn.Sequential(Linear, BatchNorm1d, ReLU, Linear), got "
                f"{' - '.join(type(layer).__name__ for layer in layers)}; use numerical_attributions for it."
            )
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            "BatchNorm1d must keep running statistics: without them a row's output depends on the other rows."
        )
    if inputs.ndim != 2 or inputs.shape[1] != first.in_features or not inputs.isfinite().all():
        raise ValueError(
            f"inputs must be (B, {first.in_features}) and finite, got shape {tuple(inputs.shape)} with "
            f"{int((~inputs.isfinite()).sum())} values that are not finite."
        )
    dtype = torch.promote_types(torch.promote_types(first.weight.dtype, inputs.dtype), torch.float32)
    mean, scale = norm.running_mean.to(dtype), (norm.running_var.to(dtype) + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.to(dtype)
    offset = -mean * scale
    if first.bias is not None:
        offset = offset + first.bias.to(dtype) * scale
    if norm.affine:
        offset = offset + norm.bias.to(dtype)
    return first.weight.to(dtype) * scale[:, None], offset, second.weight.to(dtype), inputs.to(dtype)


def _active_share(first: Tensor, offset: Tensor, inputs: Tensor) -> Tensor:
    """`(B, H)` in [0, 1]: the share of the path from zero to each input on which each hidden unit is above zero."""
    slope = F.linear(inputs, first)
    # Where the slope is 0, c / 0 is plus or minus infinity, as the unit is always or never active, or NaN at zero.
    return (torch.maximum(offset, offset + slope) / slope.abs()).nan_to_num(0.0, math.inf, -math.inf).clamp(0, 1)
