"""A tiny Stable Diffusion in diffusers' layout, with diffusers' own modules beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from chashka.prompts import clip_words


def tokenizer(folder: Path, words: clip_words.BytePairs) -> None:
    """Its files in the two old forms."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words.ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in words.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def tiny_folder(folder: Path, attention_head_dim: Any = 8, layers: int = 2) -> tuple[Any, Any, Any]:
    """U-Net, autoencoder and text tower, as they were written into ``folder``. layers: of the text tower."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig as Theirs
    from transformers import CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(5)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=attention_head_dim, cross_attention_dim=24,
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 32, 64, 64), layers_per_block=1, latent_channels=4,
        )  # fmt: skip
        text = CLIPTextModel(
            Theirs(vocab_size=49408, hidden_size=24, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=1,
                   max_position_embeddings=77, hidden_act="quick_gelu")
        )  # fmt: skip
    for module, part in ((unet, "unet"), (vae, "vae"), (text, "text_encoder")):
        module.eval().save_pretrained(folder / part)
    tokenizer(folder / "tokenizer", clip_words.original())
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "epsilon"}', encoding="utf-8")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    return unet, vae, text
