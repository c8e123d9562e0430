"""Networks for inference: the same function in fewer operations."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

_Network = TypeVar("_Network", bound=nn.Module)


def for_inference(network: _Network) -> _Network:
    """A copy of a network in inference mode whose batch norms are part of their convolutions.

    Its scores differ by rounding. It is not for training, nor for saving as weights.
    """
    copied = copy.deepcopy(network).eval()
    for parent in copied.modules():
        for name, child in parent.named_children():
            match list(child.children()) if isinstance(child, nn.Sequential) else []:
                case [nn.Conv2d() as convolution, nn.BatchNorm2d() as norm, *others]:
                    fused = fuse_conv_bn_eval(convolution, norm)
                    setattr(parent, name, nn.Sequential(fused, *others))
    return copied.requires_grad_(False)
