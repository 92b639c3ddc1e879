"""Folders of diffusers whose weights lie in several files: read, known by their content, kept, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stable_folder import tiny_folder
from test_stable_folders import opened, weights

from chashka import families, generate
from chashka.checkpoints import sha256
from chashka.checkpoints.several_files import read_weights
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.cli import main
from chashka.collection import Collection
from chashka.engines import conversion, sums
from chashka.errors import WeightsError
from chashka.evaluation.card import weight_facts
from chashka.families.stable_diffusion import folder as folders
from parts_files import say, split

pytestmark = pytest.mark.torch
STEM = "diffusion_pytorch_model"
FILES = {
    "unet": f"unet/{STEM}.safetensors",
    "autoencoder": f"vae/{STEM}.safetensors",
    "text": "text_encoder/model.safetensors",
}
UNET, VAE, TEXT = FILES.values()
INDEX = f"{UNET}.index.json"
FIRST, SECOND = (f"{STEM}-0000{i}-of-00002.safetensors" for i in (1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Any, Any, Any]]:
    """The folder in single files, and diffusers' and transformers' modules."""
    place = tmp_path_factory.mktemp("folders") / "tiny-sd"
    return place, tiny_folder(place)


@pytest.fixture(scope="module")
def whole(made: tuple[Path, Any]) -> Path:
    return made[0]


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(whole, tmp_path / "tiny-sd")
    return tmp_path / "tiny-sd"


@pytest.fixture
def parts(place: Path) -> Path:
    """The same with the U-Net in two files, the autoencoder in three and the text encoder in two."""
    for name, count in ((UNET, 2), (VAE, 3), (TEXT, 2)):
        split(place / name, count)
    return place


def equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_they_are_read_as_one(parts: Path, whole: Path) -> None:
    found, single = folders.read(parts), folders.read(whole)
    assert {part: file.name for part, file in found.sources.items()} == {
        part: f"{Path(name).name}.index.json" for part, name in FILES.items()
    }
    assert found.parts.unet == single.parts.unet and found.parts.text == single.parts.text
    for part, expected in single.parts.weights.items():
        equal(found.parts.weights[part], expected)


def test_pictures_are_the_same(parts: Path, whole: Path) -> None:
    asked = {"prompt": "a cup", "seed": 3, "steps": 2, "width": 64, "height": 64}
    pictures = []
    for folder in (whole, parts):
        bundle = opened(folder)
        pictures += generate.draw(bundle, bundle.request(**asked))
    assert np.array_equal(pictures[0].pixels, pictures[1].pixels)


def test_a_copy_finds_the_kept_graphs(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    families.load(str(parts), engine="openvino", precision="f32", cache_dir=cache)
    shutil.copytree(parts, tmp_path / "copy")
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("it is there"))
    families.load(str(tmp_path / "copy"), engine="openvino", precision="f32", cache_dir=cache)


def test_its_files_are_shown(parts: Path) -> None:
    facts, faults = weight_facts(families.find(str(parts))[1])
    assert not faults
    found = {str(row["name"]): row for row in facts}
    names = [f"unet/{FIRST}", f"unet/{SECOND}", *(f"vae/{STEM}-0000{i}-of-00003.safetensors" for i in (1, 2, 3))]
    assert sorted(found) == sorted([*names, *(f"text_encoder/model-0000{i}-of-00002.safetensors" for i in (1, 2))])
    for name, row in found.items():
        assert row["precision"] == "fp32" and row["sha256"] == sha256(parts / name), name


@pytest.mark.parametrize("broken", ["vae/another.safetensors", "unet/another.ckpt"])
def test_a_damaged_file_beside_them_hides_nothing(parts: Path, broken: str) -> None:
    (parts / broken).write_bytes((parts / f"unet/{FIRST}").read_bytes()[:-100])
    answer = CliRunner().invoke(main, ["models", "show", str(parts), "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [row["name"] for row in told["files"] if row["precision"] == "damaged"] == [broken]
    assert len(told["files"]) == 8 and Path(broken).name in told["notes"][0], told["notes"]


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_what_diffusers_writes_is_read(made: Any, variant: str | None, safe: bool, place: Path) -> None:
    """Its own indices, and its own names of parts and variants."""
    _, (unet, vae, text) = made
    for part in ("unet", "vae", "text_encoder"):
        for file in (place / part).glob("*model*"):
            file.unlink()
    for module, part in ((unet, "unet"), (vae, "vae")):
        module.save_pretrained(place / part, max_shard_size="150KB", variant=variant, safe_serialization=safe)
    text.save_pretrained(place / "text_encoder", max_shard_size="1MB", variant=variant)
    kind, more = "safetensors" if safe else "bin", f".{variant}" if variant else ""
    found = folders.read(place)
    assert {part: file.name for part, file in found.sources.items()} == {
        "unet": f"{STEM}.{kind}.index{more}.json",
        "autoencoder": f"{STEM}.{kind}.index{more}.json",
        "text": f"model.safetensors.index{more}.json",
    }
    for module, file in (
        (unet, found.sources["unet"]),
        (vae, found.sources["autoencoder"]),
        (text, found.sources["text"]),
    ):
        equal(read_weights(file), {name: value.numpy() for name, value in module.state_dict().items()})
    families.at(place)[1].look()


def test_what_diffusers_wrote_at_first_is_read(place: Path, whole: Path) -> None:
    """The variant behind the number, and before the word index."""
    index = split(place / UNET)
    for file in sorted(index.parent.glob("*.safetensors")):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    index.write_text(index.read_text().replace(".safetensors", ".fp16.safetensors"))
    index = index.rename(index.with_name(f"{STEM}.safetensors.fp16.index.json"))
    found = folders.read(place)
    assert found.sources["unet"] == index
    equal(found.parts.weights["unet"], folders.read(whole).parts.weights["unet"])


def test_which_of_several_is_taken(place: Path) -> None:
    """A single plain file, then a plain index, then the only variant."""
    whole = (place / UNET).read_bytes()
    variant = split(place / UNET, variant="fp16")
    assert folders.read(place).sources["unet"] == variant
    (place / UNET).write_bytes(whole)
    plain = split(place / UNET, 3)
    assert folders.read(place).sources["unet"] == plain
    (place / UNET).write_bytes(whole)
    assert folders.read(place).sources["unet"] == place / UNET
    (place / UNET).rename(place / "unet" / f"{STEM}.non_ema.safetensors")
    plain.unlink()
    message = (
        rf"unet: several files of weights, {STEM}\.non_ema\.safetensors, .*index\.fp16\.json, and none .* plain one"
    )
    with pytest.raises(WeightsError, match=message):
        families.find(str(place))


def test_an_index_without_any_of_its_parts_is_passed_over(place: Path) -> None:
    """Small files are downloaded all, weights are not."""
    (place / UNET).rename(place / "unet" / f"{STEM}.fp16.safetensors")
    shutil.copy(place / "unet" / f"{STEM}.fp16.safetensors", place / UNET)
    plain = split(place / UNET)
    for file in plain.parent.glob("*-of-*"):
        file.unlink()
    assert folders.read(place).sources["unet"].name == f"{STEM}.fp16.safetensors"
    kept = Collection(place.parent / "models").add(place)
    sums.learn(place.parent / "cache", {kept.folder / name: digest for name, digest in kept.files.items()})
    (place / "unet" / f"{STEM}.fp16.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=rf"unet: .*in 2 files; missing are {FIRST}, {SECOND}; found is none of them"
    ):
        families.find(str(place))


def test_parts_without_their_index_are_told(place: Path) -> None:
    split(place / UNET, variant="fp16").unlink()
    message = rf"unet: its weights are in several files, {STEM}\.fp16-00001-.*, without {STEM}\.safetensors\.index\.fp16\.json"
    with pytest.raises(WeightsError, match=message):
        families.find(str(place))


def gone(place: Path) -> None:
    (place / "unet" / SECOND).unlink()


def cut(place: Path) -> None:
    file = place / "unet" / SECOND
    file.write_bytes(file.read_bytes()[:-9])


def outside(place: Path) -> None:
    (place / "unet" / SECOND).rename(place.parent / SECOND)
    index = place / INDEX
    index.write_text(index.read_text().replace(SECOND, f"../../{SECOND}"))


def elsewhere(place: Path) -> None:
    say(place / INDEX, conv_in__bias=SECOND)


BROKEN = pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (gone, rf"unet: .*index\.json says that its weights are in 2 files; missing is {SECOND}; found is {FIRST}\."),
        (cut, rf"unet/{SECOND} is damaged .* bytes long, its header says"),
        (
            outside,
            rf"refused: it says that '.*' is in '\.\./\.\./{SECOND}'; allowed: names of \.safetensors files in its own",
        ),
        (elsewhere, rf"says that conv_in\.bias is in {SECOND}, which does not hold it; conv_in\.bias is in {FIRST}"),
    ],
)


@BROKEN
def test_what_is_broken_is_one_error(breaking: Any, message: str, place: Path) -> None:
    split(place / UNET)
    breaking(place)
    collection = Collection(place.parent / "models")
    for use in (lambda: families.find(str(place)), lambda: opened(place), lambda: collection.add(place)):
        with pytest.raises(WeightsError, match=message) as problem:
            use()
        assert "\n" not in str(problem.value)
    assert not collection.folder.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"mid_block.extra.weight": np.zeros(3, np.float32)}), r"mid_block\.extra\.weight: a U-Net of 1\.x"),
        (lambda t: t.pop("mid_block.resnets.0.conv1.weight"), r"unet.*index\.json does not fit UNet: 1 missing: middle_block\.0\."),
    ],
)  # fmt: skip
def test_weights_without_a_place_and_missing_ones_are_named(change: Any, message: str, place: Path) -> None:
    weights(place, UNET, change)
    split(place / UNET)
    with pytest.raises(WeightsError, match=message):
        opened(place)


def test_torchs_parts_are_looked_into_when_they_are_added(place: Path) -> None:
    state = {name: torch.from_numpy(np.array(value)) for name, value in read_checkpoint(place / UNET).items()}
    (place / UNET).unlink()
    index = place / "unet" / f"{STEM}.bin.index.json"
    torch.save(state, index.with_name("a.bin"))
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*state, "more.weight"], "a.bin")}))
    families.find(str(place))
    message = r"says that more\.weight is in a\.bin, which does not hold it; no other file of its does"
    for use in (Collection(place.parent / "models").add, opened):
        with pytest.raises(WeightsError, match=message):
            use(place)


def test_what_was_added_has_a_name_and_its_parts_once(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from chashka.cli.models import models
    from chashka.cli.places import cache_dir

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where = ["--models", str(tmp_path / "models")]
    added = CliRunner().invoke(models, ["add", str(parts), "--copy", *where])
    assert added.exit_code == 0, added.output
    for file in (FIRST, SECOND):
        assert f"{sha256(parts / 'unet' / file)}  unet/{file}" in added.output
    assert f"  unet/{STEM}.safetensors.index.json" in added.output
    shown = CliRunner().invoke(models, ["show", "tiny-sd", *where])
    assert shown.exit_code == 0 and "missing" not in shown.output
    assert "tiny-sd  ready" in CliRunner().invoke(models, ["list", *where]).output
    kept = Collection(tmp_path / "models").get("tiny-sd")
    equal(folders.read(kept.place).parts.weights["unet"], folders.read(parts).parts.weights["unet"])
    expected = sums.content_of(parts / INDEX, tmp_path / "another")
    monkeypatch.setattr(sums, "sha256", lambda _: pytest.fail("it was computed when it was added"))
    assert sums.content_of(kept.folder / INDEX, cache_dir()) == expected
    assert Collection(tmp_path / "models").add(parts) == kept
    gone = CliRunner().invoke(models, ["remove", "tiny-sd", *where])
    assert gone.exit_code == 0 and f"{kept_size(parts) / 1e6:.1f} MB set free" in gone.output
    assert not list((tmp_path / "models" / ".files").iterdir())


def kept_size(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def test_the_content_is_that_of_the_parts(parts: Path, tmp_path: Path) -> None:
    cache, index = tmp_path / "cache", parts / INDEX
    digest = sums.content_of(index, cache)
    lines = sorted(sha256(parts / "unet" / file) for file in (FIRST, SECOND))
    assert digest == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    told = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": dict(reversed(told["weight_map"].items()))}))
    assert sums.content_of(index, cache) == digest
    state, without = sums.state_of(index), sums.content_of(index, None)
    part = parts / "unet" / SECOND
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert sums.content_of(index, cache) != digest and sums.state_of(index) != state
    assert sums.content_of(index, None) != without
    part.unlink()
    with pytest.raises(WeightsError, match=rf"cannot read .*{SECOND}"):
        sums.state_of(index)


def test_a_part_that_was_exchanged_is_not_mixed_in(parts: Path) -> None:
    bundle = opened(parts)
    asked = {"prompt": "a cup", "seed": 1, "steps": 1, "width": 64, "height": 64}
    generate.draw(bundle, bundle.request(**asked, clip_skip=2))
    part = next((parts / "text_encoder").glob("*-00002-of-00002.*"))
    whole = part.read_bytes()
    part.unlink()
    part.write_bytes(whole)
    bundle = opened(parts)
    part.unlink()
    part.write_bytes(whole)
    with pytest.raises(WeightsError, match=r"index\.json was changed since the model was opened; open it again"):
        generate.draw(bundle, bundle.request(**asked, clip_skip=2))


def test_an_autoencoder_in_several_files_can_stand_in(parts: Path, whole: Path, tmp_path: Path) -> None:
    for vae in (parts, parts / "vae"):
        bundle = families.load(str(whole), engine="torch", vae=vae)
        assert bundle.vae == vae
    collection = Collection(tmp_path / "models")
    kept = collection.add(parts / "vae", "soft")
    assert kept.kind == "vae" and len(kept.files) == 5
    families.load(str(whole), engine="torch", vae=kept.place)
    next((parts / "vae").glob("*-00003-of-00003.*")).unlink()
    with pytest.raises(WeightsError, match=r"missing is .*-00003-of-00003\.safetensors; found are "):
        collection.add(parts / "vae", "hard")
