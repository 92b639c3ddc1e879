"""The lineage's networks against the original code at random weights, and the real checkpoints' keys."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_weights import weights
from torch import nn
from whole_autoencoder import AutoencoderKL

from chashka.nets.configs import AutoencoderConfig, TextHeadConfig, UNetConfig
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from golden_files import golden

pytestmark = pytest.mark.torch


def tiny(in_channels: int, out_channels: int, width: int, mult: tuple[float, ...], **others: Any) -> UNetConfig:
    """The recorded U-Nets have two levels with one residual block, and attention at the second one at least."""
    return UNetConfig(in_channels, out_channels, width, mult, 1, **({"attention_levels": (1,)} | others))


OPENAI: dict[str, Any] = {"head_width": 16, "resample": "resblock", "scale_shift": True}
STABLE: dict[str, Any] = {"attention_levels": (0, 1), "attention": "transformer", "context": 24}
UNETS = {
    "k20": tiny(4, 8, 32, (1, 2), context=48, **OPENAI),
    "k20_inpaint": tiny(9, 8, 32, (1, 2), context=48, **OPENAI),
    "gd": tiny(3, 6, 32, (1, 2), **OPENAI),
    "gd_plain": tiny(3, 6, 32, (1, 2), heads=1),
    "half": tiny(3, 6, 64, (0.5, 1), **OPENAI),
    "compvis": tiny(4, 4, 32, (1, 2), heads=4, **STABLE),
    "stability": tiny(4, 4, 32, (1, 2), head_width=16, linear_proj=True, **STABLE),
    "runway": tiny(9, 4, 32, (1, 2), heads=4, **STABLE),
}
HEAD = TextHeadConfig(40, 24, 512, 48, 128, 8)
VAE = AutoencoderConfig(
    width=32, mult=(1, 1, 2, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 1, 2, 2), decoder_res_blocks=1
)
# name: seed, factor of the last convolution, fingerprint of all keys, shapes and numbers of the original's state dict
RECORDED = {
    "k20": (20, 0.25, "18122816b2d9378c"),
    "k20_head": (20, 1.0, "f5906023369306cd"),
    "k20_vae": (23, 1.0, "8762f938d487af47"),
    "gd": (30, 0.25, "0d112bfcb1eca746"),
    "gd_plain": (31, 1.0, "83c50fd9436038b1"),
    "half": (35, 1.0, "a44a8060045a3eaa"),
    "compvis": (40, 0.5, "d224c073798b48b0"),
    "stability": (40, 0.5, "958ecc4b2891e8f0"),
    "runway": (42, 0.5, "e55a73cd7e0afb10"),
    "compvis_vae": (41, 1.0, "acb8950dac2caed7"),
}


def recorded(name: str, kind: type[nn.Module], config: Any) -> Any:
    """The network with the recorded weights, after a look at their fingerprint."""
    with torch.device("meta"):
        module = kind(config)
    seed, last, fingerprint = RECORDED[name]
    state, found = weights(module, seed, last)
    assert found == fingerprint, "keys, shapes or numbers differ from the original's state dict"
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


@pytest.fixture(scope="module")
def numbers() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(golden("nets/forwards.npz")).items()}


def difference(out: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative to the largest value (forwards must be within 1e-5)."""
    assert out.shape == wanted.shape
    return float((out - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def kandinsky_text(numbers: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    head = recorded("k20_head", KandinskyTextHead, HEAD)
    with torch.no_grad():
        tokens, added = head(*(numbers[f"k20.fwd.{n}"] for n in ("full_emb1", "pooled_emb1", "full_emb2")))
    return tokens, added


def test_kandinsky_text_head(
    numbers: dict[str, torch.Tensor], kandinsky_text: tuple[torch.Tensor, torch.Tensor]
) -> None:
    tokens, added = kandinsky_text
    assert difference(added, numbers["k20.fwd.xf_proj"]) <= 1e-5
    assert difference(tokens.transpose(1, 2), numbers["k20.fwd.xf_out"]) <= 1e-5


@torch.no_grad()
def test_kandinsky_unet(numbers: dict[str, torch.Tensor], kandinsky_text: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, t = numbers["k20.fwd.x"], numbers["k20.fwd.t"]
    unet = recorded("k20", UNet, UNETS["k20"])
    assert difference(unet(x, t, *kandinsky_text), numbers["k20.fwd.out"]) <= 1e-5
    wide = UNet(UNETS["k20_inpaint"]).eval()
    state = unet.state_dict() | {"input_blocks.0.0.weight": numbers["k20.fwd_inpaint.conv_in_weight"]}
    wide.load_state_dict(state, strict=True)
    image, mask = numbers["k20.fwd_inpaint.image"], numbers["k20.fwd_inpaint.mask"]
    out = wide(torch.cat([x, image * mask, mask], 1), t, *kandinsky_text)
    assert difference(out, numbers["k20.fwd_inpaint.out"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "before", "out"),
    [("gd", "gd.fwd.", "gd.fwd.out"), ("gd_plain", "gd.fwd.", "gd.fwd_plain.out"), ("half", "half.", "half.out")],
)
def test_guided_diffusion_unets(name: str, before: str, out: str, numbers: dict[str, torch.Tensor]) -> None:
    """'half': the first convolution is as wide as the first level and not as the time embedding's base."""
    unet = recorded(name, UNet, UNETS[name])
    assert difference(unet(numbers[before + "x"], numbers[before + "t"]), numbers[out]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ["compvis", "stability", "runway"])
def test_latent_diffusion_unets(name: str, numbers: dict[str, torch.Tensor]) -> None:
    x, t, tokens = (numbers[f"{name}.{n}"] for n in ("x", "t", "c"))
    if name == "runway":
        x = torch.cat([x, numbers["runway.mask"], numbers["runway.masked_latent"]], 1)
    assert difference(recorded(name, UNet, UNETS[name])(x, t, tokens), numbers[f"{name}.unet_out"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize(("name", "before"), [("k20_vae", "k20.vae."), ("compvis_vae", "compvis.vae.")])
def test_autoencoders(name: str, before: str, numbers: dict[str, torch.Tensor]) -> None:
    vae = recorded(name, AutoencoderKL, VAE)
    mean, logvar = vae.encode(numbers[before + "img"]).chunk(2, 1)
    assert difference(mean, numbers[before + "mean"]) <= 1e-5
    assert difference(logvar, numbers[before + "logvar"]) <= 1e-5
    # CompVis divides by its scale factor before it decodes; Kandinsky's number is recorded after that.
    latents = numbers["k20.vae.z"] if name == "k20_vae" else numbers[before + "dec_in"] / 0.18215
    assert difference(vae.decode(latents), numbers[before + "dec"]) <= 1e-5


@pytest.fixture(scope="module")
def inventories() -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    for name in ("real_state_dict_keys.json.gz", "real_state_dict_keys_sd.json.gz"):
        found |= json.loads(gzip.decompress(golden(f"nets/{name}").read_bytes()))
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
def test_real_sizes_have_the_original_keys_and_shapes(name: str, inventories: dict[str, dict[str, list[int]]]) -> None:
    """Every key of the checkpoint is there with its shape, and no other (built on meta)."""
    with torch.device("meta"):
        have = shapes(UNet(REAL[name]))
        if name.startswith("kandinsky"):
            have |= shapes(KandinskyTextHead(TextHeadConfig()))
    prefix = "model.diffusion_model."  # of Stable Diffusion's single files
    assert have == {key.removeprefix(prefix): list(shape) for key, shape in inventories[name].items()}


def test_real_autoencoder_has_the_original_keys_and_shapes(inventories: dict[str, dict[str, list[int]]]) -> None:
    name = next(key for key in inventories if "vae" in key)
    wanted = {k: list(s) for k, s in inventories[name].items() if not k.startswith("loss.")}
    with torch.device("meta"):
        assert shapes(AutoencoderKL(AutoencoderConfig())) == wanted
