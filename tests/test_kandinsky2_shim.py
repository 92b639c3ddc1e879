"""The paper's import name: its listing verbatim, 2022's meaning of every argument."""

from __future__ import annotations

import inspect
import io
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

import chashka
import kandinsky2.opening
from chashka.errors import EngineError, InputError, MissingExtraError, RefusedError
from chashka.request import Inputs
from kandinsky2 import Kandinsky2, get_kandinsky2
from toy_model import toy_bundle

LISTING = """\
from kandinsky2 import get_kandinsky2
model = get_kandinsky2('cuda', task_type='text2img')
images = model.generate_text2img('космосвнутричайнойчашки', batch_size=4, h=512, w=512, num_steps=75,
    denoised_type='dynamic_threshold', dynamic_threshold_v=99.5, sampler='ddim_sampler', ddim_eta=0.01, guidance_scale=10)
images[3]
"""


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The toy model, without CUDA; that it stands in for the published one has been said."""
    calls: list[dict[str, Any]] = []

    def load(**choice: Any) -> Any:
        calls.append(choice)
        if choice.get("engine") == "torch":
            raise EngineError("torch has no CUDA device here")
        return toy_bundle()

    monkeypatch.setattr(chashka, "load", load, raising=False)
    monkeypatch.setattr(kandinsky2.opening, "_warned", {kandinsky2.opening.SMALL})
    monkeypatch.delenv("CHASHKA_MODELS", raising=False)
    return calls


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Inputs | None]]:
    """What reaches ``generate.draw``."""
    from chashka import generate

    calls: list[tuple[Any, Inputs | None]] = []
    real = generate.draw

    def draw(bundle: Any, request: Any, inputs: Inputs | None = None, on_step: Any = None) -> Any:
        calls.append((request, inputs))
        return real(bundle, request.with_fields(steps=2), inputs, on_step)

    monkeypatch.setattr(generate, "draw", draw)
    return calls


def test_the_listing_runs_verbatim(drawn: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())
    names: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        code = compile(LISTING, "listing", "exec")
        for _ in range(2):
            exec(code, names)
    assert len(names["images"]) == 4
    assert all(i.mode == "RGB" and i.size == (512, 512) and isinstance(i, Image.Image) for i in names["images"])
    (warning,) = caught
    assert warning.category is UserWarning and warning.filename == "listing"
    said = str(warning.message)
    for word in ("small model", "kandinsky-2.0", "Kandinsky-2-0.pt", "vae.ckpt", "/tmp/kandinsky2", "CHASHKA_MODELS"):
        assert word in said
    request = drawn[0][0]
    expected = {
        "prompt": "космосвнутричайнойчашки",
        "n": 4,
        "width": 512,
        "height": 512,
        "steps": 75,
        "denoised_type": "dynamic_threshold",
        "dynamic_threshold_v": 99.5,
        "sampler": "ddim",
        "eta": 0.01,
        "guidance_scale": 10,
        "negative_prompt": "",
    }
    assert request.model_dump() | expected == request.model_dump()


def test_signatures_and_defaults_are_those_of_2022() -> None:
    common = {
        "num_steps": 100,
        "guidance_scale": 7,
        "progress": True,
        "dynamic_threshold_v": 99.5,
        "denoised_type": "dynamic_threshold",
        "sampler": "ddim_sampler",
        "ddim_eta": 0.05,
    }
    own = {
        "generate_text2img": (["prompt"], {"batch_size": 1, "h": 512, "w": 512}),
        "generate_img2img": (["prompt", "pil_img"], {"strength": 0.7}),
        "generate_inpainting": (["prompt", "pil_img", "img_mask"], {}),
    }
    for name, (required, more) in own.items():
        parameters = inspect.signature(getattr(Kandinsky2, name)).parameters
        positional = {k: p for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and k != "self"}
        assert [k for k, p in positional.items() if p.default is p.empty] == required
        assert {k: p.default for k, p in positional.items() if p.default is not p.empty} == common | more
    order = list(inspect.signature(Kandinsky2.generate_text2img).parameters)[1:]
    assert order[:10] == (
        [
            "prompt",
            "num_steps",
            "batch_size",
            "guidance_scale",
            "progress",
            "dynamic_threshold_v",
            "denoised_type",
            "h",
            "w",
            "sampler",
        ]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"sampler": "p_sampler"}, {"sampler": "p_sampler", "eta": None}),
        ({"sampler": "plms_sampler"}, {"sampler": "plms", "eta": None}),
        ({"sampler": "ddim_sampler", "ddim_eta": 0.5}, {"sampler": "ddim", "eta": 0.5}),
        ({"denoised_type": "clip_denoised"}, {"denoised_type": "clip_denoised"}),
        ({"denoised_type": "anything"}, {"denoised_type": "none"}),
        ({"num_steps": 30, "guidance_scale": 4}, {"steps": 30, "guidance_scale": 4}),
    ],
)
def test_words_of_2022_in_ours(drawn: list[tuple[Any, Any]], words: dict[str, Any], expected: dict[str, Any]) -> None:
    get_kandinsky2("cpu").generate_text2img("кот", h=64, w=64, **words)
    request = drawn[0][0].model_dump()
    assert request | expected == request


def test_sizes_are_rounded_up_to_64_inside_and_cut_outside(drawn: list[tuple[Any, Any]]) -> None:
    (image,) = get_kandinsky2("cpu").generate_text2img("кот", h=200, w=300)
    assert image.size == (300, 200)
    assert (drawn[0][0].width, drawn[0][0].height) == (320, 256)


def test_strength_is_the_share_that_is_kept(drawn: list[tuple[Any, Any]]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8))
    model = get_kandinsky2("cpu", task_type="img2img")
    for strength, ours in ((0.8, 0.2), (0.7, 0.3), (0, 1), (1, 0)):
        drawn.clear()
        (image,) = model.generate_img2img("кот", picture, strength=strength)
        request, inputs = drawn[0]
        assert request.strength == ours and image.size == (512, 512) and image.mode == "RGB"
        assert inputs is not None and inputs.init.shape == (512, 512, 4) and inputs.mask is None
    with pytest.raises(InputError, match="strength: 2"):
        model.generate_img2img("кот", picture, strength=2)


def test_a_mask_of_ones_keeps(drawn: list[tuple[Any, Any]]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8))
    mask = np.ones((512, 512), np.float32)
    mask[:, 256:] = 0
    (image,) = get_kandinsky2("cpu", task_type="inpainting").generate_inpainting("кот", picture, mask)
    out, before = np.asarray(image), np.asarray(picture)
    assert np.array_equal(out[:, :256], before[:, :256])
    assert not np.array_equal(out[:, 300:], before[:, 300:])
    assert drawn[0][1] is not None and drawn[0][1].mask[0, 0] == 0 and drawn[0][1].mask[0, -1] == 1


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_masks_of_any_number(dtype: Any, drawn: list[tuple[Any, Any]]) -> None:
    """Also smaller than the picture, and of 0 and 255 as pictures have them."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8))
    mask = np.ones((32, 48), dtype)
    mask[:16] = 0
    model = get_kandinsky2("cpu", task_type="inpainting")
    model.generate_inpainting("кот", picture, mask)
    model.generate_inpainting("кот", picture, Image.fromarray(mask.astype(np.uint8) * 255))
    for _, inputs in drawn:
        assert inputs.mask.shape == (32, 48) and inputs.mask[:16].min() == 1 and inputs.mask[16:].max() == 0


@pytest.mark.parametrize(
    "mask", [None, np.ones((2, 2, 3)), np.full((2, 2), np.nan), np.full((2, 2), "x"), np.ones((0, 4))]
)
def test_a_mask_that_is_none_is_refused(mask: Any) -> None:
    with pytest.raises(InputError, match="1 = keep, 0 = repaint"):
        get_kandinsky2("cpu").generate_inpainting("кот", Image.new("RGB", (8, 8)), mask)


def test_keywords_of_other_versions_are_accepted_with_one_warning_each(drawn: list[tuple[Any, Any]]) -> None:
    with pytest.warns(UserWarning) as caught:
        model = get_kandinsky2("cpu", use_flash_attention=True, use_auth_token="x", cache_dir="/x")
        for _ in range(2):
            later = {"prior_cf_scale": 4, "prior_steps": "25", "negative_decoder_prompt": "плохо"}
            model.generate_text2img("кот", h=64, w=64, **later)
        newer = get_kandinsky2("cpu", model_version="2.1")
        newer.generate_text2img("кот", h=64, w=64, ddim_eta=0.1, prior_cf_scale=4)
    told = sorted(str(w.message).split()[0] for w in caught)
    assert told == ["ddim_eta", "prior_cf_scale", "prior_steps"]
    assert {w.filename for w in caught} == {__file__}
    assert drawn[0][0].negative_prompt == "плохо"


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_later_versions_on_the_small_model(version: str, drawn: list[tuple[Any, Any]]) -> None:
    """Their methods and sizes; a prior is what it does not have."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8))
    model = get_kandinsky2("cpu", model_version=version)
    assert type(model).__name__ == f"Kandinsky{version.replace('.', '_')}"
    size = {"h": 70, "w": 100}
    images = [
        *model.generate_text2img("кот", batch_size=2, prior_steps=3, negative_prior_prompt="пёс", **size),
        *model.mix_images(["кот", picture], [0.3, 0.7], **size),
        *model.generate_img2img("кот", picture, strength=0.4, **size),
        *model.generate_inpainting("кот", picture, np.ones((80, 50), np.float32), **size),
    ]
    assert [image.size for image in images] == [(100, 70)] * 5
    asked = [request for request, _ in drawn]
    assert asked[1].mix[0].text == "кот" and asked[1].mix[1].weight == 0.7
    assert asked[2].strength == (0.6 if version == "2.1" else 0.4), "2.1 counts what is kept, 2.2 what is replaced"
    assert drawn[3][1].mask.max() == (0 if version == "2.1" else 1), "and so do their masks"
    assert {request.sampler for request in asked} == {"ddim" if version == "2.1" else "p_sampler"}
    with pytest.raises(InputError, match="2 images and texts with 1 weights"):
        model.mix_images(["a", "b"], [1])


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="Only text2img, img2img and inpainting is available"):
        get_kandinsky2("cpu", task_type="mixing")
    with pytest.raises(ValueError, match=r"Only 2\.0, 2\.1 and 2\.2 is available"):
        get_kandinsky2("cpu", model_version="3")
    with pytest.raises(InputError, match="device: 'tpu'"):
        get_kandinsky2("tpu")
    model = get_kandinsky2("cpu")
    with pytest.raises(TypeError, match="'number_of_steps'"):
        model.generate_text2img("кот", number_of_steps=3)
    with pytest.raises(InputError, match=r"sampler: 'euler' .* p_sampler, ddim_sampler"):
        model.generate_text2img("кот", sampler="euler")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0 "),
        ({"num_steps": 0}, "num_steps: 0 "),
        ({"ddim_eta": -1}, "ddim_eta: -1 "),
        ({"h": 0}, "height: 0 "),
    ],
)
def test_messages_name_the_words_of_the_original(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        get_kandinsky2("cpu").generate_text2img("кот", **words)


@pytest.mark.parametrize("value", [np.zeros((8, 8, 3), np.uint8), "cat.png", None])
def test_what_is_no_picture_is_refused(value: Any) -> None:
    model, newer = get_kandinsky2("cpu", task_type="img2img"), get_kandinsky2("cpu", model_version="2.1")
    with pytest.raises(InputError, match=r"^pil_img: \w+ is not possible; allowed: a PIL image"):
        model.generate_img2img("кот", value)
    with pytest.raises(InputError, match=r"^pil_img: "):
        model.generate_inpainting("кот", value, np.ones((8, 8)))
    if not isinstance(value, str):
        with pytest.raises(InputError, match=r"^images_texts: "):
            newer.mix_images([value], [1])


def test_cuda_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(chashka, "load", lambda **choice: calls.append(choice) or toy_bundle(), raising=False)
    get_kandinsky2("cuda:0")
    assert calls == [{"engine": "torch", "device": "cuda:0"}]


def test_cuda_without_torch_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(**choice: Any) -> Any:
        if choice:
            raise MissingExtraError("torch", "the torch engine")
        return toy_bundle()

    monkeypatch.setattr(chashka, "load", load, raising=False)
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())
    with pytest.warns(UserWarning) as caught:
        assert get_kandinsky2("cuda", model_version="2.2").bundle.model == "toy-plain"
    (warning,) = caught
    assert "small model" in str(warning.message) and "kandinsky-2.2" in str(warning.message)
    assert warning.filename == __file__


def test_what_is_never_drawn_is_refused_here_too() -> None:
    model = get_kandinsky2("cpu")
    with pytest.raises(RefusedError, match="minors"):
        model.generate_text2img("голый ребёнок", num_steps=2, h=64, w=64)


def test_a_seed_of_ours_gives_the_picture_again() -> None:
    model = get_kandinsky2("cpu")
    words: dict[str, Any] = {"num_steps": 2, "h": 64, "w": 64}
    first, second = (model.generate_text2img("кот", seed=3, **words)[0] for _ in range(2))
    other = model.generate_text2img("кот", **words)[0]
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_progress_shows_a_bar_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for progress in (True, False):
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        get_kandinsky2("cpu").generate_text2img("кот", num_steps=3, h=64, w=64, progress=progress)
        assert ("3/3" in shown.getvalue()) == progress
