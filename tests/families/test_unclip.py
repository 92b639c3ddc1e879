"""Kandinsky 2.1 and 2.2: the prior, whole runs beside diffusers, mixtures, masks, and what folders may lack."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unclip_folders import SCHEDULER, SIZES, Modules, picture, write_21, write_22

from chashka import families, generate, images
from chashka.diffusion import START, PictureNoise, Table
from chashka.diffusion.respacing import section_respacing
from chashka.errors import InputError, WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.families.files import weight_files
from chashka.families.kandinsky import INPAINTING_21, PUBLISHED_21, PUBLISHED_22, published_21
from chashka.families.kandinsky.prior import DRAW, as_clip_sees
from chashka.prompts import clip_words
from chashka.request import Inputs
from parts_files import split

pytestmark = pytest.mark.torch
TORCH = EngineChoice("torch")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_21(folder / "kandinsky-2.1")
    return folder


@pytest.fixture(scope="module")
def theirs(folders: Path) -> Modules:
    return write_22(folders / "kandinsky-2.2")


def tiny_21(preset: Any, folder: Path) -> Bundle:
    inpainting = preset is INPAINTING_21
    sizes = replace(SIZES, unet=replace(SIZES.unet, in_channels=9)) if inpainting else SIZES
    made = replace(preset, folder=folder / "kandinsky-2.1")
    opener = published_21.open_inpainting if inpainting else published_21.open_text
    return opener(made, TORCH, sizes)


@pytest.fixture
def bundle_21(folders: Path) -> Bundle:
    return tiny_21(PUBLISHED_21, folders)


@pytest.fixture
def bundle_22(folders: Path, theirs: Modules) -> Bundle:
    return families.load("kandinsky-2.2", engine="torch", models=folders)


def noise(seed: int, rows: int, shape: tuple[int, ...], step: int, draw: int = 0) -> torch.Tensor:
    return torch.from_numpy(PictureNoise([seed] * rows, shape)(step, draw))


@torch.no_grad()
def embedded_by_diffusers(theirs: Modules, prompt: str, seed: int, rows: int) -> Any:
    """The prior's loop of diffusers' pipeline for 2.2 with its module and scheduler, and our noise: five steps, guidance 4."""
    from diffusers import UnCLIPScheduler
    from diffusers.schedulers import scheduling_unclip

    said, mask = told(theirs, prompt, rows)
    scheduler = UnCLIPScheduler(clip_sample_range=10.0, prediction_type="sample")
    scheduler.set_timesteps(5)
    x = noise(seed, rows, (16,), START, DRAW)
    drawn = iter([noise(seed, rows, (16,), i, DRAW) for i in range(5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_unclip, "randn_tensor", lambda *_, **__: next(drawn))
        for i, t in enumerate(scheduler.timesteps):
            out = theirs.prior(torch.cat([x, x]), t, said.text_embeds, said.last_hidden_state, mask)
            u, c = out.predicted_image_embedding.chunk(2)
            following = None if i == 4 else scheduler.timesteps[i + 1]
            x = scheduler.step(u + 4.0 * (c - u), t, x, following).prev_sample
    return theirs.prior.post_process_latents(x).numpy()


@torch.no_grad()
def embedded_in_float64(theirs: Modules, prompt: str, seed: int, rows: int) -> Any:
    """The same by the formula (DDPM, equation 7) in double precision: the schedule of diffusers is float32's, and shows it."""
    said, mask = told(theirs, prompt, rows)
    prior = copy.deepcopy(theirs.prior).double()
    levels = Table.squared_cosine().alphas_cumprod
    steps = section_respacing(5)[::-1]
    x = noise(seed, rows, (16,), START, DRAW).double()
    for i, t in enumerate(steps):
        out = prior(torch.cat([x, x]), t, said.text_embeds.double(), said.last_hidden_state.double(), mask)
        u, c = out.predicted_image_embedding.chunk(2)
        a, before = levels[t], levels[steps[i + 1]] if i < 4 else 1.0
        beta = 1 - a / before
        kept = (1 - beta) ** 0.5 * (1 - before) / (1 - a)
        x = before**0.5 * beta / (1 - a) * (u + 4.0 * (c - u)).clip(-10, 10) + kept * x
        if i < 4:
            x = x + ((1 - before) / (1 - a) * beta) ** 0.5 * noise(seed, rows, (16,), i, DRAW)
    return prior.post_process_latents(x).numpy()


def told(theirs: Modules, prompt: str, rows: int) -> tuple[Any, torch.Tensor]:
    """What CLIP says of nothing and of the prompt, each for all rows, and where they have tokens."""
    ids, mask = (torch.from_numpy(a) for a in clip_words.encode_batch([*[""] * rows, *[prompt] * rows]))
    return theirs.text(ids), mask.bool()


@torch.no_grad()
def decoded_by_diffusers(theirs: Modules, embedding: Any, seed: int, rows: int, steps: int, scale: float) -> Any:
    """The decoder's loop likewise: pixels (B, 3, H, W)."""
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    nothing = theirs.vision(torch.zeros(1, 3, 32, 32)).image_embeds.expand(rows, -1)
    scheduler = DDPMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    x = noise(seed, rows, (4, 8, 8), START)
    drawn = iter([noise(seed, rows, (4, 8, 8), i) for i in range(steps)])
    given = {"image_embeds": torch.cat([nothing, torch.from_numpy(embedding)])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(drawn))
        for t in scheduler.timesteps:
            eps, variance = theirs.unet(torch.cat([x, x]), t, None, added_cond_kwargs=given).sample.split(4, 1)
            u, c = eps.chunk(2)
            guided = torch.cat([u + scale * (c - u), variance.chunk(2)[1]], 1)
            x = scheduler.step(guided, t, x).prev_sample
    return theirs.movq.decode(x, force_not_quantize=True).sample.numpy()


def relative(ours: Any, other: Any) -> float:
    return float(np.abs(ours - other).max() / np.abs(other).max())


def test_2_2_has_the_embeddings_of_diffusers(bundle_22: Bundle, theirs: Modules) -> None:
    keywords: Any = bundle_22.denoise
    prior = keywords.keywords["unclip"].prior
    ours = prior.sample(["a cup of tea"] * 2, "", 5, 4.0, PictureNoise([7, 7], (16,)))
    truth = embedded_in_float64(theirs, "a cup of tea", 7, 2)
    assert relative(ours, truth) < 1e-5
    assert relative(ours, embedded_by_diffusers(theirs, "a cup of tea", 7, 2)) < 1e-3


def test_2_2_draws_what_diffusers_draws(bundle_22: Bundle, theirs: Modules) -> None:
    keywords: Any = bundle_22.denoise
    prior = keywords.keywords["unclip"].prior
    embedding = prior.sample(["a cup of tea"] * 2, "", 5, 4.0, PictureNoise([7, 7], (16,)))
    decoded = decoded_by_diffusers(theirs, embedding, 7, 2, 10, 3.0)
    fields = {"prompt": "a cup of tea", "seed": 7, "n": 2, "steps": 10, "guidance_scale": 3.0, "prior_steps": 5}
    pictures = generate.draw(bundle_22, bundle_22.request(**fields, width=64, height=64))
    pixels = np.stack([p.pixels[..., :3] for p in pictures]).astype(int)
    wanted = np.rint((decoded.clip(-1, 1) + 1) * 127.5).transpose(0, 2, 3, 1).astype(int)
    off = np.abs(pixels - wanted)
    assert np.mean(off <= 1) > 0.999
    assert np.abs(wanted[0] - wanted[1]).max() > 10, "two pictures, two noises"


def test_2_1_has_its_prior_from_the_same_networks(bundle_21: Bundle) -> None:
    """Its towers and prior are those of 2.2 by other names, so that what is checked there holds here; shapes and chance."""
    keywords: Any = bundle_21.denoise
    prior = keywords.keywords["unclip"].prior
    stream = PictureNoise([1, 1], (16,))
    first = prior.sample(["кот"] * 2, "", 3, 4.0, stream)
    assert first.shape == (2, 16) and not np.allclose(first[0], first[1])
    assert np.array_equal(first, prior.sample(["кот"] * 2, "", 3, 4.0, stream))
    assert not np.allclose(first, prior.sample(["кот"] * 2, "", 3, 4.0, stream, draw=DRAW + 1))
    prior.close()
    assert np.allclose(first, prior.sample(["кот"] * 2, "", 3, 4.0, stream))


@pytest.mark.parametrize("sampler", ["ddim", "plms", "p_sampler", "dpmpp_2m"])
@pytest.mark.parametrize("compat", [None, "original"])
def test_2_1_draws(sampler: str, compat: str | None, bundle_21: Bundle) -> None:
    request = bundle_21.request(
        prompt="чашка", negative_prompt="кот", seed=1, n=2, steps=5, prior_steps=2, sampler=sampler, compat=compat,
        width=64, height=70,
    )  # fmt: skip
    pictures = generate.draw(bundle_21, request)
    assert [p.size for p in pictures] == [(64, 70)] * 2
    assert not np.array_equal(pictures[0].pixels, pictures[1].pixels)
    alone = generate.draw(bundle_21, request.with_fields(n=1, first=1))[0]
    off = np.abs(alone.pixels.astype(int) - pictures[1].pixels.astype(int)).max()
    assert off <= 3 or compat == "original", "a percentile of the first picture is the original's alone"


def test_levels_of_2_1() -> None:
    """A picture's noise is that of 2.0's schedule in the original; our own interface gives it the model's."""
    from chashka.families.kandinsky.compat import conventions_21
    from chashka.families.kandinsky.options import Options

    table = Table.linear(0.00085, 0.012)
    asked = Options(prompt="x", steps=10, sampler="ddim", strength=0.4)
    mended = conventions_21(asked).levels(table, asked, True)
    assert mended.entry is None and len(mended.run) == 5
    same = asked.with_fields(compat="original")
    levels = conventions_21(same).levels(table, same, True)
    assert levels.entry == Table.linear().sigmas[399] and levels.sigmas[-1] == table.min_sigma
    assert levels.run[0] == table.sigmas[301], "t = 1, 101, 201, 301 are at most 400"


def test_mixtures(bundle_21: Bundle, bundle_22: Bundle) -> None:
    cats = picture(50, 40)
    for bundle in (bundle_21, bundle_22):
        mix: list[dict[str, Any]] = [{"picture": 0, "weight": 1.0}, {"text": "чашка", "weight": 3.0}]
        asked = {"prompt": "", "seed": 1, "steps": 2, "prior_steps": 2, "width": 64, "height": 64}
        first = generate.draw(bundle, bundle.request(**asked, mix=mix), Inputs(pictures=(cats,)))[0]
        halved = [part | {"weight": part["weight"] / 2} for part in mix]
        again = generate.draw(bundle, bundle.request(**asked, mix=halved), Inputs(pictures=(cats,)))[0]
        assert np.abs(first.pixels.astype(int) - again.pixels.astype(int)).max() <= 3, "weights are relative"
        other = generate.draw(bundle, bundle.request(**asked, mix=mix[:1]), Inputs(pictures=(cats,)))[0]
        assert not np.array_equal(first.pixels, other.pixels)
        with pytest.raises(InputError, match="names the pictures"):
            generate.draw(bundle, bundle.request(**asked, mix=mix))
        with pytest.raises(InputError, match="mixes none of them"):
            generate.draw(bundle, bundle.request(**asked | {"prompt": "x"}), Inputs(pictures=(cats,)))


def test_pictures_and_masks(bundle_21: Bundle, bundle_22: Bundle, folders: Path) -> None:
    init = picture(100, 70, 1)
    white = np.zeros((70, 100), np.float32)
    white[:30] = 1
    for bundle in (bundle_21, bundle_22, tiny_21(INPAINTING_21, folders)):
        asked = {"prompt": "кот", "seed": 1, "steps": 4, "prior_steps": 2}
        (changed,) = generate.draw(bundle, bundle.request(**asked, strength=0.5), Inputs(init))
        assert changed.size == (100, 70)
        for sampler in ("ddim", "p_sampler"):
            (painted,) = generate.draw(bundle, bundle.request(**asked, sampler=sampler), Inputs(init, white))
            assert np.array_equal(painted.pixels[30:], init[30:])
            assert not np.array_equal(painted.pixels[:30], init[:30])


def test_what_clip_sees() -> None:
    """The middle square of the shorter side; transparent is white."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    assert np.allclose(as_clip_sees(pixels, 32), as_clip_sees(np.full_like(pixels, 255), 32))
    pixels[:, 10:50] = 255
    seen = as_clip_sees(pixels, 32)
    assert seen.shape == (3, 32, 32) and np.allclose(seen, as_clip_sees(np.full_like(pixels, 255), 32), atol=0.05)


def test_both_engines(folders: Path, theirs: Modules, tmp_path: Path) -> None:
    drawn = []
    for engine in ("torch", "openvino"):
        bundle = families.load("kandinsky-2.2", engine=engine, precision="f32", models=folders, cache_dir=tmp_path)
        request = bundle.request(prompt="cup", seed=2, steps=3, prior_steps=2, width=64, height=64)
        drawn.append(generate.draw(bundle, request)[0].pixels.astype(int))
    assert np.mean(np.abs(drawn[0] - drawn[1]) <= 3) > 0.99


def test_meters(bundle_21: Bundle, bundle_22: Bundle) -> None:
    assert bundle_22.text.meter("a cup").used == 2 and bundle_22.text.meter("cup " * 90).cut == 15
    assert bundle_21.text.meter("").used == 0
    assert bundle_22.text.pooled(["a", "b"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": "many"}, "the configuration does not fit"),
        ({"addition_embed_type": "text"}, "not the U-Net of Kandinsky 2.2"),
        ({"in_channels": 9}, "does not fit UNet|network for"),
    ],
)
def test_configurations_that_do_not_fit(
    folders: Path, theirs: Modules, tmp_path: Path, change: Any, message: str
) -> None:
    folder = tmp_path / "copy"
    for file in (folders / "kandinsky-2.2").rglob("*"):
        if file.is_file():
            place = folder / file.relative_to(folders / "kandinsky-2.2")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
    config = folder / "decoder" / "unet" / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")) | change
    config.unlink()
    config.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        families.load(f"{folder}/", engine="torch")


def test_folders_are_recognised(folders: Path, theirs: Modules) -> None:
    assert families.find(str(folders / "kandinsky-2.1"))[1].name == "2.1"
    assert families.find(str(folders / "kandinsky-2.2"))[1].name == "2.2"
    assert families.located("kandinsky-2.2", PUBLISHED_22, folders).place == folders / "kandinsky-2.2"
    with pytest.raises(WeightsError, match=r"kandinsky-2\.0.*\(there is kandinsky-2\.1"):
        families.load("kandinsky-2.0", models=folders / "kandinsky-2.1")


def test_a_bundle_tells_the_file_of_its_unet(bundle_21: Bundle, bundle_22: Bundle, folders: Path) -> None:
    assert bundle_21.weights == folders / "kandinsky-2.1" / "decoder_fp16.ckpt"
    assert bundle_22.weights == folders / "kandinsky-2.2" / "decoder" / "unet" / "diffusion_pytorch_model.safetensors"


def test_weights_in_several_files_are_read(theirs: Modules, folders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kandinsky-2.2"
    shutil.copytree(folders / "kandinsky-2.2", folder)
    for name in ("decoder/unet", "decoder/movq", "prior/prior"):
        split(folder / name / "diffusion_pytorch_model.safetensors", 2, "fp16" if name == "decoder/movq" else "")
    for name in ("text_encoder", "image_encoder"):
        split(folder / "prior" / name / "model.safetensors")
    asked: dict[str, Any] = {"prompt": "a cup", "seed": 3, "steps": 1, "prior_steps": 1, "width": 64, "height": 64}
    pictures = []
    for models in (folders, tmp_path):
        bundle = families.load("kandinsky-2.2", engine="torch", models=models)
        pictures += generate.draw(bundle, bundle.request(**asked))
    assert np.array_equal(pictures[0].pixels, pictures[1].pixels)
    assert len(weight_files(bundle.preset)) == 10, "they count where the memory of a model is thought of"
    part = next((folder / "prior" / "text_encoder").glob("*-00002-of-00002.safetensors"))
    part.unlink()
    with pytest.raises(
        WeightsError, match=rf"text_encoder: .*in 2 files; missing is {part.name}; found is .*-00001-of-00002"
    ):
        families.load("kandinsky-2.2", engine="torch", models=tmp_path)


def test_images_stay_in_range(bundle_22: Bundle) -> None:
    pixels = images.to_network(picture(64, 64))[None]
    assert bundle_22.codec.encode(pixels).shape == (1, 4, 8, 8)
    assert np.array_equal(
        bundle_22.codec.encode(pixels), bundle_22.codec.encode(pixels, np.ones((1, 4, 8, 8), np.float32))
    )
