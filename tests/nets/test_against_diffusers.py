"""Networks of Kandinsky 2.1 and 2.2 against diffusers' own, at random weights, through the renaming tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from chashka.checkpoints import diffusers_names, load_strict
from chashka.nets.autoencoder import DecoderKL, EncoderKL
from chashka.nets.configs import AutoencoderConfig, UNetConfig
from chashka.nets.kandinsky_presets import PictureTextHeadConfig, PriorConfig
from chashka.nets.kandinsky_text import PictureHead, PictureTextHead
from chashka.nets.movq import DecoderMoVQ
from chashka.nets.prior import PriorTransformer
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch

UNET = UNetConfig(4, 8, 32, (1, 2), 1, (1,), head_width=8, context=24, resample="resblock", scale_shift=True)
HEAD = PictureTextHeadConfig(tokens1=20, pooled1=12, picture=16, pictures=3, context=24, added=128)
MOVQ = AutoencoderConfig(
    width=32,
    mult=(1, 2),
    res_blocks=1,
    decoder_width=32,
    decoder_mult=(1, 2),
    decoder_res_blocks=1,
    attention_levels=(1,),
    variational=False,
)
PRIOR = PriorConfig(picture=16, text=16, context=7, width=32, layers=2, heads=4)


def kandinsky_unet(kind: str, channels: int = 4, cfg: UNetConfig = UNET, head: PictureTextHeadConfig = HEAD) -> Any:
    """diffusers' U-Net of 2.1 ('text_image') or 2.2 ('image') with the sizes of ``cfg``."""
    from diffusers import UNet2DConditionModel

    levels = len(cfg.mult)
    own: dict[str, Any] = {"encoder_hid_dim": head.tokens1 or head.picture, "encoder_hid_dim_type": f"{kind}_proj"}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            out_channels=8,
            down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * (levels - 1)),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=(*["SimpleCrossAttnUpBlock2D"] * (levels - 1), "ResnetUpsampleBlock2D"),
            block_out_channels=tuple(int(cfg.width * m) for m in cfg.mult),
            layers_per_block=cfg.res_blocks,
            attention_head_dim=cfg.head_width,
            cross_attention_dim=cfg.context,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type=kind,
            **own,
        )
    return made.eval()


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def loaded(module: nn.Module, tensors: dict[str, np.ndarray]) -> Any:
    """Strictly: nothing missing, nothing left over."""
    load_strict(module, {name: np.array(value) for name, value in tensors.items()}, "diffusers")
    return module.eval()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_unet_of_2_2() -> None:
    theirs = kandinsky_unet("image", head=HEAD)
    # diffusers counts the pictures' tokens itself
    cfg = PictureTextHeadConfig(0, 0, 20, 32, 24, 128)
    state = arrays(theirs)
    unet = loaded(UNet(UNET), diffusers_names.unet(UNET, state))
    own = {name: value for name, value in state.items() if name.startswith(("encoder_hid_proj.", "add_embedding."))}
    head = loaded(PictureHead(cfg), own | {})
    x, t, picture = draw(2, 4, 8, 8), torch.tensor([3.0, 700.0]), draw(2, 20, seed=1)
    wanted = theirs(x, t, encoder_hidden_states=None, added_cond_kwargs={"image_embeds": picture}).sample
    assert difference(unet(x, t, *head(picture)), wanted) <= 1e-5


@torch.no_grad()
def test_unet_of_2_1() -> None:
    theirs = kandinsky_unet("text_image")
    state = arrays(theirs)
    unet = loaded(UNet(UNET), diffusers_names.unet(UNET, state))
    names = {
        "clip_to_seq": "encoder_hid_proj.image_embeds",
        "to_model_dim_n": "encoder_hid_proj.text_proj",
        "proj_n": "add_embedding.text_proj",
        "ln_model_n": "add_embedding.text_norm",
        "img_layer": "add_embedding.image_proj",
    }
    own = {f"{o}.{part}": state[f"{t}.{part}"] for o, t in names.items() for part in ("weight", "bias")}
    pictures = own["clip_to_seq.weight"].shape[0] // 24
    cfg = PictureTextHeadConfig(20, 24, own["clip_to_seq.weight"].shape[1], pictures, 24, 128)
    head = loaded(PictureTextHead(cfg), own)
    x, t, tokens = draw(2, 4, 8, 8), torch.tensor([3.0, 700.0]), draw(2, 5, 20, seed=1)
    pooled, picture = draw(2, cfg.pooled1, seed=2), draw(2, cfg.picture, seed=3)
    wanted = theirs(
        x, t, encoder_hidden_states=tokens, added_cond_kwargs={"text_embeds": pooled, "image_embeds": picture}
    ).sample
    assert difference(unet(x, t, *head(tokens, pooled, picture)), wanted) <= 1e-5


@torch.no_grad()
def test_movq() -> None:
    from diffusers import VQModel

    theirs = VQModel(
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        norm_type="spatial",
    ).eval()
    state = diffusers_names.autoencoder(2, arrays(theirs))
    first = {name: v for name, v in state.items() if name.startswith(("encoder.", "quant_conv."))}
    encoder = loaded(EncoderKL(MOVQ), first)
    decoder = loaded(DecoderMoVQ(MOVQ), {name: v for name, v in state.items() if name not in first})
    pixels, latents = draw(2, 3, 16, 24), draw(2, 4, 8, 12, seed=1)
    assert difference(encoder(pixels), theirs.encode(pixels).latents) <= 1e-5
    assert difference(decoder(latents), theirs.decode(latents, force_not_quantize=True).sample) <= 1e-5


@torch.no_grad()
def test_autoencoder_of_stable_diffusion() -> None:
    from diffusers import AutoencoderKL

    cfg = AutoencoderConfig(
        width=32, mult=(1, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 2), decoder_res_blocks=1
    )
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=4,
    ).eval()
    state = diffusers_names.autoencoder(2, arrays(theirs))
    first = {name: v for name, v in state.items() if name.startswith(("encoder.", "quant_conv."))}
    encoder = loaded(EncoderKL(cfg), first)
    decoder = loaded(DecoderKL(cfg), {name: v for name, v in state.items() if name not in first})
    pixels, latents = draw(2, 3, 16, 24), draw(2, 4, 8, 12, seed=1)
    posterior = theirs.encode(pixels).latent_dist
    assert difference(encoder(pixels), posterior.parameters) <= 1e-5
    assert difference(decoder(latents), theirs.decode(latents).sample) <= 1e-5


@torch.no_grad()
def test_prior() -> None:
    from diffusers import PriorTransformer as Theirs

    theirs = Theirs(
        num_attention_heads=4, attention_head_dim=8, num_layers=2, embedding_dim=16, num_embeddings=7
    ).eval()
    for parameter in (theirs.positional_embedding, theirs.prd_embedding):
        parameter.copy_(draw(*parameter.shape, seed=5))
    ours = loaded(PriorTransformer(PRIOR), diffusers_names.prior(4, arrays(theirs)))
    x, tokens, pooled = draw(2, 16), draw(2, 7, 16, seed=1), draw(2, 16, seed=2)
    mask = torch.tensor([[1.0] * 7, [1.0, 1, 1, 0, 0, 0, 0]])
    t = torch.tensor([30.0, 30.0])
    wanted = theirs(x, 30, pooled, tokens, mask.bool()).predicted_image_embedding
    assert difference(ours(x, t, tokens, pooled, mask), wanted) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (10, 7)])
def test_unet_of_stable_diffusion(size: tuple[int, int]) -> None:
    """Of latents with an odd number of rows or columns too, on one level and on the next."""
    from diffusers import UNet2DConditionModel

    cfg = UNetConfig(4, 4, 32, (1, 2, 2), 1, (0, 1, 2), attention="transformer", heads=4, context=24)
    theirs = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=24,
    ).eval()
    ours = loaded(UNet(cfg), diffusers_names.unet(cfg, arrays(theirs)))
    x, t, tokens = draw(2, 4, *size), torch.tensor([3.0, 700.0]), draw(2, 5, 24, seed=1)
    assert difference(ours(x, t, tokens), theirs(x, t, tokens).sample) <= 1e-5


@torch.no_grad()
def test_towers_of_transformers() -> None:
    from transformers import CLIPTextConfig as TheirText
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection
    from transformers import CLIPVisionConfig as TheirVision

    from chashka.nets.clip import TextTower, VisionTransformer
    from chashka.nets.configs import CLIPTextConfig, CLIPVisionConfig

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextModelWithProjection(
        TheirText(
            **sizes, vocab_size=50, max_position_embeddings=7, projection_dim=12, hidden_act="gelu", eos_token_id=2
        )
    ).eval()
    ours = loaded(TextTower(CLIPTextConfig(50, 7, 16, 2, 2, 12, "gelu")), diffusers_names.clip_text(arrays(text)))
    ids = torch.tensor([[48, 3, 5, 49, 0, 0, 0], [48, 49, 0, 0, 0, 0, 0]])
    wanted = text(ids)
    tokens, pooled = ours(ids)
    assert difference(tokens, wanted.last_hidden_state) <= 1e-5 and difference(pooled, wanted.text_embeds) <= 1e-5
    vision = CLIPVisionModelWithProjection(
        TheirVision(**sizes, image_size=16, patch_size=8, projection_dim=12, hidden_act="quick_gelu")
    ).eval()
    cfg = CLIPVisionConfig(16, 2, 16, 12, 8, 8, "quick_gelu")
    tower = loaded(VisionTransformer(cfg), diffusers_names.clip_vision(arrays(vision)))
    pixels = draw(2, 3, 16, 16)
    assert difference(tower(pixels), vision(pixels).image_embeds) <= 1e-5
