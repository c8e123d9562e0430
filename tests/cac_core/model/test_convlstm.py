"""The network against its equations, and against itself on windows and shared features."""

from __future__ import annotations

import math

import pytest
import torch

from cac_core.model.convlstm import (
    PUBLISHED,
    ConvLSTMCell,
    ConvLSTMSegmenter,
    NetworkConfig,
)
from tests.builders.networks import SMALL, random_network

DEEPER = NetworkConfig(
    n_classes=2,
    stem_channels=8,
    growth=4,
    bottleneck=2,
    dense_dilations=((1, 1), (1, 2)),
    trunk_head=8,
    sequence_head=3,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cell_by_hand() -> None:
    cell = ConvLSTMCell(1, 1)
    for conv in (cell.from_input, cell.from_hidden):
        torch.nn.init.zeros_(conv.weight)
    # Only the centre of each kernel counts: the gates of one pixel are numbers to work by hand.
    cell.from_input.weight.data[:, 0, 1, 1] = torch.tensor([0.5, -0.25, 1.0, 2.0])
    cell.from_input.bias.data = torch.tensor([0.1, 0.2, -0.1, 0.0])
    cell.from_hidden.weight.data[:, 0, 1, 1] = torch.tensor([0.3, 0.6, -0.2, 0.4])
    x = torch.full((1, 1, 1, 1), 0.8)
    h, c = cell.step(cell.input_gates(x), None)
    c1 = sigmoid(0.5 * 0.8 + 0.1) * math.tanh(2.0 * 0.8)
    h1 = sigmoid(1.0 * 0.8 - 0.1) * math.tanh(c1)
    assert c.item() == pytest.approx(c1, rel=1e-6)
    assert h.item() == pytest.approx(h1, rel=1e-6)
    h, c = cell.step(cell.input_gates(x), (h, c))
    forget = sigmoid(-0.25 * 0.8 + 0.2 + 0.6 * h1)
    c2 = forget * c1 + sigmoid(0.5 * 0.8 + 0.1 + 0.3 * h1) * math.tanh(2.0 * 0.8 + 0.4 * h1)
    h2 = sigmoid(1.0 * 0.8 - 0.1 - 0.2 * h1) * math.tanh(c2)
    assert c.item() == pytest.approx(c2, rel=1e-6)
    assert h.item() == pytest.approx(h2, rel=1e-6)


@pytest.mark.parametrize("config", [SMALL, DEEPER])
def test_shared_features_equal_separate_triples(config: NetworkConfig) -> None:
    # In double precision, where the order of additions does not hide a difference.
    network = random_network(config).double()
    stack = torch.randn(7, 48, 40, dtype=torch.float64)
    together = network(stack)
    for k in range(5):
        alone = network(stack[k : k + 3])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", [SMALL, DEEPER])
@pytest.mark.parametrize(
    "part", [(0, 75, 0, 90), (40, 61, 30, 47), (0, 5, 0, 7), (70, 75, 80, 90), (33, 34, 21, 22)]
)
def test_a_part_of_a_slice_equals_that_of_the_whole(
    config: NetworkConfig, part: tuple[int, int, int, int]
) -> None:
    network = random_network(config).double()
    slices = torch.randn(2, 75, 90, dtype=torch.float64)
    whole = network.single_slice(slices)[..., part[0] : part[1], part[2] : part[3]]
    found = network.single_slice(slices, part=part)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


def test_order_of_the_sequence_matters() -> None:
    network, stack = random_network(), torch.randn(3, 16, 16)
    assert not torch.allclose(network.sequence(stack), network.sequence(stack.flip(0)))


@pytest.mark.parametrize("config", [SMALL, DEEPER])
def test_nothing_beyond_the_receptive_field_counts(config: NetworkConfig) -> None:
    network, field = random_network(config), config.receptive_field_px
    size = 2 * field + 41
    centre = size // 2
    x = torch.randn(3, size, size, requires_grad=True)
    network(x)[0, :, centre, centre].sum().backward()
    assert x.grad is not None
    rows, columns = torch.nonzero(x.grad.abs().sum(dim=0), as_tuple=True)
    for at in (rows, columns):
        assert int(at.min()) >= centre - field
        assert int(at.max()) <= centre + field


def test_sequence_field() -> None:
    network, field = random_network(), SMALL.sequence_field_px
    x = torch.randn(3, 41, 41, requires_grad=True)
    h = network.sequence(x)
    (network.sequence_head(h) * network.attention_head(h))[0, :, 20, 20].sum().backward()
    assert x.grad is not None
    rows, columns = torch.nonzero(x.grad.abs().sum(dim=0), as_tuple=True)
    assert (int(rows.min()), int(columns.max())) == (20 - field, 20 + field)


def test_fusion_is_the_weighted_sum() -> None:
    network = random_network()
    single, h = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    a = torch.sigmoid(network.attention_head(h))
    expected = a * network.sequence_head(h) + (1 - a) * single
    torch.testing.assert_close(network.fuse(single, h), expected)


def test_published_sizes() -> None:
    parameters = sum(p.numel() for p in ConvLSTMSegmenter(PUBLISHED).parameters())
    assert 5.5e6 < parameters < 6.5e6  # "about 6 million"
    assert PUBLISHED.stride == 8


def test_sizes_that_are_no_multiple_of_the_stride() -> None:
    assert random_network(DEEPER)(torch.randn(4, 37, 51)).shape == (2, 2, 37, 51)
