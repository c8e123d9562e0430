"""Networks for inference give the scores of the networks that they were made from."""

from __future__ import annotations

import torch
from torch import nn

from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig
from cac_core.model.inference import for_inference


def network() -> ConvLSTMSegmenter:
    """A network whose batch norms do something."""
    made = ConvLSTMSegmenter(NetworkConfig(n_classes=3, position_channels=True))
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias, 0.0, 0.3)
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
    return made.eval()


def test_the_scores_differ_by_rounding() -> None:
    torch.manual_seed(3)
    made, stack, position = network(), torch.randn(5, 40, 48), torch.randn(3, 3, 40, 48)
    with torch.inference_mode():
        expected = made(stack, 0, position)
        found = for_inference(made)(stack, 0, position)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_no_batch_norm_is_left_and_the_network_is_unchanged() -> None:
    made = network()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    for_inference(made)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in for_inference(made).modules())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
