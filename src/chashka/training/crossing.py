"""How a U-Net with Stable Diffusion's transformers begins with the weights of one with Kandinsky's attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from chashka.nets.attention import SpatialTransformer
from chashka.nets.configs import UNetConfig
from chashka.nets.unet import UNet

QKV = ".qkv.weight"
LEAK = 0.25
"""How much of its normed input a new transformer adds to what the old attention added: its output projection times this is one."""


def with_transformers(weights: Mapping[str, torch.Tensor], network: UNet) -> dict[str, torch.Tensor]:
    """Weights whose attention is of kind 'qkv', for ``network``, whose attention is a transformer with linear projections.

    What is around the attention stays as it is. Self-attention becomes the transformer's, but for the biases of queries and keys;
    attention to the text and the feed-forward begin as the network has them, with nothing in their last layers. Weights
    that have transformers, and those for a network without, come back as they are.
    """
    own = network.state_dict()
    blocks = [name for name, block in network.named_modules() if isinstance(block, SpatialTransformer)]
    if not blocks or not any(name.endswith(QKV) for name in weights):
        return dict(weights)
    carried = {key: value for key, value in weights.items() if not key.startswith(tuple(f"{name}." for name in blocks))}
    for name in blocks:
        old = {
            key.removeprefix(f"{name}."): value.float() for key, value in weights.items() if key.startswith(f"{name}.")
        }
        new = own_parts(own, name) | transformed(old, network.cfg)
        carried |= {f"{name}.{key}": value for key, value in new.items()}
    return carried


def own_parts(own: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """A block's own first weights, with nothing in the last layers of what is new."""
    inner = "transformer_blocks.0."
    silent = tuple(f"{inner}{layer}." for layer in ("attn2.to_out.0", "ff.net.2"))
    mine = {key.removeprefix(f"{name}."): value for key, value in own.items() if key.startswith(f"{name}.")}
    return {key: torch.zeros_like(value) if key.startswith(silent) else value for key, value in mine.items()}


def transformed(old: Mapping[str, torch.Tensor], cfg: UNetConfig) -> dict[str, torch.Tensor]:
    """The keys of a spatial transformer that an attention block's weights decide."""
    out, bias = old["proj_out.weight"][:, :, 0], old["proj_out.bias"]
    channels = len(out)
    heads = cfg.heads_of(channels)
    q, k, v = old["qkv.weight"][:, :, 0].reshape(heads, 3, -1, channels).unbind(1)
    value_bias = old["qkv.bias"].reshape(heads, 3, -1)[:, 2].flatten()
    one = torch.eye(channels)
    inner = "transformer_blocks.0.attn1."
    found = {
        "norm.weight": old["norm.weight"],
        "norm.bias": old["norm.bias"],
        "proj_in.weight": one,
        "proj_in.bias": torch.zeros(channels),
        f"{inner}to_q.weight": q.flatten(0, 1),
        f"{inner}to_k.weight": k.flatten(0, 1),
        f"{inner}to_v.weight": v.flatten(0, 1),
        f"{inner}to_out.0.weight": out / LEAK,
        f"{inner}to_out.0.bias": (bias + out @ value_bias) / LEAK,
        "proj_out.weight": LEAK * one,
        "proj_out.bias": torch.zeros(channels),
    }
    scales = {f"{inner}{kind}_norm.scale": f"{kind}_norm.scale" for kind in "qk"}
    return found | {new: old[name] for new, name in scales.items() if name in old}
