"""Kandinsky 2.1 and 2.2 in their published layouts, tiny, at random weights; 2.2's are diffusers' own modules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from published_folder import XLMR, _roberta, _text

from chashka.families.kandinsky.published_21 import Sizes
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, CLIPVisionConfig, UNetConfig
from chashka.nets.kandinsky_presets import PictureTextHeadConfig, PriorConfig

WIDTH = 16
"""Of embeddings and texts."""
TEXT = CLIPTextConfig(49408, 77, WIDTH, 2, 2, WIDTH)
VISION = CLIPVisionConfig(32, 2, 32, WIDTH, 8, 16)
PRIOR = PriorConfig(WIDTH, WIDTH, 77, 32, 2, 4)
UNET = UNetConfig(4, 8, 32, (1, 2), 1, (1,), head_width=16, context=24, resample="resblock", scale_shift=True)
MOVQ = AutoencoderConfig(
    width=32,
    mult=(1, 1, 1, 2),
    res_blocks=1,
    decoder_width=32,
    decoder_mult=(1, 1, 1, 2),
    decoder_res_blocks=1,
    attention_levels=(3,),
    variational=False,
)
SIZES = Sizes(UNET, PictureTextHeadConfig(40, 24, WIDTH, 3, 24, 128), PRIOR, MOVQ, (TEXT, VISION))
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "variance_type": "learned_range",
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 2.0,
}


@dataclass
class Modules:
    """diffusers' and transformers' own, with the weights of the folder."""

    prior: Any
    text: Any
    vision: Any
    unet: Any
    movq: Any


def write_22(folder: Path) -> Modules:
    """``prior`` and ``decoder`` as ``save_pretrained`` writes them."""
    import torch
    from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
    from transformers import CLIPTextConfig as Text
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection
    from transformers import CLIPVisionConfig as Vision

    with torch.random.fork_rng():
        torch.manual_seed(3)
        prior = PriorTransformer(4, 8, 2, WIDTH, 77)
        for parameter in (prior.positional_embedding, prior.prd_embedding, prior.clip_mean):
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.uniform_(prior.clip_std, 0.5, 1.5)
        text = CLIPTextModelWithProjection(
            Text(vocab_size=49408, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2,
                 num_attention_heads=2, projection_dim=WIDTH, hidden_act="quick_gelu", eos_token_id=2)
        )  # fmt: skip
        vision = CLIPVisionModelWithProjection(
            Vision(image_size=32, patch_size=8, hidden_size=32, intermediate_size=128, num_hidden_layers=2,
                   num_attention_heads=2, projection_dim=WIDTH, hidden_act="quick_gelu")
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=8, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            attention_head_dim=16, cross_attention_dim=24, resnet_time_scale_shift="scale_shift",
            encoder_hid_dim=WIDTH, encoder_hid_dim_type="image_proj", addition_embed_type="image",
        )  # fmt: skip
        movq = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 32, 32, 64), layers_per_block=1, latent_channels=4, num_vq_embeddings=8,
            vq_embed_dim=4, norm_type="spatial",
        )  # fmt: skip
    made = Modules(prior.eval(), text.eval(), vision.eval(), unet.eval(), movq.eval())
    for module, place in (
        (prior, "prior/prior"),
        (text, "prior/text_encoder"),
        (vision, "prior/image_encoder"),
        (unet, "decoder/unet"),
        (movq, "decoder/movq"),
    ):
        module.save_pretrained(folder / place)
    (folder / "decoder" / "scheduler").mkdir()
    (folder / "decoder" / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    return made


def write_21(folder: Path) -> Path:
    """The flat layout, with the weights that the networks themselves begin with."""
    import torch

    from chashka.nets.autoencoder import EncoderKL
    from chashka.nets.clip import CLIP
    from chashka.nets.kandinsky_text import PictureTextHead
    from chashka.nets.movq import DecoderMoVQ
    from chashka.nets.prior import PriorTransformer
    from chashka.nets.unet import UNet

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        head = PictureTextHead(SIZES.head).state_dict()
        wide = UNetConfig(9, 8, 32, (1, 2), 1, (1,), head_width=16, context=24, resample="resblock", scale_shift=True)
        for name, cfg in (("decoder", UNET), ("inpainting", wide)):
            torch.save(UNet(cfg).state_dict() | head, folder / f"{name}_fp16.ckpt")
        prior = {f"model.{name}": value for name, value in PriorTransformer(PRIOR).state_dict().items()}
        torch.save(prior | {"clip_mean": torch.zeros(1, WIDTH)}, folder / "prior_fp16.ckpt")
        movq = EncoderKL(MOVQ).state_dict() | DecoderMoVQ(MOVQ).state_dict()
        torch.save(movq | {"quantize.embedding.weight": torch.zeros(8, 4)}, folder / "movq_final.ckpt")
        torch.save((torch.randn(WIDTH), torch.rand(WIDTH) + 0.5), folder / "ViT-L-14_stats.th")
        clip = CLIP(TEXT, VISION).state_dict()
        torch.save(clip | {"input_resolution": torch.tensor(32)}, folder / "ViT-L-14.pt")
    marks = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    _text(folder / "text_encoder", XLMR, _roberta(), "sentencepiece.bpe.model", marks)
    return folder


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 4), opaque."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = 255
    return pixels
