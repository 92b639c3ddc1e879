"""The lineage's networks against the original code at tiny random weights, and against the real checkpoints' key inventories."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chashka.nets.autoencoder import AutoencoderKL
from chashka.nets.configs import AutoencoderConfig, TextHeadConfig, UNetConfig
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from golden_files import golden

pytestmark = pytest.mark.torch

HEAD_KEYS = ("to_model_dim", "proj", "ln_model")
KANDINSKY = UNetConfig(
    4, 8, 32, (1, 2), 1, attention_levels=(1,), head_width=16, context=48, resample="resblock", scale_shift=True
)
GUIDED = UNetConfig(3, 6, 32, (1, 2), 1, attention_levels=(1,), head_width=16, resample="resblock", scale_shift=True)
PLAIN = UNetConfig(3, 6, 32, (1, 2), 1, attention_levels=(1,), heads=1)
HALF = UNetConfig(3, 6, 64, (0.5, 1), 1, attention_levels=(1,), head_width=16, resample="resblock", scale_shift=True)


def weights(name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(golden(name)).items()}


def numbers(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(golden(name)).items() if value.dtype.kind in "fi"}


def loaded(module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    module.load_state_dict(state, strict=True)
    return module.eval()


def close(out: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within 1e-5 of the largest value (design: forwards)."""
    return float((out - wanted).abs().max() / wanted.abs().max()) <= 1e-5


def kandinsky_parts() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    state = weights("k20_unet.safetensors") | weights("k20_unet_proj2.safetensors")
    head = {key: value for key, value in state.items() if key.startswith(HEAD_KEYS)}
    return {key: value for key, value in state.items() if key not in head}, head


@torch.no_grad()
def test_kandinsky_unet_and_text_head() -> None:
    body, head_state = kandinsky_parts()
    n = numbers("k20_forward.npz")
    head = loaded(KandinskyTextHead(TextHeadConfig(40, 24, 512, 48, 128, 8)), head_state)
    tokens, added = head(n["fwd.full_emb1"], n["fwd.pooled_emb1"], n["fwd.full_emb2"])
    assert close(added, n["fwd.xf_proj"])
    assert close(tokens.transpose(1, 2), n["fwd.xf_out"])
    assert close(loaded(UNet(KANDINSKY), body)(n["fwd.x"], n["fwd.t"], tokens, added), n["fwd.out"])
    wide = UNetConfig(
        9, 8, 32, (1, 2), 1, attention_levels=(1,), head_width=16, context=48, resample="resblock", scale_shift=True
    )
    body["input_blocks.0.0.weight"] = n["fwd_inpaint.conv_in_weight"]
    image, mask = n["fwd_inpaint.image"], n["fwd_inpaint.mask"]
    x = torch.cat([n["fwd.x"], image * mask, mask], 1)
    assert close(loaded(UNet(wide), body)(x, n["fwd.t"], tokens, added), n["fwd_inpaint.out"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("file", "config", "out"),
    [("gd_unet", GUIDED, "fwd.out"), ("gd_unet_plain", PLAIN, "fwd_plain.out")],
)
def test_guided_diffusion_unets(file: str, config: UNetConfig, out: str) -> None:
    n = numbers("gd_forward.npz")
    assert close(loaded(UNet(config), weights(f"{file}.safetensors"))(n["fwd.x"], n["fwd.t"]), n[out])


@torch.no_grad()
def test_first_width_may_differ_from_the_embedding() -> None:
    n = numbers("gd_half_mult.npz")
    assert close(loaded(UNet(HALF), weights("gd_unet_half_mult.safetensors"))(n["x"], n["t"]), n["out"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["compvis", "stability", "runway"])
def test_latent_diffusion_unets(name: str) -> None:
    params = json.loads(golden(f"ldm_{name}_config.json").read_text())["params"]["unet_config"]["params"]
    config = UNetConfig(
        params["in_channels"],
        4,
        32,
        (1, 2),
        1,
        attention_levels=(0, 1),
        attention="transformer",
        heads=params.get("num_heads") if "num_head_channels" not in params else None,
        head_width=params.get("num_head_channels"),
        context=params["context_dim"],
        linear_proj=params.get("use_linear_in_transformer", False),
    )
    n = numbers(f"ldm_{name}.npz")
    x = n["x"]
    if name == "runway":
        x = torch.cat([x, n["mask"].expand(2, -1, -1, -1), n["masked_latent"].expand(2, -1, -1, -1)], 1)
    assert close(loaded(UNet(config), weights(f"ldm_{name}_unet.safetensors"))(x, n["t"], n["c"]), n["unet_out"])


@torch.no_grad()
@pytest.mark.parametrize(("file", "forward"), [("k20_vae", "k20_forward"), ("ldm_vae", "ldm_compvis")])
def test_autoencoders(file: str, forward: str) -> None:
    config = AutoencoderConfig(
        width=32, mult=(1, 1, 2, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 1, 2, 2), decoder_res_blocks=1
    )
    vae = AutoencoderKL(config)
    loaded(vae, weights(f"{file}.safetensors"))
    n = numbers(f"{forward}.npz")
    mean, logvar = vae.encode(n["vae.img"]).chunk(2, 1)
    assert close(mean, n["vae.mean"])
    assert close(logvar, n["vae.logvar"])
    latents = n["vae.z"] if "vae.z" in n else n["vae.dec_in"] / 0.18215  # CompVis divides by its scale factor first
    assert close(vae.decode(latents), n["vae.dec"])


def inventories() -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    for name in ("real_state_dict_keys.json.gz", "real_state_dict_keys_sd.json.gz"):
        path: Path = golden(name)
        found |= json.loads(gzip.decompress(path.read_bytes()))
    return found


def kandinsky(in_channels: int) -> UNetConfig:
    return UNetConfig(
        in_channels,
        8,
        384,
        (1, 2, 3, 4),
        3,
        (1, 2, 3),
        head_width=64,
        context=768,
        resample="resblock",
        scale_shift=True,
    )


def guided(mult: tuple[float, ...], levels: tuple[int, ...]) -> UNetConfig:
    return UNetConfig(3, 6, 256, mult, 2, levels, head_width=64, resample="resblock", scale_shift=True)


def stable(in_channels: int, two: bool) -> UNetConfig:
    heads: dict[str, int] = {"head_width": 64} if two else {"heads": 8}
    context = 1024 if two else 768
    levels, kind = (0, 1, 2), "transformer"
    return UNetConfig(in_channels, 4, 320, (1, 2, 4, 4), 2, levels, kind, context=context, linear_proj=two, **heads)


REAL = {
    "kandinsky2.0_unet": kandinsky(4),
    "kandinsky2.0_unet_inpainting": kandinsky(9),
    "guided_diffusion_512x512_uncond": guided((0.5, 1, 1, 2, 2, 4, 4), (4, 5, 6)),
    "guided_diffusion_256x256_uncond": guided((1, 1, 2, 2, 4, 4), (3, 4, 5)),
    "sd1": stable(4, False),
    "sd1_inpaint": stable(9, False),
    "sd2": stable(4, True),
    "sd2_inpaint": stable(9, True),
}


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_sizes_have_the_original_keys_and_shapes(name: str) -> None:
    """Every key of the checkpoint is there with its shape, and no other (built on meta)."""
    with torch.device("meta"):
        have = shapes(UNet(REAL[name]))
        if name.startswith("kandinsky"):
            have |= shapes(KandinskyTextHead(TextHeadConfig()))
    prefix = "model.diffusion_model."  # of Stable Diffusion's single files
    wanted = {key.removeprefix(prefix): shape for key, shape in inventories()[name].items()}
    assert have == {key: list(shape) for key, shape in wanted.items()}


def test_real_autoencoder_has_the_original_keys_and_shapes() -> None:
    name = next(key for key in inventories() if "vae" in key)
    wanted = {k: list(s) for k, s in inventories()[name].items() if not k.startswith("loss.")}
    with torch.device("meta"):
        assert shapes(AutoencoderKL(AutoencoderConfig())) == wanted
