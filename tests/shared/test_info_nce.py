import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shared.distributed import convert_batchnorm, gather_with_grad
from shared.losses import clip_loss, nt_xent_loss, retrieval_accuracy, supcon_loss
from tests.processes import WORLD_SIZE, rows_of

LOSSES = [clip_loss, nt_xent_loss]
GLOBAL_BATCH = 8


# ---- the equations, once more, in NumPy float64 with loops


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def clip_oracle(
    a: np.ndarray,
    b: np.ndarray,
    tau: float,
    weight: float = 0.5,
    labels: list[int] | None = None,
    positive_in_denominator: bool = True,
) -> float:
    """ETP Eqs. 3-5 with the weight of MMCL Eq. 3, Eq. 2's k != j, and false negatives left out."""
    total = 0.0
    for i in range(len(a)):
        columns = [i] if positive_in_denominator else []
        for j in range(len(a)):
            if j != i and (labels is None or labels[i] == -1 or labels[j] != labels[i]):
                columns.append(j)
        positive = math.exp(cosine(a[i], b[i]) / tau)
        a2b = -math.log(positive / sum(math.exp(cosine(a[i], b[j]) / tau) for j in columns))
        b2a = -math.log(positive / sum(math.exp(cosine(b[i], a[j]) / tau) for j in columns))
        total += weight * a2b + (1 - weight) * b2a
    return total / len(a)


def nt_xent_oracle(z1: np.ndarray, z2: np.ndarray, tau: float) -> float:
    """SimCLR Algorithm 1: views interleaved, 2k-1 and 2k being partners."""
    z = [view for pair in zip(z1, z2, strict=True) for view in pair]
    total = 0.0
    for i in range(len(z)):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(cosine(z[i], z[k]) / tau) for k in range(len(z)) if k != i)
        total += -math.log(math.exp(cosine(z[i], z[partner]) / tau) / others)
    return total / len(z)


ORACLES = {clip_loss: clip_oracle, nt_xent_loss: nt_xent_oracle}


def central_differences(f: Callable[[], float], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    gradient = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        value = x[index]
        x[index] = value + step
        above = f()
        x[index] = value - step
        gradient[index] = (above - f()) / (2 * step)
        x[index] = value
    return gradient


def pairs(batch: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    b = a + torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return a.to(dtype), b.to(dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_value_and_gradients_equal_the_written_equations(loss, tau):
    a, b = (x.requires_grad_() for x in pairs(5, 3))
    temperature = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    value = loss(a, b, temperature)
    value.backward()
    x, y, t = a.detach().numpy().copy(), b.detach().numpy().copy(), np.array([tau])

    def oracle() -> float:
        return ORACLES[loss](x, y, t[0])

    assert value.item() == pytest.approx(oracle(), rel=1e-12)
    for ours, array in ((a.grad, x), (b.grad, y), (temperature.grad.view(1), t)):
        np.testing.assert_allclose(ours.numpy(), central_differences(oracle, array), rtol=1e-6, atol=1e-8)


# A class of two and one of three, both spread over two ranks; a single one; two rows without a label.
LABELS = [4, 0, -1, 7, 7, 4, -1, 7]
VARIANTS = {
    "labels": {"labels": LABELS},
    "Eq. 2 as printed": {"positive_in_denominator": False},
    "both": {"labels": LABELS, "positive_in_denominator": False},
}


def variant(name: str) -> Callable[..., Tensor]:
    """`clip_loss` for a batch of `GLOBAL_BATCH` rows (or this rank's `own` ones), labels as a tensor."""
    options: dict[str, Any] = dict(VARIANTS[name])
    labels = torch.tensor(options.pop("labels")) if "labels" in options else None

    def loss(*arguments: Any, own: slice = slice(None), **further: Any) -> Tensor:
        return clip_loss(*arguments, labels=None if labels is None else labels[own], **options, **further)

    return loss


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_value_and_gradients_of_the_variants_equal_the_written_equations(name, weight):
    a, b = (x.requires_grad_() for x in pairs(GLOBAL_BATCH, 3))
    value = variant(name)(a, b, 0.3, weight=weight)
    value.backward()
    x, y = a.detach().numpy().copy(), b.detach().numpy().copy()
    oracle = partial(clip_oracle, x, y, 0.3, weight, **VARIANTS[name])
    assert value.item() == pytest.approx(oracle(), rel=1e-12)
    assert value.item() != pytest.approx(clip_oracle(x, y, 0.3, weight), rel=1e-3)
    for ours, array in ((a.grad, x), (b.grad, y)):
        np.testing.assert_allclose(ours.numpy(), central_differences(oracle, array), rtol=1e-6, atol=1e-8)


def test_labels_that_are_all_different_or_all_missing_change_nothing():
    a, b = pairs(6, 4)
    plain = clip_loss(a, b, 0.1).item()
    for labels in (torch.arange(6), torch.full((6,), -1)):
        assert clip_loss(a, b, 0.1, labels=labels).item() == pytest.approx(plain, rel=1e-12)


def test_integer_labels_of_two_classes_give_a_finite_loss():
    """What a public implementation of the binary case answers with NaN."""
    a, b = (x.requires_grad_() for x in pairs(6, 4))
    labels = [0, 1, 0, 0, 1, 0]
    value = clip_loss(a, b, 0.1, labels=torch.tensor(labels))
    value.backward()
    expected = clip_oracle(a.detach().numpy(), b.detach().numpy(), 0.1, labels=labels)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


@pytest.mark.parametrize("positive_in_denominator", [True, False])
def test_a_batch_of_one_class_has_no_negatives_and_teaches_nothing(positive_in_denominator):
    a, b = (x.requires_grad_() for x in pairs(6, 4))
    labels = torch.full((6,), 3)
    value = clip_loss(a, b, 0.1, labels=labels, positive_in_denominator=positive_in_denominator)
    value.backward()
    assert value.item() == 0
    assert a.grad.abs().max() == 0
    assert b.grad.abs().max() == 0
    labels[2] = -1  # one row without a label is a negative to all others
    value = clip_loss(a, b, 0.1, labels=labels, positive_in_denominator=positive_in_denominator)
    expected = clip_oracle(
        a.detach().numpy(), b.detach().numpy(), 0.1, labels=labels.tolist(),
        positive_in_denominator=positive_in_denominator,
    )  # fmt: skip
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("positive_in_denominator", [True, False])
@pytest.mark.parametrize(("batch", "tau"), [(512, 0.05), (16, 1e-3)])
def test_the_variants_are_finite_in_bf16_and_under_autocast(positive_in_denominator, batch, tau):
    a, b = (x.requires_grad_() for x in pairs(batch, 32, dtype=torch.bfloat16))
    options = {"labels": torch.arange(batch) % 5 - 1, "positive_in_denominator": positive_in_denominator}
    value = clip_loss(a, b, tau, **options)
    value.backward()
    assert value.dtype == torch.float32
    assert all(x.isfinite().all() for x in (value, a.grad, b.grad))
    assert a.grad.abs().sum() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert clip_loss(a, b, tau, **options).item() == value.item()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(5, dtype=torch.long), "labels must be integers of shape (4,), one a pair, got torch.int64 (5,)."),
        (torch.zeros(4), "labels must be integers of shape (4,), one a pair, got torch.float32 (4,)."),
        (torch.eye(4).long(), "labels must be integers of shape (4,), one a pair, got torch.int64 (4, 4)."),
    ],
)
def test_bad_labels_are_named(labels, message):
    for call in (partial(clip_loss, labels=labels), partial(supcon_loss, labels=labels)):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            call(*pairs(4, 3), temperature=0.1)
        assert str(error.value) == message


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weight_is_the_share_of_the_direction_a_to_b(weight):
    a, b = pairs(6, 4)
    expected = clip_oracle(a.numpy(), b.numpy(), 0.1, weight)
    assert clip_loss(a, b, 0.1, weight=weight).item() == pytest.approx(expected, rel=1e-12)
    swapped = clip_loss(b, a, 0.1, weight=1 - weight)
    assert swapped.item() == pytest.approx(expected, rel=1e-12)


def test_closed_form_values():
    same = torch.ones(16, 4, dtype=torch.float64)
    assert clip_loss(same, same, 0.07).item() == pytest.approx(math.log(16), abs=1e-12)
    assert nt_xent_loss(same, same, 0.07).item() == pytest.approx(math.log(31), abs=1e-12)
    # Partners coincide, everything else is orthogonal: 1 positive at exp(1 / tau), the negatives at 1.
    apart = torch.eye(16, dtype=torch.float64)
    assert clip_loss(apart, apart, 0.5).item() == pytest.approx(math.log1p(15 * math.exp(-2)), abs=1e-12)
    assert nt_xent_loss(apart, apart, 0.5).item() == pytest.approx(math.log1p(30 * math.exp(-2)), abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_length_of_an_embedding_does_not_matter(loss):
    a, b = pairs(6, 4)
    lengths = torch.linspace(0.1, 50, 6, dtype=torch.float64)[:, None]
    assert loss(a * lengths, b / lengths, 0.1).item() == pytest.approx(loss(a, b, 0.1).item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_does_not_touch_the_loss(loss):
    a, b = pairs(32, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(a, b, 0.07)
    assert inside.dtype == torch.float32
    assert inside.item() == loss(a, b, 0.07).item()


@pytest.mark.parametrize("loss", LOSSES)
def test_bf16_embeddings_lose_only_their_own_rounding(loss):
    a, b = pairs(32, 16, dtype=torch.bfloat16)
    value = loss(a, b, 0.07)
    assert value.dtype == torch.float32
    # The same rounded inputs in double precision: the arithmetic itself is float32.
    assert value.item() == pytest.approx(loss(a.double(), b.double(), 0.07).item(), rel=1e-5)
    full = loss(*pairs(32, 16, dtype=torch.float32), 0.07).item()
    assert value.item() == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("batch", "tau"), [(512, 0.05), (16, 1e-3)])  # exp(1 / 1e-3) overflows even float64
def test_value_and_gradient_are_finite_at_low_temperature_in_bf16(loss, batch, tau):
    a, b = (x.requires_grad_() for x in pairs(batch, 32, dtype=torch.bfloat16))
    value = loss(a, b, tau)
    value.backward()
    assert value.isfinite()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    assert a.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_twenty_steps_lower_the_loss_and_find_the_partners(loss):
    a, b = pairs(16, 8, seed=3, dtype=torch.float32)
    b = b[torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    a.requires_grad_()
    optimizer = torch.optim.SGD([a], lr=5.0)
    before, found_before = loss(a, b, 0.1).item(), retrieval_accuracy(a, b).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(a, b, 0.1).backward()
        optimizer.step()
    assert loss(a, b, 0.1).item() < 0.5 * before
    assert retrieval_accuracy(a, b).item() > found_before


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("a_shape", "b_shape", "temperature", "message"),
    [
        ((4, 3), (5, 3), 0.1, "Expected two paired embeddings of one shape (B, D), got (4, 3) and (5, 3)."),
        ((4, 3), (4, 2), 0.1, "Expected two paired embeddings of one shape (B, D), got (4, 3) and (4, 2)."),
        ((4,), (4,), 0.1, "Expected two paired embeddings of one shape (B, D), got (4,) and (4,)."),
        ((4, 3), (4, 3), 0.0, "temperature must be a finite number above 0, got 0.0."),
        ((4, 3), (4, 3), -0.5, "temperature must be a finite number above 0, got -0.5."),
        ((4, 3), (4, 3), torch.tensor(math.nan), "temperature must be a finite number above 0, got nan."),
        ((4, 3), (4, 3), torch.ones(1), "temperature must be a number or a 0-dim tensor, got shape (1,)."),
        (
            (1, 3),
            (1, 3),
            0.1,
            "A contrastive loss needs at least 2 pairs in the global batch, got 1: there are no negatives. "
            "Raise batch_size or set drop_last=True.",
        ),
    ],
)
def test_bad_input_is_named(loss, a_shape, b_shape, temperature, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        loss(torch.ones(a_shape), torch.ones(b_shape), temperature)
    assert str(error.value) == message


def test_weight_outside_the_unit_interval_is_named():
    with pytest.raises(ValueError, match=r"^weight must lie in \[0, 1\], got 1.5\.$"):
        clip_loss(*pairs(4, 3), temperature=0.1, weight=1.5)


def test_retrieval_accuracy_averages_the_two_directions():
    eye = torch.eye(4)
    assert retrieval_accuracy(eye, eye).item() == 1.0
    assert retrieval_accuracy(eye, eye.roll(1, 0)).item() == 0.0
    # a0 and a1 both prefer b0; b0 prefers a0, b1 (orthogonal to a1's part) a1: 3 of 4.
    a = torch.tensor([[1.0, 0.0], [0.9, 0.4]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert retrieval_accuracy(a, b).item() == 0.75


# ---- two gloo processes against one process on the joined batch


def labelled_supcon(*arguments: Any, own: slice = slice(None), **further: Any) -> Tensor:
    return supcon_loss(*arguments, labels=torch.tensor(LABELS)[own], **further)


LABELLED: dict[str, Callable[..., Tensor]] = {name: variant(name) for name in VARIANTS} | {"supcon": labelled_supcon}


class Net(nn.Module):
    """Two towers over (B, C, T) and (B, C), with a batch norm in each layout or none, and a temperature."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)
        self.conv_norm = nn.BatchNorm1d(4) if batch_norm else nn.Identity()
        self.head = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5, momentum=None) if batch_norm else nn.Identity()
        self.text = nn.Linear(3, 5)
        self.temperature = nn.Parameter(torch.tensor(0.2))

    def forward(self, signal: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.conv_norm(self.conv(signal))).mean(-1)
        return self.norm(self.head(x)), self.text(text), self.temperature


def make_net(batch_norm: bool) -> Net:
    torch.manual_seed(0)
    return Net(batch_norm).double()


def net_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal = torch.randn(GLOBAL_BATCH, 2, 9, generator=generator, dtype=torch.float64)
    # Ranks with different means: batch norm per rank would give a different answer.
    signal[GLOBAL_BATCH // 2 :] += 3
    return signal, torch.randn(GLOBAL_BATCH, 3, generator=generator, dtype=torch.float64)


def train(net: nn.Module, signal: Tensor, text: Tensor) -> list[float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = clip_loss(*net(signal, text))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def distributed_worker(rank: int) -> dict[str, Any]:
    own = rows_of(rank, GLOBAL_BATCH)
    result: dict[str, Any] = {}
    for loss in LOSSES:
        a, b = (x[own].clone().requires_grad_() for x in pairs(GLOBAL_BATCH, 5))
        value = loss(a, b, 0.1)
        value.backward()
        result[loss.__name__] = (value.item(), a.grad, b.grad)
    for name, loss in LABELLED.items():
        a, b = (x[own].clone().requires_grad_() for x in pairs(GLOBAL_BATCH, 5))
        value = loss(a, b, temperature=0.1, weight=0.3, own=own)
        value.backward()
        result[name] = (value.item(), a.grad, b.grad)
    one_each = nt_xent_loss(*(x[rank : rank + 1] for x in pairs(2, 5)), 0.1)
    result["one pair a rank"] = one_each.item()

    gathered = gather_with_grad(torch.full((2, 3), float(rank)))
    result["gathered"] = gathered
    try:
        gather_with_grad(torch.zeros(3 + rank, 2))
    except ValueError as error:
        result["message"] = str(error)
    refusals = result["torch refuses"] = []
    for call in (lambda net: net(torch.randn(4, 3)), DistributedDataParallel):
        try:
            call(nn.SyncBatchNorm(3))
        except ValueError as error:
            refusals.append(str(error))

    signal, text = net_inputs()
    for batch_norm in (False, True):
        net = make_net(batch_norm)
        wrapped = DistributedDataParallel(convert_batchnorm(net) if batch_norm else net)
        losses = train(wrapped, signal[own], text[own])
        net.eval()
        with torch.no_grad():
            outputs = net(signal, text)
        result[f"net {batch_norm}"] = (losses, net.state_dict(), outputs)
    return result


@pytest.fixture(scope="module")
def ranks(two_processes):
    """What each of two processes computed; one call serves all tests below."""
    return two_processes(distributed_worker)


@pytest.mark.parametrize("name", ["clip_loss", "nt_xent_loss", *LABELLED])
def test_two_processes_give_the_loss_and_gradient_of_the_joined_batch(ranks, name):
    a, b = (x.requires_grad_() for x in pairs(GLOBAL_BATCH, 5))
    plain = {loss.__name__: loss for loss in LOSSES}
    joined = plain[name](a, b, 0.1) if name in plain else LABELLED[name](a, b, temperature=0.1, weight=0.3)
    joined.backward()
    values, grads_a, grads_b = zip(*(rank[name] for rank in ranks), strict=True)
    assert values[0] != pytest.approx(values[1], abs=1e-3)  # each rank has its own rows only
    assert np.mean(values) == pytest.approx(joined.item(), abs=1e-10)
    # The sum of the ranks' losses is differentiated; DDP divides by the world size.
    torch.testing.assert_close(torch.cat(grads_a) / WORLD_SIZE, a.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat(grads_b) / WORLD_SIZE, b.grad, rtol=0, atol=1e-10)


def test_one_pair_a_rank_is_enough(ranks):
    joined = nt_xent_loss(*pairs(2, 5), 0.1).item()
    assert np.mean([rank["one pair a rank"] for rank in ranks]) == pytest.approx(joined, abs=1e-10)


def test_gather_keeps_rank_order_and_is_the_identity_alone(ranks):
    for rank in ranks:
        assert rank["gathered"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    x = torch.ones(2, 3)
    assert gather_with_grad(x) is x


def test_different_batch_sizes_are_named_on_every_rank(ranks):
    for rank in ranks:
        assert rank["message"] == (
            "The ranks hold different batch sizes [3, 4], so their batches cannot be joined. "
            "Set drop_last=True on the training DataLoader."
        )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_ddp_training_equals_one_process(ranks, batch_norm):
    """Three steps: losses, parameters, running statistics and evaluation outputs."""
    net = make_net(batch_norm)
    expected_losses = train(net, *net_inputs())
    net.eval()
    with torch.no_grad():
        expected_outputs = net(*net_inputs())
    for rank in ranks:
        _, state, outputs = rank[f"net {batch_norm}"]
        assert list(state) == list(net.state_dict())
        for name, value in net.state_dict().items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-9), name
        torch.testing.assert_close(outputs, expected_outputs, rtol=0, atol=1e-9)
    mean_losses = np.mean([rank[f"net {batch_norm}"][0] for rank in ranks], axis=0)
    np.testing.assert_allclose(mean_losses, expected_losses, rtol=0, atol=1e-9)


def test_torch_still_refuses_synchronised_batch_norm_on_the_cpu(ranks):
    """The reason for GlobalBatchNorm: when this fails, the class can go."""
    for rank in ranks:
        layer, ddp = rank["torch refuses"]
        assert layer.startswith("SyncBatchNorm expected input tensor to be on GPU")
        assert ddp == "SyncBatchNorm layers only work with GPU modules"


def test_converted_batch_norm_shares_state_and_equals_torch_alone():
    plain, net = make_net(True), make_net(True)
    conv_norm_weight = net.conv_norm.weight
    converted = convert_batchnorm(net)
    assert converted is net
    assert type(net.norm).__name__ == "GlobalBatchNorm"
    assert net.conv_norm.weight is conv_norm_weight
    assert train(net, *net_inputs()) == train(plain, *net_inputs())
    plain.load_state_dict(net.state_dict())  # strict: the same keys


def test_a_batch_norm_that_does_more_is_not_converted():
    class BatchNormAct(nn.BatchNorm1d):
        pass

    with pytest.raises(TypeError, match=r"^Layer '1' is a BatchNormAct, which has no synchronised form here\."):
        convert_batchnorm(nn.Sequential(nn.Linear(2, 3), BatchNormAct(3)))
