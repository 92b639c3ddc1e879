"""LoRAs of random numbers for a tiny Stable Diffusion, by every kind of name that files have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

RANK, ALPHA = 3, 6.0
CHANGED = {
    "unet": r"to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.(0\.proj|2)|conv1|time_emb_proj|conv_shortcut|conv_in|linear_1",
    "text": r"q_proj|k_proj|v_proj|out_proj|fc1|fc2",
}
Halves = tuple[np.ndarray, np.ndarray]

ORIGINAL = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
}
"""The tiny U-Net's modules in the original, written down by hand: two levels with one block each."""
PARTS = {
    ".conv1": ".in_layers.2",
    ".conv2": ".out_layers.3",
    ".time_emb_proj": ".emb_layers.1",
    ".conv_shortcut": ".skip_connection",
}


def halves(modules: dict[str, Any], seed: int) -> dict[tuple[str, str], Halves]:
    """Random (down, up) for every module that LoRAs change, by (part, diffusers' name)."""
    rng, made = np.random.default_rng(seed), {}
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if re.search(rf"\b({CHANGED[part]})$", name):
                out, *rest = layer.weight.shape
                down = rng.normal(0, 0.3, (RANK, *rest)).astype(np.float32)
                # transformers 5 has left out this part of the names that LoRAs have
                name = name if part == "unet" or name.startswith("text_model.") else f"text_model.{name}"
                made[part, name] = down, rng.normal(0, 0.3, (out, RANK) + (1,) * (len(rest) - 1)).astype(np.float32)
    return made


def kohya(made: dict[tuple[str, str], Halves]) -> dict[str, np.ndarray]:
    tensors = {}
    for (part, name), (down, up) in made.items():
        module = {"unet": "lora_unet_", "text": "lora_te_"}[part] + name.replace(".", "_")
        tensors |= {
            f"{module}.lora_down.weight": down,
            f"{module}.lora_up.weight": up,
            f"{module}.alpha": np.array(ALPHA),
        }
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def diffusers(made: dict[tuple[str, str], Halves], pair: tuple[str, str]) -> dict[str, np.ndarray]:
    tensors = {}
    for (part, name), (down, up) in made.items():
        module = {"unet": "unet", "text": "text_encoder"}[part] + "." + name
        tensors |= {f"{module}.{pair[0]}.weight": down, f"{module}.{pair[1]}.weight": up}
    return tensors


def processors(made: dict[tuple[str, str], Halves]) -> dict[str, np.ndarray]:
    """As diffusers named attention's layers in its first year, and as it names all others."""
    old = {}
    for name, value in diffusers(made, ("lora.down", "lora.up")).items():
        unet = re.sub(r"\.(to_[qkv])\.lora|\.(to_out)\.0\.lora", r".processor.\1\2_lora", name)
        old[re.sub(r"\.self_attn\.(q|k|v|out)_proj\.lora", r".self_attn.to_\1_lora", unet)] = value
    assert any(".processor.to_out_lora.down.weight" in name for name in old)
    assert any(".self_attn.to_q_lora.up.weight" in name for name in old)
    return old


def original(name: str) -> str:
    """A module of diffusers' U-Net by its name in the original."""
    module = next(known for known in ORIGINAL if name == known or name.startswith(f"{known}."))
    part = name.removeprefix(module)
    return ORIGINAL[module] + PARTS.get(part, part)


def originals(made: dict[tuple[str, str], Halves]) -> dict[str, np.ndarray]:
    """kohya's with the original's names; its text encoder is numbered, as for models that have two."""
    unet = {("unet", original(name)): value for (part, name), value in made.items() if part == "unet"}
    text = {key: value for key, value in made.items() if key[0] == "text"}
    return {name.replace("lora_te_", "lora_te1_"): value for name, value in kohya(unet | text).items()}


def comfy(made: dict[tuple[str, str], Halves], tower: str = "clip_l") -> dict[str, np.ndarray]:
    """ComfyUI's: the names that its own modules have."""
    tensors = {}
    for (part, name), (down, up) in made.items():
        own = f"diffusion_model.{original(name)}" if part == "unet" else f"text_encoders.{tower}.transformer.{name}"
        tensors |= {f"{own}.lora_A.weight": down, f"{own}.lora_B.weight": up}
    return tensors


NAMES: dict[str, tuple[Callable[[Any], dict[str, np.ndarray]], float]] = {
    "kohya": (kohya, ALPHA / RANK),
    "lora_A": (lambda made: diffusers(made, ("lora_A", "lora_B")), 1.0),
    "lora.down": (lambda made: diffusers(made, ("lora.down", "lora.up")), 1.0),
    "processors": (lambda made: processors(made), 1.0),
    "layers": (lambda made: diffusers(made, ("lora_linear_layer.down", "lora_linear_layer.up")), 1.0),
    "short": (
        lambda made: {n.replace("text_model.", ""): v for n, v in diffusers(made, ("lora_A", "lora_B")).items()},
        1.0,
    ),
    "originals": (originals, ALPHA / RANK),
    "comfy": (comfy, 1.0),
    "comfy of 2.x": (lambda made: comfy(made, "clip_h"), 1.0),
    "lycoris": (
        lambda made: {n.replace("lora_unet_", "lycoris_"): v for n, v in kohya(made).items()},
        ALPHA / RANK,
    ),
}
"""How a file names its modules → the tensors, and what each product is multiplied with."""
