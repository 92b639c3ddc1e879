"""Tiny Stable Diffusions in the originals' single files, with the weights of the recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "nets"))
from golden_weights import weights

from chashka import families
from chashka.checkpoints import write
from chashka.families import Bundle, EngineChoice
from chashka.families.stable_diffusion.opening import open_file
from chashka.nets.autoencoder import DecoderKL, EncoderKL
from chashka.nets.clip import TextTower
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, UNetConfig
from chashka.nets.unet import UNet

TORCH = EngineChoice("torch")
STABLE: dict[str, Any] = {"attention_levels": (0, 1), "attention": "transformer", "context": 24, "res_blocks": 1}
UNETS = {
    "compvis": (UNetConfig(4, 4, 32, (1, 2), heads=4, **STABLE), 40),
    "stability": (UNetConfig(4, 4, 32, (1, 2), head_width=16, linear_proj=True, **STABLE), 40),
    "runway": (UNetConfig(9, 4, 32, (1, 2), heads=4, **STABLE), 42),
}
VAE = AutoencoderConfig(
    width=32, mult=(1, 1, 2, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 1, 2, 2), decoder_res_blocks=1
)
TEXT = CLIPTextConfig(49408, 77, 24, 1, 3, 24)


def recorded(module: nn.Module, seed: int, last: float = 1.0) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float16) for name, value in weights(module, seed, last)[0].items()}


def single_file(who: str) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint under the original's prefixes, with what such files have besides."""
    cfg, seed = UNETS[who]
    with torch.device("meta"):
        unet, encoder, decoder, tower = UNet(cfg), EncoderKL(VAE), DecoderKL(VAE), TextTower(TEXT)
    state = {f"model.diffusion_model.{n}": v for n, v in recorded(unet, seed, 0.5).items()}
    halves = recorded(encoder, 41) | recorded(decoder, 41)
    state |= {f"first_stage_model.{name}": value for name, value in halves.items()}
    text = recorded(tower, 50)
    if who == "stability":
        state |= {f"cond_stage_model.model.{name}": value for name, value in text.items()}
    else:
        state |= {f"cond_stage_model.transformer.{name}": value for name, value in as_transformers(text).items()}
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    others = {
        "betas": np.zeros(1000),
        "model_ema.decay": np.zeros(()),
        "model_ema.diffusion_modelout2weight": np.zeros(3),
    }
    return state | {name: value.astype(np.float32) for name, value in others.items()}


def as_transformers(text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A text tower by transformers' names; its projection is not stored with Stable Diffusion 1."""
    pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    made = {
        "text_model.embeddings.token_embedding.weight": text["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": text["positional_embedding"],
    }
    made |= {f"text_model.final_layer_norm.{k}": text[f"ln_final.{k}"] for k in ("weight", "bias")}
    for i in range(TEXT.layers):
        ours, theirs = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            made |= {f"{theirs}.{other}.{kind}": text[f"{ours}.{own}.{kind}"] for own, other in pairs.items()}
            thirds = np.split(text[f"{ours}.attn.in_proj_{kind}"], 3)
            made |= {f"{theirs}.self_attn.{n}_proj.{kind}": third for n, third in zip("qkv", thirds, strict=True)}
    return made


def write_checkpoints(place: Path) -> Path:
    """``compvis.safetensors``, ``runway.safetensors`` (inpainting) and ``stability.ckpt`` with a configuration that says v."""
    write(place / "compvis.safetensors", single_file("compvis"), {})
    write(place / "runway.safetensors", single_file("runway"), {})
    state = {name: torch.from_numpy(value) for name, value in single_file("stability").items()}
    torch.save({"state_dict": state, "global_step": 3}, place / "stability.ckpt")
    (place / "stability.yaml").write_text('model:\n  params:\n    parameterization: "v"\n', encoding="utf-8")
    return place


def opened(folder: Path, name: str, engine: EngineChoice = TORCH) -> Bundle:
    """With heads of the recorded networks, which the published ones have not."""
    declaration, preset = families.find(str(folder / name))
    assert declaration.name == "stable_diffusion"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chashka.families.stable_diffusion.layout.HEAD_WIDTH", 16)
        return open_file(preset, engine, name, heads=4)


def relative(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
