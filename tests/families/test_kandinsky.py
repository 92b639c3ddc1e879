"""The Kandinsky family on components without networks: what goes where, and what its files must say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_components import CHANNELS, METADATA, PORTS, FakeEngine

from chashka import families, images
from chashka.diffusion import Flow, Table
from chashka.errors import InputError, WeightsError
from chashka.families import EngineChoice
from chashka.families.kandinsky import FAMILY, TEACUP, opening
from chashka.families.kandinsky.opening import open_teacup
from chashka.families.latents import LatentCodec, stored_preview
from chashka.families.teacups import VOCABULARY, stored_schedule
from chashka.generate import draw
from chashka.prompts import Vocabulary
from chashka.request import Inputs


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    monkeypatch.setattr(opening, "open_engine", lambda *_: made)
    return made


@pytest.fixture
def bundle(engine: FakeEngine) -> families.Bundle:
    return open_teacup(TEACUP, EngineChoice())


def test_the_bundle_is_what_the_files_say(bundle: families.Bundle) -> None:
    assert bundle.model == families.DEFAULT == "kandinsky-teacup"
    assert bundle.defaults == {"steps": 6, "guidance_scale": 2.0, "sampler": "dpmpp_2m"}
    assert bundle.denoiser.schedule == Flow(shift=0.5)
    assert bundle.denoiser.prediction == "flow"
    assert (bundle.codec.factor, bundle.codec.channels) == (16, CHANNELS)
    request = bundle.request(prompt="чашка")
    assert (request.steps, request.guidance_scale, request.sampler) == (6, 2.0, "dpmpp_2m")


def test_a_run_from_text_to_pictures(bundle: families.Bundle, engine: FakeEngine) -> None:
    pictures = draw(bundle, bundle.request(prompt="чашка на столе", negative_prompt="кот", seed=1, n=3))
    assert [p.size for p in pictures] == [(256, 256)] * 3
    calls = engine.graphs["unet"].calls
    assert len(calls) == 6
    for call in calls:
        assert call["x"].shape == (6, CHANNELS, 16, 16)
        assert call["tokens"].shape == (6, 32, 256) and call["added"].shape == (6, 256)
        # rows: the prompt for every picture, then the negative prompt for every picture
        assert np.array_equal(call["tokens"][0], call["tokens"][2])
        assert np.array_equal(call["tokens"][3], call["tokens"][5])
        assert not np.array_equal(call["tokens"][0], call["tokens"][3])
        assert 0 < call["t"][0] <= 1000
    assert len(engine.graphs["text_contrastive"].calls) == 1


def test_texts_are_padded_to_blocks_of_16_as_in_training(bundle: families.Bundle, engine: FakeEngine) -> None:
    for text, length in (("чашка", 16), ("чашка " * 9, 16), ("абвгд еёжзи " * 30, 32)):
        bundle.text.encode([text, ""])
        call = engine.graphs["text_contrastive"].calls[-1]
        assert call["ids"].shape == call["mask"].shape == (2, length)
        assert call["mask"][1].sum() == 2  # the empty text: beginning and end
        assert np.array_equal(call["ids"] > 0, call["mask"] > 0)


def test_the_meter_counts_what_is_read(bundle: families.Bundle) -> None:
    vocabulary = Vocabulary.load(TEACUP.folder.parent / "vocabulary.tsv")
    text = "космос внутри чайной чашки " * 12
    meter = bundle.text.meter(text)
    assert meter.limit == meter.used == 30
    assert meter.used + meter.cut == vocabulary.encode(text, 10_000).used
    (picture,) = draw(bundle, bundle.request(prompt=text, seed=1, steps=1))
    assert any(str(meter.used + meter.cut) in note for note in picture.notes)


def test_the_codec_scales_and_keeps_the_mean(bundle: families.Bundle, engine: FakeEngine) -> None:
    pixels = images.to_network(np.full((1, 64, 128, 4), 255, np.uint8))
    x = bundle.codec.encode(pixels)
    assert x.shape == (1, CHANNELS, 4, 8)
    assert x[0, :4] == pytest.approx(0.5)
    assert np.allclose(bundle.codec.decode(x), pixels)
    assert engine.graphs["decoder"].calls[-1]["latents"][0, :4] == pytest.approx(1.0)


def test_a_preview_is_small_and_looks_like_the_picture(bundle: families.Bundle, engine: FakeEngine) -> None:
    x = np.random.default_rng(1).uniform(-0.4, 0.4, (2, CHANNELS, 16, 16)).astype(np.float32)
    preview = bundle.codec.preview(x)
    assert preview.shape == (2, 4, 16, 16)
    assert np.abs(preview - x[:, :4] * 2).max() < 0.1
    before = len(engine.graphs["decoder"].calls)
    bundle.codec.preview(x)
    assert len(engine.graphs["decoder"].calls) == before


def test_a_preview_needs_no_decoding_where_the_file_has_its_map() -> None:
    def never(_: Any) -> Any:
        raise AssertionError("decoded for a preview")

    rows = np.zeros((4, CHANNELS + 1))
    rows[:, -1] = (-1, 0, 0.5, 2)
    stored = stored_preview({"preview": json.dumps(rows.tolist())}, CHANNELS)
    preview = LatentCodec(never, never, 1.0, CHANNELS, stored).preview(np.ones((1, CHANNELS, 2, 3), np.float32))
    assert preview[0, :, 0, 0].tolist() == [-1, 0, 0.5, 1]
    assert stored_preview({}, CHANNELS) is None
    assert stored_preview({"preview": "[[1, 2]]"}, CHANNELS) is None


def test_inpainting_keeps_latents_outside_the_mask(bundle: families.Bundle) -> None:
    init = np.full((256, 256, 4), 255, np.uint8)
    mask = np.zeros((256, 256), np.float32)
    mask[:, 128:] = 1
    seen = []
    draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(init, mask), lambda p: seen.append(p.step.denoised))
    known = bundle.codec.encode(images.to_network(init)[None])
    assert all(np.allclose(d[..., :8], known[..., :8]) for d in seen)
    assert not np.allclose(seen[-1][..., 8:], known[..., 8:])


def test_an_upscaler_is_opened_when_it_is_asked_for(engine: FakeEngine, tmp_path: Path) -> None:
    assert open_teacup(replace(TEACUP, folder=tmp_path), EngineChoice()).upscaler is None  # no such file
    (tmp_path / "upscaler.safetensors").touch()
    bundle = open_teacup(replace(TEACUP, folder=tmp_path), EngineChoice())
    assert bundle.upscaler is not None and "upscaler" not in engine.graphs
    assert bundle.upscaler.reach == 8
    first = engine.graphs["upscaler"]
    assert bundle.upscaler.enlarge(np.zeros((1, 4, 8, 16), np.float32)).shape == (1, 4, 16, 32)
    assert engine.graphs["upscaler"] is first and len(first.calls) == 1


def inpainting_engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    metadata = {name: dict(values) for name, values in METADATA.items()}
    metadata["unet"]["config"] = json.dumps({"in_channels": 2 * CHANNELS + 1})
    made = FakeEngine(metadata)
    monkeypatch.setattr(opening, "open_engine", lambda *_: made)
    return made


def test_an_inpainting_network_sees_the_mask_and_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = inpainting_engine(monkeypatch)
    bundle = open_teacup(TEACUP, EngineChoice())
    assert bundle.masked and bundle.codec.channels == CHANNELS
    init = np.random.default_rng(0).integers(0, 256, (256, 256, 4), dtype=np.uint8)
    mask = np.zeros((256, 256), np.float32)
    mask[:, 120:] = 0.5
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(init, mask))
    known = bundle.codec.encode(images.to_network(init)[None])
    calls = engine.graphs["unet"].calls
    assert len(calls) == 6
    for call in calls:
        x, seen, kept = np.split(call["x"], [CHANNELS, CHANNELS + 1], axis=1)
        assert x.shape == kept.shape == (2, CHANNELS, 16, 16)
        # a cell is drawn anew as a whole if any of its pixels is, however faintly
        assert np.array_equal(seen, np.broadcast_to(np.arange(16) >= 7, (2, 1, 16, 16)))
        assert np.allclose(kept[..., :7], known[..., :7]) and not kept[..., 7:].any()
    assert np.array_equal(picture.pixels[:, :120], init[:, :120]), "what is kept is kept exactly"
    assert not np.array_equal(picture.pixels[:, 120:], init[:, 120:])


def test_the_guide_lacks_the_blocks_that_a_network_can_drop(
    monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    monkeypatch.setitem(PORTS, "unet", (("x", "t", "tokens", "added", "keep"), ("out",)))
    bundle = open_teacup(TEACUP, EngineChoice())
    assert bundle.weakened
    draw(bundle, bundle.request(prompt="кот", seed=1, n=2))
    assert [call["keep"].tolist() for call in engine.graphs["unet"].calls] == [[1, 1, 0, 0]] * 6
    engine.graphs["unet"].calls.clear()
    draw(bundle, bundle.request(prompt="кот", seed=1, guidance_scale=1))
    assert [call["keep"].tolist() for call in engine.graphs["unet"].calls] == [[1]] * 6


def test_an_inpainting_network_draws_from_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = inpainting_engine(monkeypatch)
    bundle = open_teacup(TEACUP, EngineChoice())
    plain = families.Bundle(**{f: getattr(bundle, f) for f in bundle.__dataclass_fields__} | {"masked": False})
    fields = {"prompt": "кот", "seed": 1, "n": 2, "width": 384, "height": 192}
    alone = draw(plain, bundle.request(**fields))
    engine.graphs["unet"].calls.clear()
    pictures = draw(bundle, bundle.request(**fields))
    for call in engine.graphs["unet"].calls:
        assert call["x"].shape[1:] == (2 * CHANNELS + 1, 12, 24)
        assert (call["x"][:, CHANNELS] == 1).all() and not call["x"][:, CHANNELS + 1 :].any()
    # the fake looks at x alone: nothing else may differ
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(alone, pictures, strict=True))
    (started,) = draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(np.zeros((256, 256, 4), np.uint8)))
    assert started.edited and (engine.graphs["unet"].calls[-1]["x"][:, CHANNELS] == 1).all()


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("unet", "config", '{"in_channels": 17}', "unet takes 17 channels, the decoder 16; expected 16, or 33"),
        ("decoder", "latent_scale", "0.25", "different latent scales"),
        ("encoder", "latent_scale", None, "encoder says nothing about its latent_scale"),
        ("unet", "prediction", None, "unet says nothing about its prediction"),
        ("unet", "schedule", '{"kind": "spiral"}', "'spiral' is unknown"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, part: str, key: str, value: str | None, words: str
) -> None:
    metadata = {name: dict(values) for name, values in METADATA.items()}
    if value is None:
        del metadata[part][key]
    else:
        metadata[part][key] = value
    monkeypatch.setattr(opening, "open_engine", lambda *_: FakeEngine(metadata))
    with pytest.raises(WeightsError, match=words) as caught:
        open_teacup(TEACUP, EngineChoice())
    assert "\n" not in str(caught.value)


def test_schedules_by_their_stored_names() -> None:
    here = Path()
    assert stored_schedule({"kind": "flow"}, here) == Flow()
    assert isinstance(stored_schedule({"kind": "linear"}, here), Table)
    assert isinstance(stored_schedule({"kind": "scaled_linear"}, here), Table)
    assert isinstance(stored_schedule({"kind": "squared_cosine"}, here), Table)


# --- the table of families ----------------------------------------------------------------------------------------------


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(InputError, match=r"model 'dalle' does not exist; use one of kandinsky-teacup"):
        families.find("dalle")
    with pytest.raises(InputError, match=r"family 'disco' does not exist; use one of kandinsky"):
        families.family("disco")


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "пустая папка"
    folder.mkdir()
    preset = replace(TEACUP, folder=folder)
    monkeypatch.setattr(families, "find", lambda *_: (FAMILY, preset))
    with pytest.raises(WeightsError, match=r"unet\.safetensors.*пустая папка.*install"):
        families.load()


def test_every_family_is_declared_in_one_short_file() -> None:
    for _, declaration, preset in families.models():
        assert preset.area > 0 and preset.multiple > 0 and preset.summary and preset.licence
        assert issubclass(declaration.options, families.Request)
        module = families.FAMILIES[declaration.name].partition(":")[0]
        init = Path(str(__import__("sys").modules[module].__file__))
        assert init.name == "__init__.py" and len(init.read_text(encoding="utf-8").splitlines()) <= 150


def test_a_folder_of_exported_components_is_a_model(tmp_path: Path, engine: FakeEngine) -> None:
    folder = tmp_path / "моя модель"
    folder.mkdir()
    for name in TEACUP.files:
        (folder / name).touch()
    bundle = families.load(f"{folder}/")
    assert bundle.model == "kandinsky-моя модель", "the path itself stays out of what pictures tell"
    assert engine.opened == {folder}
    assert families.options(f"{folder}/") is FAMILY.options
    (folder / "unet.xml").unlink()
    with pytest.raises(
        WeightsError, match=r"моя модель.*kandinsky-teacup it lacks unet\.xml; write them with chashka export"
    ):
        families.load(str(folder))
    with pytest.raises(WeightsError, match=r"nowhere': there is no such file or folder"):
        families.load(str(tmp_path / "nowhere"))
    with pytest.raises(
        WeightsError, match=r"kandinsky-teacup it lacks encoder.xml, encoder.safetensors, decoder.xml and 9 more; write"
    ):
        families.load(str(tmp_path))


def test_exported_components_may_bring_their_own_words(tmp_path: Path, engine: FakeEngine) -> None:
    lines = VOCABULARY.read_text("utf-8").splitlines(keepends=True)
    for name in TEACUP.files:
        (tmp_path / name).touch()
    (tmp_path / VOCABULARY.name).write_text("".join(lines[:3]), "utf-8")
    few, all_words = families.load(f"{tmp_path}/"), families.load()
    assert few.text.meter("чашка").used > all_words.text.meter("чашка").used
