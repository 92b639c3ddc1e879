"""An autoencoder in place of a checkpoint's own: every kind of file, on diffusers' own module, kept graphs, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_file import VAE, opened, recorded, relative, single_file
from stable_folder import tiny_folder

from chashka import families, generate
from chashka.app import kinds
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Made, Task
from chashka.app.kinds.drawing import run_draw
from chashka.app.settings import Settings
from chashka.checkpoints import write
from chashka.cli import main
from chashka.collection import Collection
from chashka.errors import InputError, WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.images import read, read_metadata
from chashka.nets.autoencoder import DecoderKL, EncoderKL

pytestmark = pytest.mark.torch
PREFIX = "first_stage_model."
PIXELS = np.random.default_rng(1).uniform(-1, 1, (1, 4, 64, 64)).astype(np.float32)
PIXELS[:, 3] = 1
LATENTS = np.random.default_rng(2).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)


def halves(seed: int) -> dict[str, np.ndarray]:
    """A tiny autoencoder by the original names; the checkpoints' own has the seed 41."""
    with torch.device("meta"):
        encoder, decoder = EncoderKL(VAE), DecoderKL(VAE)
    return recorded(encoder, seed) | recorded(decoder, seed)


def said(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    return bundle.codec.encode(PIXELS), bundle.codec.decode(LATENTS)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The checkpoint with the other autoencoder inside, and what that one says."""
    place = tmp_path_factory.mktemp("swapped")
    inside = {f"{PREFIX}{name}": value for name, value in halves(43).items()}
    write(place / "inside.safetensors", single_file("compvis") | inside, {})
    return place / "inside.safetensors", said(opened(place, "inside.safetensors"))


@pytest.fixture(scope="module")
def diffusers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A whole folder of diffusers and its autoencoder's module."""
    place = tmp_path_factory.mktemp("diffusers") / "tiny-sd"
    return place, tiny_folder(place)[1]


def saved(folder: Path, kind: str) -> Path:
    """The other autoencoder as one program or another stores it."""
    plain = halves(43)
    beside = {"loss.logvar": np.zeros((), np.float32), "loss.discriminator.main.0.weight": np.zeros(3, np.float32)}
    beside |= {"model_ema.decay": np.zeros((), np.float32), "model_ema.encoderconv_inweight": np.zeros(3, np.float32)}
    if kind == "bare.safetensors":
        write(folder / kind, plain, {})
    elif kind == "below.safetensors":
        some = plain | {"loss.logvar": beside["loss.logvar"]}
        write(folder / kind, {f"{PREFIX}{name}": value for name, value in some.items()}, {})
    else:
        state = {name: torch.from_numpy(value) for name, value in (plain | beside).items()}
        torch.save({"state_dict": state, "epoch": 3}, folder / kind)
    return folder / kind


@pytest.mark.parametrize("kind", ["bare.safetensors", "below.safetensors", "kl-f8.vae.pt", "kl-f8.ckpt"])
def test_every_naming_is_the_same(checkpoints: Path, swapped: Any, kind: str, tmp_path: Path) -> None:
    bundle = opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=saved(tmp_path, kind)))
    for ours, theirs in zip(said(bundle), swapped[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_whole_checkpoint_lends_its_own(checkpoints: Path, swapped: Any) -> None:
    file, expected = swapped
    bundle = opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=file))
    for ours, theirs in zip(said(bundle), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("which", ["", "vae", "vae/diffusion_pytorch_model.safetensors"])
def test_diffusers_own_module_says_the_same(checkpoints: Path, diffusers: Any, which: str) -> None:
    """Of a whole folder, its autoencoder's folder, and that one's file alone."""
    folder, vae = diffusers
    bundle = opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=folder / which))
    with torch.no_grad():
        latents = 0.18215 * vae.encode(torch.from_numpy(PIXELS[:, :3])).latent_dist.mean.numpy()
        pixels = vae.decode(torch.from_numpy(LATENTS) / 0.18215).sample.numpy()
    ours = said(bundle)
    assert relative(ours[0], latents) < 1e-5 and relative(ours[1][:, :3], pixels) < 1e-5


def test_the_rest_of_the_checkpoint_stays(checkpoints: Path, tmp_path: Path) -> None:
    file = saved(tmp_path, "bare.safetensors")
    own, other = (opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=vae)) for vae in (None, file))
    np.testing.assert_array_equal(*(bundle.text.encode(["a cup"])["tokens"] for bundle in (own, other)))
    first, second = (
        generate.draw(bundle, bundle.request(prompt="a cup", seed=1, steps=2, width=64, height=64))[0].pixels
        for bundle in (own, other)
    )
    assert not np.array_equal(first, second)


def test_kept_graphs_belong_to_their_file(checkpoints: Path, swapped: Any, tmp_path: Path) -> None:
    file = saved(tmp_path, "bare.safetensors")

    def openvino(vae: Path | None) -> Any:
        choice = EngineChoice("openvino", precision="f32", cache_dir=tmp_path / "kept", vae=vae)
        return said(opened(checkpoints, "compvis.safetensors", choice))

    own, other, again = openvino(None), openvino(file), openvino(None)
    for before, after, ours, theirs in zip(own, again, other, swapped[1], strict=True):
        np.testing.assert_array_equal(before, after)
        assert relative(ours, theirs) < 5e-3 < relative(before, theirs)
    (tmp_path / "copy").mkdir()
    shutil.copy(file, tmp_path / "copy" / "other.safetensors")
    folders = sorted((tmp_path / "kept" / "converted").iterdir())
    openvino(tmp_path / "copy" / "other.safetensors")
    assert sorted((tmp_path / "kept" / "converted").iterdir()) == folders


def flux(state: dict[str, np.ndarray]) -> None:
    """As Flux and Stable Diffusion 3 have it: 16 channels of latents, no convolutions around them."""
    for name in [name for name in state if "quant_conv" in name]:
        state.pop(name)
    state["encoder.conv_out.weight"] = np.zeros((32, 64, 3, 3), np.float16)
    state["decoder.conv_in.weight"] = np.zeros((64, 16, 3, 3), np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flux, r"x\.safetensors: its latents have 16 channels; allowed: 4, .* Flux"),
        (lambda s: s.update({"surprise.weight": np.zeros(3, np.float32)}), r"surprise\.weight: an autoencoder of .* has no such"),
        (lambda s: s.update({"decoder.extra.weight": np.zeros(3, np.float32)}), r"does not fit DecoderKL: 1 unexpected"),
        (lambda s: s.pop("encoder.mid.block_1.norm1.weight"), r"x\.safetensors does not fit EncoderKL: 1 missing"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("encoder.")], r"x\.safetensors: a weight is missing"),
        (lambda s: s.pop("decoder.conv_in.weight"), r"x\.safetensors does not fit DecoderKL: 1 missing: decoder\.conv_in\.weight"),
        (lambda s: s.update({"decoder.norm_out.weight": np.zeros(7, np.float32)}), r"norm_out\.weight \(7,\) instead of"),
        (lambda s: s.update({"decoder.conv_out.weight": np.zeros((4, 32, 3, 3), np.float16)}),
         r"out_channels is 4, the checkpoint's own autoencoder has 3: it belongs to another model"),
        (lambda s: (s.clear(), s.update({"lora_unet_a.lora_down.weight": np.zeros((2, 2), np.float32)})),
         r"x\.safetensors is no autoencoder: no encoder\.\* and decoder\.\* in it, but lora_unet_a"),
        (lambda s: s.update({"conditioner.embedders.0.x": np.zeros(3, np.float32)}), r"x\.safetensors is a Stable Diffusion XL"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    checkpoints: Path, change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    state = halves(43)
    change(state)
    write(tmp_path / "x.safetensors", state, {})
    with pytest.raises(WeightsError, match=message) as problem:
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=tmp_path / "x.safetensors"))
    assert "\n" not in str(problem.value)


def test_a_checkpoint_without_one_is_told(checkpoints: Path, tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {n: v for n, v in single_file("compvis").items() if not n.startswith(PREFIX)}, {})
    with pytest.raises(WeightsError, match=r"x\.safetensors is no autoencoder: no encoder\.\* and decoder\.\* in it"):
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=tmp_path / "x.safetensors"))
    with pytest.raises(WeightsError, match=r"the weight file .*nowhere\.pt does not exist"):
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=tmp_path / "nowhere.pt"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scaling_factor": 0.13025}, r"scaling_factor is 0\.13025, the checkpoint's is 0\.18215: .* another model"),
        ({"scaling_factor": 0}, "scaling_factor is 0; allowed: a number above 0"),
        ({"_class_name": "AutoencoderTiny"}, "_class_name is AutoencoderTiny; supported .*: AutoencoderKL"),
        ({"shift_factor": 0.1}, "shift_factor is 0.1"),
        ({"block_out_channels": 5}, r"block_out_channels is 5; allowed: a list of whole numbers"),
    ],
)
def test_what_a_folder_says_counts(
    checkpoints: Path, diffusers: Any, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(diffusers[0] / "vae", folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=folder))
    config.unlink()
    with pytest.raises(
        WeightsError, match=r"vae: a folder of an autoencoder needs config\.json and diffusion_pytorch_model"
    ):
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=folder))


def test_other_pixels_per_latent_are_told(checkpoints: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 32), layers_per_block=1, latent_channels=4,
    ).save_pretrained(tmp_path / "vae")  # fmt: skip
    with pytest.raises(WeightsError, match="factor is 2, the checkpoint's own autoencoder has 8"):
        opened(checkpoints, "compvis.safetensors", EngineChoice("torch", vae=tmp_path / "vae"))


def test_numbers_that_are_not_finite_are_named(checkpoints: Path, tmp_path: Path) -> None:
    state = halves(43)
    state["decoder.conv_out.bias"] = np.full_like(state["decoder.conv_out.bias"], np.nan)
    write(tmp_path / "x.safetensors", state, {})
    bundle = opened_by_name(checkpoints, tmp_path / "x.safetensors")
    request = bundle.request(prompt="a cup", seed=1, steps=1, width=64, height=64)
    with pytest.raises(
        WeightsError, match=r"x\.safetensors: decoder\.conv_out\.bias holds numbers that are not finite"
    ):
        generate.draw(bundle, request)


def opened_by_name(checkpoints: Path, vae: Path) -> Bundle:
    """By the library's own way, with heads that the recorded networks have not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chashka.families.stable_diffusion.layout.HEAD_WIDTH", 16)
        return families.load(str(checkpoints / "compvis.safetensors"), engine="torch", vae=vae)


def test_a_picture_from_the_command_line(diffusers: Any, tmp_path: Path) -> None:
    """A folder by its path, and by the name that it was added under."""
    models = tmp_path / "models"
    other = tmp_path / "soft"
    shutil.copytree(diffusers[0] / "vae", other)
    weights = other / "diffusion_pytorch_model.safetensors"
    write(weights, {name: np.array(value) * np.float32(0.9) for name, value in tensors(weights).items()}, {})
    kept = Collection(models).add(other)
    assert (kept.kind, kept.place) == ("vae", models / "vaes" / "soft")

    def drawn(*more: str) -> np.ndarray:
        where = {"model": diffusers[0], "models": models, "engine": "torch", "out": tmp_path / "x.png"}
        words = [word for name, value in where.items() for word in (f"--{name}", str(value))]
        words = ["draw", "a cup", *words, "--seed", "1", "--steps", "2", "--size", "64", *more]
        with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stopped:
            main(words)
        assert not stopped.value.code
        return read(tmp_path / "x.png")

    own, named, path = drawn(), drawn("--vae", "soft"), drawn("--vae", str(other))
    assert not np.array_equal(own, named) and np.array_equal(named, path)
    stored = read_metadata(tmp_path / "x.png")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert stored is not None and stored["vae"] == {"name": "soft", "sha256": digest}
    assert str(tmp_path) not in json.dumps(stored)


def tensors(file: Path) -> dict[str, np.ndarray]:
    from chashka.checkpoints.torch_file import read_checkpoint

    return read_checkpoint(file)


def test_jobs_name_one_and_models_stay_open_apart(diffusers: Any, tmp_path: Path) -> None:
    (tmp_path / "vaes").mkdir()
    saved(tmp_path / "vaes", "bare.safetensors")
    settings = Settings(model=str(diffusers[0]), models=tmp_path, engine="torch", slots=1)
    models = Models(settings)
    models._base = 2**60  # the room is for what they have on disk, whatever this process holds
    asked = {"prompt": "a cup", "seed": 1, "steps": 1, "width": 64, "height": 64}
    pictures = []
    for vae in (None, "bare", None, "bare"):
        fields = kinds.check("draw", asked | ({"vae": vae} if vae else {}), {}, settings).fields
        assert fields.get("vae") == vae
        events = list(run_draw(Task("job", "draw", fields), models, lambda: None))
        made = [event.picture for event in events if isinstance(event, Made)]
        assert [one.metadata.get("vae", {}).get("name") for one in made] == [vae]
        pictures += [one.sha256 for one in made]
    assert pictures[0] == pictures[2] != pictures[1] == pictures[3]
    assert models.names == [settings.model] * 2
    for wrong, message in ((3, "vae: 3 is not possible"), ("nowhere", "vae: 'nowhere' does not exist; allowed: bare"),
                           ("../vaes/bare", "vae: '../vaes/bare' does not exist")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            kinds.check("draw", asked | {"vae": wrong}, {}, settings)


@pytest.mark.parametrize("model", ["kandinsky-teacup", "stable_diffusion-teacup"])
def test_models_of_the_package_take_none(model: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"vae: '{model}' takes none; checkpoints of Stable Diffusion do"):
        families.load(model, vae=tmp_path / "x.safetensors")
