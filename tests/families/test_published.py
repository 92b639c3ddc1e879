"""The published Kandinsky 2.0 against the original code: texts, whole runs, pictures; and what folders may lack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_folder import SIZES, UNET, write_published

from chashka import families, generate
from chashka.diffusion import SAMPLERS
from chashka.errors import InputError, WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.families.kandinsky import INPAINTING_20, PUBLISHED, encoders
from chashka.families.kandinsky.compat import spread
from chashka.families.kandinsky.published import open_inpainting, open_text
from chashka.families.kandinsky.published_text import PublishedText
from chashka.generate import given, loop
from chashka.request import Inputs
from golden_files import golden

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return dict(np.load(golden("diffusion/k20_pipelines.npz"))) | dict(
        np.load(golden("diffusion/k20_samplers2023.npz"))
    )


@pytest.fixture(scope="module")
def words() -> dict[str, Any]:
    return dict(np.load(golden("nets/k20_text.npz")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("models") / "kandinsky-2.0", inpainting=True)


def tiny(preset: Any, folder: Path | None) -> Any:
    text = preset.name == PUBLISHED.name
    sizes = SIZES if text else replace(SIZES, unet=replace(UNET, in_channels=9))
    opener = open_text if text else open_inpainting
    return replace(preset, folder=folder, open=partial(opener, sizes=sizes))


@pytest.fixture
def bundle(folder: Path, recorded_words: None) -> Bundle:
    preset = tiny(PUBLISHED, folder)
    opened: Bundle = preset.open(preset, EngineChoice("torch"))
    return opened


@pytest.fixture
def recorded_words(monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]) -> None:
    """The recorded runs had a tokenizer's stand-in: one prompt's ids, and those of the empty text."""

    class Recorded:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        def encode(self, texts: Any) -> tuple[Any, Any]:
            rows = [0 if text else 2 for text in texts]
            return words[f"{self.prefix}.ids"][rows], words[f"{self.prefix}.mask"][rows]

        def count(self, text: str) -> int:
            return 8 if text else 2

    monkeypatch.setattr(encoders, "roberta_words", lambda _: Recorded("enc1"))
    monkeypatch.setattr(encoders, "t5_words", lambda _: Recorded("enc2"))


class Replayed:
    """Recorded draws in the order of their calls, in place of ``PictureNoise``."""

    def __init__(self, draws: list[Any], rows: int, posterior: bool) -> None:
        self.draws, self.rows = draws, rows
        self.before = 1 if posterior else 0

    def __call__(self, seeds: Any, shape: Any, first_picture: int = 0) -> Replayed.Stream:
        return Replayed.Stream(self)

    class Stream:
        def __init__(self, owner: Replayed) -> None:
            self.owner = owner

        def start(self) -> Any:
            return self.owner.draws[self.owner.before][: self.owner.rows]

        def __call__(self, step: int, draw: int = 0) -> Any:
            if step < 0:
                assert draw == given.POSTERIOR
                return self.owner.draws[0]
            return self.owner.draws[self.owner.before + 1 + step][: self.owner.rows]


def replayed(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    runs: dict[str, Any],
    run: str,
    inputs: Inputs | None,
    **fields: Any,
) -> tuple[Any, Any, Any]:
    """States in network space, final latents and pictures of a recorded run, by our own loop."""
    draws = [runs[k] for k in sorted(k for k in runs if k.startswith(f"{run}.draw"))]
    rows = runs[f"{run}.trace_x"].shape[1]
    noise = Replayed(draws, rows, inputs is not None)
    for module in (loop, given):
        monkeypatch.setattr(module, "PictureNoise", noise)
    request = bundle.request(prompt="космос внутри чайной чашки", seed=1, n=rows, width=64, height=64, **fields)
    schedule = bundle.denoiser.schedule
    states = []
    decoded: list[Any] = []
    codec = bundle.codec

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(codec, name)

        def decode(self, x: Any) -> Any:
            decoded.append(x)
            return codec.decode(x)

    watched = replace(bundle, codec=Watched())
    pictures = generate.draw(
        watched, request, inputs, on_step=lambda p: states.append(p.step.x * schedule.scale(p.step.sigma))
    )
    return states, decoded[0], np.stack([p.pixels for p in pictures])


def check(runs: dict[str, Any], run: str, states: Any, latents: Any, pixels: Any) -> None:
    trace = runs[f"{run}.trace_x"]
    worst = max(relative(ours, theirs) for ours, theirs in zip(states, trace[1:], strict=False))
    assert worst < 1e-4
    assert relative(latents, runs[f"{run}.latents"]) < 1e-4
    off = np.abs(pixels[..., :3].astype(int) - runs[f"{run}.images"].astype(int))
    assert np.mean(off <= 1) >= 0.999 and (pixels[..., 3] == 255).all()


def relative(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_text_encoders(bundle: Bundle, words: dict[str, Any]) -> None:
    text: Any = bundle.text
    assert isinstance(text, PublishedText)
    (tokens1, pooled1), (tokens2,) = text._first(["чашка", ""]), text._second(["чашка", ""])
    for i, row in enumerate((0, 2)):
        assert relative(tokens1[i], words["enc1.full"][row]) < 1e-5
        assert relative(pooled1[i], words["enc1.pooled"][row]) < 1e-5
        assert relative(tokens2[i], words["enc2.full"][row]) < 1e-5


@pytest.mark.parametrize(
    ("run", "fields"),
    [
        ("t2i_ddim_eta0.01_dyn", {"steps": 10, "guidance_scale": 10, "eta": 0.01}),
        ("t2i_ddim_eta0_clip_75", {"steps": 7, "guidance_scale": 4, "eta": 0.0, "denoised_type": "clip_denoised"}),
        ("t2i_p_dyn90", {"steps": 8, "guidance_scale": 7, "sampler": "p_sampler", "dynamic_threshold_v": 90}),
    ],
)
def test_text_to_picture_of_2022(
    run: str, fields: dict[str, Any], bundle: Bundle, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(runs, run, *replayed(monkeypatch, bundle, runs, run, None, compat="original", **fields))


def test_picture_to_picture_of_2022(bundle: Bundle, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """strength of the original 0.7, which is kept: 1 - 0.7 of chashka's; 6 of 20 steps, and the posterior is sampled."""
    run = "i2i_ddim_s0.7"
    fields = {"steps": 20, "guidance_scale": 7, "eta": 0.05, "strength": 1 - 0.7}
    result = replayed(monkeypatch, bundle, runs, run, Inputs(prepared(runs)), compat="original", **fields)
    assert len(result[0]) == len(runs[f"{run}.trace_x"])
    check(runs, run, *result)


def test_inpainting_of_2022(
    folder: Path, recorded_words: None, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tiny(INPAINTING_20, folder)
    bundle = preset.open(preset, EngineChoice("torch"))
    fields = {"steps": 8, "guidance_scale": 7, "eta": 0.05}
    inputs = Inputs(prepared(runs), 1 - runs["mask_input"])
    check(runs, "inp_ddim", *replayed(monkeypatch, bundle, runs, "inp_ddim", inputs, compat="original", **fields))


@pytest.mark.parametrize(
    ("run", "fields"),
    [
        ("ddim20_eta_ignored", {"steps": 20, "sampler": "ddim", "eta": 0.9}),
        ("plms15", {"steps": 15, "sampler": "plms"}),
    ],
)
def test_the_code_of_2023(
    run: str, fields: dict[str, Any], bundle: Bundle, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, latents, pixels = replayed(monkeypatch, bundle, runs, run, None, compat="2023", guidance_scale=2, **fields)
    assert relative(latents, runs[f"{run}.latents"]) < 1e-4
    off = np.abs(pixels[..., :3].astype(int) - runs[f"{run}.images"].astype(int))
    assert np.mean(off <= 1) >= 0.999


def test_the_masks_spread(runs: dict[str, Any]) -> None:
    kept = runs["mask_input"][::8, ::8]
    assert np.array_equal(1 - spread((kept == 0).astype(np.float32)), runs["mask_prepared"][0, 0])


def prepared(runs: dict[str, Any]) -> Any:
    """What ``prepare_image`` gave, as the picture that it was before it was scaled to [-1, 1]."""
    pixels = np.rint((runs["pil_prepared"][0] + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "p_sampler"])
def test_every_sampler_draws(sampler: str, bundle: Bundle) -> None:
    """Steps as asked (ddim's and plms' spacing is the original's: 7 asked, 8 run), pictures that their neighbours do not change."""
    steps: list[int] = []
    request = bundle.request(
        prompt="кот", negative_prompt="пёс", seed=5, n=2, steps=7, sampler=sampler, width=64, height=64
    )
    both = generate.draw(bundle, request, on_step=lambda p: steps.append(p.step.index))
    assert len(steps) == (8 if sampler in ("ddim", "plms") else 7)
    alone = generate.draw(bundle, request.with_fields(n=1, first=1))[0]
    off = np.abs(both[1].pixels.astype(int) - alone.pixels.astype(int))
    assert off.max() <= 1
    assert np.abs(both[0].pixels.astype(int) - both[1].pixels.astype(int)).max() > 10


@pytest.mark.parametrize("task", ["text", "picture", "mask"])
def test_both_engines_draw_the_same(task: str, folder: Path, recorded_words: None, tmp_path: Path) -> None:
    preset = tiny(PUBLISHED if task != "mask" else INPAINTING_20, folder)
    random = np.random.default_rng(2)
    picture = np.dstack([random.integers(0, 256, (70, 90, 3), np.uint8), np.full((70, 90), 255, np.uint8)])
    white = np.zeros((70, 90), np.float32)
    white[:40] = 1
    inputs = {"text": None, "picture": Inputs(picture), "mask": Inputs(picture, white)}[task]
    drawn = []
    for engine in ("torch", "openvino", "openvino"):  # the second time the conversion is there already
        bundle = preset.open(preset, EngineChoice(engine, precision="f32", cache_dir=tmp_path))
        request = bundle.request(prompt="кот", seed=5, steps=4, guidance_scale=3, width=90, height=70)
        drawn.append(generate.draw(bundle, request, inputs)[0].pixels.astype(int))
    assert drawn[0].shape == (70, 90, 4)
    # OpenVINO's weights are float16; a threshold and four steps make more of that than one call does
    assert np.mean(np.abs(drawn[0] - drawn[1]) <= 2) > 0.99
    assert np.array_equal(drawn[1], drawn[2])
    if task == "mask":
        assert np.array_equal(drawn[0][40:], picture[40:])


def test_our_own_interface_mends_the_mistakes(bundle: Bundle) -> None:
    """Pictures of any size, in batches, with any strength, each by its own percentile."""
    random = np.random.default_rng(1)
    picture = np.dstack([random.integers(0, 256, (90, 140, 3), np.uint8), np.full((90, 140), 255, np.uint8)])
    request = bundle.request(prompt="кот", seed=1, n=2, steps=5, strength=0.01)
    pictures = generate.draw(bundle, request, Inputs(picture))
    assert [p.size for p in pictures] == [(140, 90)] * 2
    whole = generate.draw(bundle, request.with_fields(strength=1.0), Inputs(picture))
    assert not np.array_equal(whole[0].pixels, pictures[0].pixels)
    with pytest.raises(InputError, match=r"strength: 0.01 of 5 steps leaves none"):
        generate.draw(bundle, request.with_fields(compat="original"), Inputs(picture))
    with pytest.raises(InputError, match="cannot mix"):
        generate.draw(bundle, bundle.request(prompt="", seed=1, mix=[{"text": "кот", "weight": 1}]))


def test_pictures_tell_how_they_were_drawn(bundle: Bundle) -> None:
    (picture,) = generate.draw(bundle, bundle.request(prompt="кот", seed=1, steps=2, width=64, height=64))
    assert (picture.model, picture.request.sampler, picture.request.denoised_type) == (
        "kandinsky-2.0",
        "ddim",
        "dynamic_threshold",
    )


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder of links, in which a test may spoil something."""
    place = tmp_path / "kandinsky-2.0"
    for file in folder.rglob("*"):
        if file.is_file():
            target = place / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    return place


def opened(preset: Any, folder: Path) -> Bundle:
    made = tiny(preset, folder)
    result: Bundle = made.open(made, EngineChoice("torch"))
    return result


def spoil(copy: Path, name: str, content: str | bytes | None) -> None:
    (copy / name).unlink()
    if isinstance(content, str):
        (copy / name).write_text(content, encoding="utf-8")
    elif content is not None:
        (copy / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text_encoder2/config.json", None, r"kandinsky-2\.0.*text_encoder2/config\.json; put it there"),
        ("text_encoder1/pytorch_model.bin", None, r"text_encoder1/pytorch_model\.bin; put it there"),
        ("vae.ckpt", None, r"vae\.ckpt; put it there"),
    ],
)
def test_what_is_missing_is_named(copy: Path, name: str, content: None, message: str) -> None:
    spoil(copy, name, content)
    with pytest.raises(WeightsError, match=message):
        families.load("kandinsky-2.0", models=copy.parent)
    with pytest.raises(WeightsError, match=r"kandinsky-2\.0"):
        families.load(f"{copy}/")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vae.ckpt", b"PK\x03\x04 nothing", r"vae\.ckpt.*zip"),
        ("Kandinsky-2-0.pt", b"", r"Kandinsky-2-0\.pt"),
        ("text_encoder1/config.json", '{"hidden_size": 48}', r"pytorch_model\.bin does not fit"),
        ("text_encoder1/config.json", "[]", "is not a table"),
        ("text_encoder2/config.json", '{"d_model": "many"}', r"d_model is 'many'; expected a int"),
        ("text_encoder2/spiece.model", b"nothing", "its tokenizer cannot be read"),
    ],
)
def test_damaged_files_are_named(copy: Path, name: str, content: Any, message: str) -> None:
    spoil(copy, name, content)
    with pytest.raises(WeightsError, match=message):
        opened(PUBLISHED, copy).text.encode(["кот"])


def test_files_of_other_models_are_told(copy: Path, folder: Path, recorded_words: None) -> None:
    (copy / "Kandinsky-2-0.pt").unlink()
    (copy / "Kandinsky-2-0.pt").symlink_to(folder / "Kandinsky-2-0-inpainting.pt")
    with pytest.raises(WeightsError, match=r"is the network for inpainting \(9 channels\); for text to picture"):
        opened(PUBLISHED, copy)
    preset = tiny(PUBLISHED, folder)
    sizes = replace(SIZES, head=replace(SIZES.head, tokens1=48))
    with pytest.raises(WeightsError, match=r"to_model_dim"):
        open_text(preset, EngineChoice("torch"), sizes)


def test_an_encoder_of_another_model_is_told(copy: Path, recorded_words: None) -> None:
    """Consistent in itself, but of another width than the U-Net's file wants: M-CLIP of another picture tower, say."""
    import torch

    weights = torch.load(copy / "text_encoder1" / "pytorch_model.bin", weights_only=True)
    weights["LinearTransformation.weight"] = torch.zeros(32, 40)
    weights["LinearTransformation.bias"] = torch.zeros(32)
    (copy / "text_encoder1" / "pytorch_model.bin").unlink()
    torch.save(weights, copy / "text_encoder1" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"text_encoder1: its outputs have 32 numbers.*wants 24"):
        opened(PUBLISHED, copy).text.encode(["кот"])


def test_odd_counts_of_steps(bundle: Bundle) -> None:
    """Three steps are asked: t = 1, 334, 667; the original's fourth, 1000, does not exist and is dropped."""
    steps: list[int] = []
    request = bundle.request(prompt="кот", seed=1, steps=3, width=64, height=64)
    generate.draw(bundle, request, on_step=lambda p: steps.append(p.total))
    assert steps == [3, 3, 3]


def test_without_a_folder_the_message_says_what_to_do() -> None:
    with pytest.raises(
        WeightsError, match=r"not in the package: put Kandinsky-2-0\.pt.*--models \(or CHASHKA_MODELS\)"
    ):
        families.load("kandinsky-2.0")


def test_safetensors_under_the_same_names(tmp_path: Path, recorded_words: None, bundle: Bundle) -> None:
    folder = write_published(tmp_path / "st", safetensors=True)
    fields = {"prompt": "кот", "seed": 2, "steps": 2, "width": 64, "height": 64}
    other = opened(PUBLISHED, folder)
    first, second = (generate.draw(b, b.request(**fields))[0].pixels for b in (bundle, other))
    assert np.array_equal(first, second)


def test_words_are_cut_at_77_tokens(folder: Path) -> None:
    text = opened(PUBLISHED, folder).text
    assert text.meter("").used == 0
    meter = text.meter("космос внутри чайной чашки " * 30)
    assert meter.limit in (75, 76) and meter.used == meter.limit and meter.cut > 0
    rows = text.encode(["космос", "кот на столе", ""])
    assert rows["tokens"].shape == (3, 154, 48) and rows["added"].shape == (3, 128)
    again = text.encode(["кот на столе"])
    assert np.allclose(again["tokens"][0], rows["tokens"][1], atol=1e-5)


def test_it_is_found_by_its_files(folder: Path) -> None:
    _, preset = families.find(f"{folder}/")
    assert (preset.name, preset.folder) == ("2.0", folder)
    assert families.located("kandinsky-2.0", PUBLISHED, folder.parent).folder == folder
    assert families.located("kandinsky-2.0-inpainting", INPAINTING_20, folder.parent).folder == folder


@pytest.mark.parametrize("task", ["text2img", "img2img", "inpainting"])
def test_the_import_name_of_the_paper_opens_it(
    task: str, folder: Path, recorded_words: None, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in ``cache_dir``; asked for the numbers of 2022."""
    import chashka
    import kandinsky2.opening
    from kandinsky2 import get_kandinsky2

    opened: list[Any] = []

    def load(name: str, *, models: Path, **choice: Any) -> Bundle:
        preset = families.located(name, tiny(families.find(name)[1], None), models)
        opened.append((name, preset.folder, choice))
        return preset.open(preset, EngineChoice("torch"))

    asked: list[Any] = []

    def draw(bundle: Bundle, request: Any, inputs: Any = None, on_step: Any = None) -> Any:
        asked.append((request, inputs))
        return real(bundle, request.with_fields(steps=6), inputs, on_step)

    real = generate.draw
    monkeypatch.setattr(chashka, "load", load, raising=False)
    monkeypatch.setattr(generate, "draw", draw)
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())
    model = get_kandinsky2("cpu", task_type=task, cache_dir=str(folder.parent))
    assert model.published
    picture = Image.fromarray(runs["pil_input"])
    shared: dict[str, Any] = {"num_steps": 50, "progress": False, "seed": 3}
    if task == "text2img":
        images: Any = model.generate_text2img("кот", batch_size=5, h=70, w=100, **shared)
    elif task == "img2img":
        images = model.generate_img2img("кот", picture, strength=0.8, **shared)
        assert asked[0][0].strength == 1 - 0.8
    else:
        mask = np.ones((100, 60), np.float32)
        mask[50:] = 0
        images = model.generate_inpainting("кот", picture, mask, **shared)
        white = asked[0][1].mask
        assert white.shape == (512, 512) and set(np.unique(white)) == {0, 1} and white[:256].max() == 0
    assert asked[0][0].compat == "original" and asked[0][0].sampler == "ddim"
    assert [image.size for image in images] == ([(100, 70)] * 5 if task == "text2img" else [(512, 512)])
    assert opened == [(kandinsky2.opening.NAMES[task].format("2.0"), folder, {"engine": "torch", "device": "cpu"})]


def test_the_papers_picture_is_squeezed_as_in_2022(runs: dict[str, Any]) -> None:
    from kandinsky2.drawing import prepared as squeezed

    assert np.array_equal(np.asarray(squeezed(Image.fromarray(runs["pil_input"]), 64, 64)), prepared(runs)[..., :3])
