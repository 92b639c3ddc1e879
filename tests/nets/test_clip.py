"""CLIP against openai/CLIP and transformers at tiny random weights, and its contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chashka.errors import InputError
from chashka.nets.clip import CLIP, PIXEL_MEAN, PIXEL_STD, ModifiedResNet, TextTower, VisionTransformer, normalised
from chashka.nets.clip_presets import CLIP_PRESETS
from chashka.nets.configs import CLIPTextConfig, CLIPVisionConfig
from golden_files import golden

pytestmark = pytest.mark.torch

VIT = (
    CLIPTextConfig(vocab=100, width=64, heads=1, layers=2, embed=24),
    CLIPVisionConfig(resolution=32, layers=2, width=64, embed=24, patch=8),
)
RESNET = (
    CLIPTextConfig(vocab=100, width=64, heads=1, layers=1, embed=16),
    CLIPVisionConfig(resolution=64, layers=(1, 1, 1, 1), width=8, embed=16),
)
MODELS = {"clip_vit": VIT, "clip_rn": RESNET}
# By open_clip's model profile and the original repository's notebook: every parameter of both towers, logit_scale included.
PARAMETERS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
    "OpenCLIP-ViT-H/14": 986_109_441,
}


def weights(name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(golden(f"clip/gd_{name}.safetensors")).items()}


def clip(name: str) -> CLIP:
    """One of the two tiny models, loaded strictly with the original keys."""
    model = CLIP(*MODELS[name])
    model.load_state_dict(weights(name), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def numbers() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(golden("clip/clip_forward.npz")).items()}


def difference(out: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative to the largest value (design: forwards)."""
    assert out.shape == wanted.shape
    return float((out - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(MODELS))
def test_both_towers_give_the_original_numbers(name: str, numbers: dict[str, torch.Tensor]) -> None:
    model = clip(name)
    assert difference(model.encode_image(numbers[f"{name}.img_in"]), numbers[f"{name}.img"]) <= 1e-5
    assert difference(model.encode_text(numbers["clip.tokens"]), numbers[f"{name}.text"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize(
    ("skip_last", "final_norm", "wanted"),
    [(0, True, "last_norm"), (1, True, "penultimate_norm"), (1, False, "penultimate")],
)
def test_hidden_states(
    numbers: dict[str, torch.Tensor], activation: str, skip_last: int, final_norm: bool, wanted: str
) -> None:
    """The last layer for Stable Diffusion 1, the penultimate one for 2; pooled does not depend on the choice."""
    config = CLIPTextConfig(100, 77, 64, 1, 2, 24, activation, skip_last, final_norm)
    tower = TextTower(config).eval()
    state = {key: value for key, value in weights("clip_vit").items() if not key.startswith("visual.")}
    tower.load_state_dict(state, strict=True)
    tokens, pooled = tower(numbers["clip.tokens"])
    assert difference(tokens, numbers[f"hidden.{activation}.{wanted}"]) <= 1e-5
    assert difference(pooled, numbers[f"hidden.{activation}.pooler"] @ tower.text_projection) <= 1e-5
    chosen, same = clip("clip_vit").states(numbers["clip.tokens"], skip_last=skip_last, final_norm=final_norm)
    if activation == "quick_gelu":
        assert torch.equal(chosen, tokens)
        assert torch.equal(same, pooled)


@torch.no_grad()
def test_a_shorter_text_is_the_beginning_of_a_padded_one(numbers: dict[str, torch.Tensor]) -> None:
    model, ids = clip("clip_vit"), numbers["clip.tokens"]
    tokens, pooled = model(ids)
    short, pooled_short = model(ids[:, :8])
    assert difference(short, tokens[:, :8]) <= 1e-5
    assert difference(pooled_short, pooled) <= 1e-5
    ended = torch.where(ids == 0, 99, ids)  # padded with the end mark: its first place counts
    assert difference(model.encode_text(ended), pooled) <= 1e-5


@torch.no_grad()
def test_a_later_id_changes_nothing_before_it(numbers: dict[str, torch.Tensor]) -> None:
    model, ids = clip("clip_vit"), numbers["clip.tokens"]
    other = ids.clone()
    other[:, 3] = 50
    before, after = model(ids)[0], model(other)[0]
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_picture_towers_have_the_right_gradient_in_pixels(name: str, numbers: dict[str, torch.Tensor]) -> None:
    """A directional derivative in float64 against the central difference."""
    model = clip(name).double()
    pixels = numbers[f"{name}.img_in"].double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    way = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    aim = torch.randn((2, MODELS[name][1].embed), generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((model.encode_image(pixels) * aim).sum(), pixels)
    with torch.no_grad():
        ahead, behind = (model.encode_image(pixels + step * way) for step in (1e-6, -1e-6))
    wanted = float(((ahead - behind) * aim).sum()) / 2e-6
    assert float((gradient * way).sum()) == pytest.approx(wanted, rel=1e-4)


@torch.no_grad()
def test_similarity_is_the_scaled_cosine(numbers: dict[str, torch.Tensor]) -> None:
    model = clip("clip_rn")
    out = model.similarity(numbers["clip_rn.img_in"], numbers["clip.tokens"])
    image, text = numbers["clip_rn.img"], numbers["clip_rn.text"]
    cosine = torch.cosine_similarity(image[:, None], text[None], dim=-1)
    assert out.shape == (2, 2)
    assert torch.allclose(out, cosine * weights("clip_rn")["logit_scale"].exp(), rtol=1e-4, atol=1e-5)


def test_normalised_takes_mean_to_zero_and_one_deviation_to_one() -> None:
    mean, deviation = (torch.tensor(values)[None, :, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    assert torch.allclose(normalised(mean.expand(2, 3, 4, 4)), torch.zeros(2, 3, 4, 4), atol=1e-6)
    assert torch.allclose(normalised((mean + deviation).expand(2, 3, 4, 4)), torch.ones(2, 3, 4, 4), atol=1e-6)


@pytest.mark.parametrize("name", sorted(CLIP_PRESETS))
def test_presets_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = CLIP(*CLIP_PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="a text has 78 ids; this CLIP reads at most 77"):
        TextTower(VIT[0])(torch.zeros(1, 78, dtype=torch.int64))


def test_towers_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="text 24, vision 16"):
        CLIP(VIT[0], RESNET[1])
    with pytest.raises(InputError, match="ModifiedResNet"):
        VisionTransformer(RESNET[1])
    with pytest.raises(InputError, match="VisionTransformer"):
        ModifiedResNet(VIT[1])
