"""Seamless pictures: convolutions that see the opposite edge instead of zeros."""

from __future__ import annotations

import copy
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def wrapped(module: Module, axes: str) -> Module:
    """A copy that shares its weights, in which every padding along ``axes`` ('x', 'y') is what stands at the other side."""
    shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    made = copy.deepcopy(module, shared)
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d):
            high, wide = (int(pad) for pad in layer.padding)
            around = _along((wide, wide, high, high), axes)
            layer.padding = (0 if "y" in axes else high, 0 if "x" in axes else wide)
        elif isinstance(layer, nn.ZeroPad2d):
            left, right, top, bottom = layer.padding
            around = _along((left, right, top, bottom), axes)
            layer.padding = (left - around[0], right - around[1], top - around[2], bottom - around[3])
        else:
            continue
        if any(around):
            layer.register_forward_pre_hook(partial(_pad, around))
    return made


def _along(pads: tuple[int, int, int, int], axes: str) -> tuple[int, int, int, int]:
    """Of (left, right, top, bottom) those along ``axes``; 0 for the others."""
    x, y = int("x" in axes), int("y" in axes)
    left, right, top, bottom = pads
    return left * x, right * x, top * y, bottom * y


def _pad(around: tuple[int, int, int, int], _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (F.pad(inputs[0], around, mode="circular"), *inputs[1:])
