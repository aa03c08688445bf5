"""Corruption, one-hot encoding and the table encoder, against loops and counts."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tabular_imaging.model.tabular import OneHot, TabularEncoder, corrupt, one_hot

CARDINALITIES = [1, 3, 1, 2, 5, 1]


def mixed_table(rows: int, cardinalities: list[int]) -> Tensor:
    """Normal values and codes from -1 (unknown) to the last."""
    columns = [torch.randn(rows) if size == 1 else torch.randint(-1, size, (rows,)).float() for size in cardinalities]
    return torch.stack(columns, dim=1)


# --- corruption ---


@pytest.mark.parametrize(("columns", "rate"), list(product((1, 3, 7, 10, 120), (0.0, 0.1, 0.3, 0.6, 1.0))))
def test_exactly_the_rounded_down_share_of_every_row_is_replaced(columns: int, rate: float) -> None:
    table = torch.zeros(64, columns)
    corrupted = corrupt(table, torch.ones(5, columns), rate)  # no value of the table is among the marginals
    assert (corrupted.sum(1) == int(rate * columns)).all()
    assert (table == 0).all()
    assert corrupted.data_ptr() != table.data_ptr()


def test_the_chosen_fields_differ_between_rows_and_are_equally_likely() -> None:
    torch.manual_seed(0)
    replaced = corrupt(torch.zeros(20_000, 10), torch.ones(3, 10), rate=0.3)
    assert len(replaced.unique(dim=0)) == 120  # every choice of 3 among 10 occurs
    # Not the inverted mask of a public package, which replaces the other 70%.
    np.testing.assert_allclose(replaced.mean(0), 0.3, atol=0.015)


def test_values_come_from_the_same_field_of_training_rows_as_often_as_they_occur_there() -> None:
    torch.manual_seed(0)
    # Field m holds 10 m + {0, 7}, seven times as often 0 as 7: uniform between minimum and maximum, as a public package
    # samples, would give values in between; uniform over the distinct ones would give one half.
    marginals = torch.tensor([[0.0]] * 7 + [[7.0]]) + 10 * torch.arange(4)
    corrupted = corrupt(torch.full((20_000, 4), -1.0), marginals, rate=1.0)
    offset = corrupted - 10 * torch.arange(4)
    assert set(offset.unique().tolist()) == {0.0, 7.0}
    np.testing.assert_allclose((offset == 7).float().mean(0), 1 / 8, atol=0.01)


def test_fields_are_drawn_from_different_training_rows() -> None:
    torch.manual_seed(0)
    marginals = torch.arange(50.0)[:, None].expand(50, 4)
    corrupted = corrupt(torch.full((1000, 4), -1.0), marginals, rate=1.0)
    assert (corrupted == corrupted[:, :1]).all(1).float().mean() < 0.01  # a whole row of one donor is by chance only
    assert abs(torch.corrcoef(corrupted.T)[0, 1]) < 0.1


def test_corruption_is_reproducible_by_seed_and_new_in_every_call() -> None:
    table, marginals = torch.randn(16, 9), torch.randn(30, 9)
    torch.manual_seed(3)
    first, second = corrupt(table, marginals, 0.5), corrupt(table, marginals, 0.5)
    torch.manual_seed(3)
    assert torch.equal(corrupt(table, marginals, 0.5), first)
    assert not torch.equal(first, second)


def test_corruption_refuses_what_is_no_rate_or_another_table() -> None:
    table = torch.zeros(2, 3)
    for rate in (-0.1, 1.1, 30.0, float("nan")):
        with pytest.raises(ValueError, match=rf"^rate must be in \[0, 1\], got {rate}$"):
            corrupt(table, table, rate)
    for marginals in (torch.zeros(5, 2), torch.zeros(0, 3), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"^marginals must be \(N, 3\) with at least one row, got \("):
            corrupt(table, marginals, 0.3)


# --- one-hot ---


def test_one_hot_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    table = mixed_table(50, CARDINALITIES)
    expected = np.zeros((50, sum(CARDINALITIES)), dtype=np.float32)
    for row in range(50):
        start = 0
        for column, size in enumerate(CARDINALITIES):
            value = float(table[row, column])
            if size == 1:
                expected[row, start] = value
            elif value >= 0:
                expected[row, start + int(value)] = 1
            start += size
    before = table.clone()
    np.testing.assert_array_equal(one_hot(table, CARDINALITIES), expected)
    assert torch.equal(table, before)
    assert (table[:, 1] == -1).any()  # so the all-zero code was among them


def test_a_field_that_holds_no_code_has_no_one_and_disturbs_no_other() -> None:
    table = torch.tensor([[-1.0, 0.0], [3.0, 1.0], [100.0, 0.0], [0.5, 1.0], [float("nan"), 0.0], [float("inf"), 1.0]])
    assert one_hot(table, [3, 2]).tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]] * 3


def test_continuous_values_pass_unchanged_whatever_they_are() -> None:
    values = torch.tensor([[-1.0, 1e30], [0.0, -3.5], [2.0**40, float("inf")]])
    assert torch.equal(one_hot(values, [1, 1]), values)


def test_gradients_reach_the_continuous_fields() -> None:
    table = torch.tensor([[0.5, 1.0]], requires_grad=True)
    (one_hot(table, [1, 2]) * torch.tensor([[3.0, 5.0, 7.0]])).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[3.0, 0.0]]


def test_one_hot_refuses_impossible_cardinalities_and_other_tables() -> None:
    for cardinalities in ([], [1, 0]):
        with pytest.raises(ValueError, match=r"^cardinalities must be at least one number, each 1 or more; got "):
            OneHot(cardinalities)
    with pytest.raises(ValueError, match=r"^a table of 2 columns expected, got the shape \(4, 3\)$"):
        one_hot(torch.zeros(4, 3), [1, 2])
    with pytest.raises(ValueError, match=r"^torch\.bfloat16 rounds the codes of categories: keep tables in float32 "):
        one_hot(torch.full((1, 1), 301.0, dtype=torch.bfloat16), [400])


def test_the_index_tensors_are_not_in_checkpoints() -> None:
    assert OneHot(CARDINALITIES).state_dict() == {}


# --- the encoder ---


def test_the_encoder_has_one_hidden_layer_over_the_one_hot_inputs() -> None:
    encoder = TabularEncoder(CARDINALITIES, hidden_dim=16, out_dim=8)
    assert [type(layer) for layer in encoder.mlp] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    first, norm, _, last = encoder.mlp
    assert (first.in_features, first.out_features, last.in_features, last.out_features) == (13, 16, 16, 8)
    assert encoder.out_dim == 8
    table = mixed_table(32, CARDINALITIES)
    hidden = one_hot(table, CARDINALITIES).double() @ first.weight.double().T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    expected = hidden.clamp(min=0) @ last.weight.double().T + last.bias.double()
    torch.testing.assert_close(encoder(table).double(), expected, rtol=1e-4, atol=1e-5)


def test_the_paper_s_widths_are_the_defaults() -> None:
    encoder = TabularEncoder([1, 2])
    assert encoder(torch.zeros(2, 2)).shape == (2, 2048)
    assert encoder.mlp[0].out_features == 2048


def test_the_layers_may_wait_for_the_table() -> None:
    encoder = TabularEncoder(hidden_dim=16, out_dim=8)
    with pytest.raises(RuntimeError, match=r"^the table encoder has no layers yet: call build"):
        encoder(torch.zeros(2, 2))
    encoder.build([1, 2])
    weight = encoder.mlp[0].weight
    encoder.build((1, 2))  # nothing new: a model loaded from a checkpoint has its layers
    assert encoder.mlp[0].weight is weight
    encoder.load_state_dict(TabularEncoder([1, 2], 16, 8).state_dict())
    with pytest.raises(
        ValueError, match=r"^the table encoder was built for 2 columns with 3 inputs, not for 1 with 3$"
    ):
        encoder.build([3])
