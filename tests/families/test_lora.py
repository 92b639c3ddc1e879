"""LoRA: both kinds of names on diffusers' own modules, several at once, both engines, tags in prompts, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from lora_files import ALPHA, NAMES, RANK, Halves, diffusers, halves, kohya
from stable_folder import tiny_folder

from chashka import adapters, families, generate
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Made, Progress, Task
from chashka.app.kinds.drawing import run_draw
from chashka.app.settings import Settings
from chashka.checkpoints import lora, write
from chashka.cli import main
from chashka.errors import InputError, WeightsError
from chashka.families import Weight
from chashka.images import read
from chashka.prompts import clip_words

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    folder = tmp_path_factory.mktemp("lora") / "tiny-sd"
    unet, _, text = tiny_folder(folder)
    return folder, unet, text


def theirs(tiny: tuple[Path, Any, Any], made: dict[tuple[str, str], Halves], scale: float) -> tuple[Any, Any]:
    """What diffusers' modules say with the products in their weights, which are as they were afterwards."""
    _, unet, text = tiny
    modules = {"unet": unet, "text": text}
    before = {part: {k: v.clone() for k, v in module.state_dict().items()} for part, module in modules.items()}
    with torch.no_grad():
        for (part, name), (down, up) in made.items():
            there = dict(modules[part].named_modules())
            weight = (there.get(name) or there[name.removeprefix("text_model.")]).weight
            product = np.tensordot(up.reshape(up.shape[0], RANK), down, 1)
            weight += scale * torch.from_numpy(product)
        ids = torch.from_numpy(clip_words.encode_batch(["a cup", ""], clip_words.END)[0])
        said = text(ids).last_hidden_state
        x, t = example()
        out = unet(torch.from_numpy(x), torch.from_numpy(t), said).sample
    for part, module in modules.items():
        module.load_state_dict(before[part])
    return said.numpy(), out.numpy()


def example() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32), np.array([10.0, 10.0], np.float32)


def ours(
    folder: Path, changes: list[tuple[Path, float]], engine: str = "torch", cache: Path | None = None
) -> tuple[Any, Any]:
    bundle = families.load(str(folder), engine=engine, precision="f32", loras=changes, cache_dir=cache)
    said = bundle.text.encode(["a cup", ""])
    return said["tokens"], bundle.denoiser.network(*example(), said)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("names", NAMES)
def test_every_name_goes_where_diffusers_has_it(tiny: tuple[Path, Any, Any], names: str, tmp_path: Path) -> None:
    made = halves({"unet": tiny[1], "text": tiny[2]}, 3)
    # all of attention and its neighbours, in both parts: nothing that a LoRA names may have been left out
    assert {name.rsplit(".", 1)[-1] for _, name in made} >= {"to_q", "conv1", "q_proj", "fc2", "proj_in", "conv_in"}
    as_file, scale = NAMES[names]
    write(tmp_path / "some.safetensors", as_file(made), {})
    said, out = ours(tiny[0], [(tmp_path / "some.safetensors", 0.5)])
    said_there, out_there = theirs(tiny, made, 0.5 * scale)
    assert relative(said, said_there) < 1e-5
    assert relative(out, out_there) < 1e-5
    plain = ours(tiny[0], [])
    assert relative(plain[0], said_there) > 1e-2
    assert relative(plain[1], out_there) > 1e-2


def test_several_add_up_on_both_engines(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    """A kept graph is never taken for one with other changes."""
    files = []
    for seed in (3, 4):
        files.append(tmp_path / f"{seed}.safetensors")
        write(files[-1], kohya(halves({"unet": tiny[1], "text": tiny[2]}, seed)), {})
    one, both = [(files[0], 0.5)], [(files[0], 0.5), (files[1], -0.25)]
    seen = []
    for changes in ([], one, both, one):
        torchs = ours(tiny[0], changes)
        openvinos = ours(tiny[0], changes, "openvino", tmp_path / "cache")
        assert relative(openvinos[1], torchs[1]) < 5e-3  # kept graphs have float16 weights
        seen.append(torchs[1])
    assert np.array_equal(seen[1], seen[3])
    assert relative(seen[1], seen[2]) > 1e-2
    write(
        files[1],
        {k: v if ".alpha" in k else np.zeros_like(v) for k, v in kohya(halves({"unet": tiny[1]}, 4)).items()},
        {},
    )
    assert np.array_equal(ours(tiny[0], both)[1], seen[1])


def test_a_new_text_encoder_is_seen(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    """Of a folder, each file says for itself whether its kept graph is still its own."""
    folder = tmp_path / "tiny-sd"
    shutil.copytree(tiny[0], folder)
    before = ours(folder, [], "openvino", tmp_path / "cache")[0]
    with torch.no_grad():
        for weight in tiny[2].parameters():
            weight *= 1.5
    tiny[2].save_pretrained(folder / "text_encoder")
    tiny[2].load_state_dict(type(tiny[2]).from_pretrained(tiny[0] / "text_encoder").state_dict())
    assert relative(ours(folder, [], "openvino", tmp_path / "cache")[0], before) > 0.1


def spoiled(made: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    first = next(iter(made))
    if how == "half":
        return {name: value for name, value in made.items() if name != first.replace("down", "up")}
    if how == "unknown":
        return made | {name.replace("unet", "unet_extra"): value for name, value in list(made.items())[:3]}
    if how == "shape":
        return made | {first: np.zeros((RANK, *[2 * n for n in made[first].shape[1:]]), np.float32)}
    if how in ("dora", "loha", "third"):
        module = first.removesuffix(".lora_down.weight")
        also = {"dora": "dora_scale", "loha": "hada_w1_a", "third": "lora_mid.weight"}[how]
        return made | {f"{module}.{also}": np.ones((RANK, RANK), np.float32)}
    if how == "of XL":
        return made | {name.replace("lora_unet", "lora_te2"): value for name, value in list(made.items())[:3]}
    if how == "orphan":
        return {name: value for name, value in made.items() if name != first}
    if how == "nan":
        return made | {first: made[first] * np.nan}
    if how == "rank 0":
        return made | {n: made[n][:, :0] if "up" in n else made[n][:0] for n in (first, first.replace("down", "up"))}
    if how in ("no alpha", "nan alpha"):
        value = np.zeros(0) if how == "no alpha" else np.array(np.nan)
        return made | {first.replace("lora_down.weight", "alpha"): value.astype(np.float32)}
    if how == "apart":
        return made | {first: np.zeros((RANK + 1, *made[first].shape[1:]), np.float32)}
    return {"weight": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("half", "has no second half"),
        ("unknown", r"the checkpoint has no lora_unet_extra_\S+: it is a LoRA for another model"),
        (
            "of XL",
            r"lora_te2_\S+ is of a second text encoder, as Stable Diffusion XL has it; supported are LoRAs for 1\.x",
        ),
        ("shape", "it is a LoRA for another model"),
        ("apart", "do not belong together"),
        ("nothing", "is no LoRA"),
        ("dora", r"\.dora_scale belong to no LoRA .*supported are lora_down and lora_up.*not DoRA"),
        ("loha", r"\.hada_w1_a belong to no LoRA"),
        ("third", r"\.lora_mid\.weight belong to no LoRA"),
        ("orphan", r"lora_up\.weight has no second half"),
        ("nan", "holds numbers that are not finite"),
        ("rank 0", "are empty"),
        ("no alpha", r"alpha has the shape \[0\]; expected is one finite number"),
        ("nan alpha", "alpha has nan; expected is one finite number"),
    ],
)
def test_what_does_not_fit_is_told(tiny: tuple[Path, Any, Any], how: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", spoiled(kohya(halves({"unet": tiny[1]}, 3)), how), {})
    with pytest.raises(WeightsError, match=message):
        families.load(str(tiny[0]), engine="torch", loras=[(tmp_path / "a.safetensors", 1.0)])


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_may_stand_in_the_metadata(tiny: tuple[Path, Any, Any], rslora: bool, tmp_path: Path) -> None:
    """diffusers writes PEFT's configuration there, and no tensors."""
    made = halves({"unet": tiny[1]}, 3)
    _, name = next(iter(made))
    said = {
        "unet.r": RANK,
        "unet.lora_alpha": ALPHA,
        "unet.alpha_pattern": {name: 2 * ALPHA},
        "unet.use_rslora": rslora,
    }
    file = tmp_path / "some.safetensors"
    write(file, diffusers(made, ("lora_A", "lora_B")), {lora.METADATA: json.dumps(said)})
    divisor = RANK**0.5 if rslora else RANK
    scales = {change.module: change.scale for change in lora.read(file)}
    assert scales.pop(f"unet.{name}") == pytest.approx(2 * ALPHA / divisor)
    assert set(scales.values()) == {ALPHA / divisor}
    for text, message in (("[]", "is no JSON object"), ('{"unet.lora_alpha": "a"}', "says alpha 'a'")):
        write(file, diffusers(made, ("lora_A", "lora_B")), {lora.METADATA: text})
        with pytest.raises(WeightsError, match=message):
            lora.read(file)


@pytest.mark.parametrize("weight", [11.0, float("inf"), float("nan")])
def test_a_weight_has_limits(tiny: tuple[Path, Any, Any], weight: float, tmp_path: Path) -> None:
    for one in (weight, Weight(unet=weight, text=1.0), Weight(unet=1.0, text=weight)):
        with pytest.raises(
            InputError, match=f"loras: ink: a weight of {weight} is not possible; allowed: a number from -10"
        ):
            families.load(str(tiny[0]), engine="torch", loras=[(tmp_path / "ink.safetensors", one)])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_each_part_has_its_own_weight(tiny: tuple[Path, Any, Any], engine: str, tmp_path: Path) -> None:
    """On the way through kept graphs too: one with another weight is another one."""
    write(tmp_path / "some.safetensors", kohya(halves({"unet": tiny[1], "text": tiny[2]}, 3)), {})

    def parts(*loras: tuple[Path, Any]) -> tuple[Any, Any]:
        bundle = families.load(str(tiny[0]), engine=engine, precision="f32", loras=loras, cache_dir=tmp_path / "cache")
        same = {"tokens": np.ones_like(bundle.text.encode(["a cup", ""])["tokens"])}
        return bundle.text.encode(["a cup", ""])["tokens"], bundle.denoiser.network(*example(), same)

    file = tmp_path / "some.safetensors"
    plain, low, high = parts(), parts((file, 0.25)), parts((file, 0.5))
    assert all(relative(a, b) > 1e-3 for one, two in ((plain, low), (low, high)) for a, b in zip(one, two, strict=True))
    text, unet = parts((file, Weight(unet=0.5, text=0.25)))
    assert np.array_equal(text, low[0])
    assert np.array_equal(unet, high[1])
    text, unet = parts((file, Weight(unet=0.0, text=0.5)))
    assert np.array_equal(text, high[0])
    assert relative(unet, plain[1]) < 1e-5


def shelf(tiny: tuple[Path, Any, Any], models: Path) -> None:
    """Two LoRAs of random numbers, ``ink`` and ``wash``."""
    (models / "loras").mkdir()
    for seed, name in ((3, "ink"), (4, "wash")):
        made = kohya(halves({"unet": tiny[1]}, seed))
        write(models / "loras" / f"{name}.safetensors", {n: 0.2 * v for n, v in made.items()}, {})


def drawn(folder: Path, prompt: str, place: Path, *more: str) -> list[np.ndarray]:
    shared = ["--model", str(folder), "--models", str(place), "--engine", "torch", "--seed", "1", "--steps", "2"]
    (place / "out").mkdir(exist_ok=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
        main(["draw", prompt, *shared, "--size", "64", "--out", str(place / "out"), *more])
    assert not stopped.value.code
    pictures = [read(Path(line)) for line in out.getvalue().splitlines()]
    shutil.rmtree(place / "out")
    return pictures


def test_every_picture_of_a_choice_has_its_own(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    shelf(tiny, tmp_path)
    alone = [drawn(tiny[0], f"a cup {tag}", tmp_path)[0] for tag in ("<lora:ink:1>", "<lora:wash:1>", "")]
    assert not any(np.array_equal(alone[a], alone[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    chosen = drawn(tiny[0], "a cup {<lora:ink:1>|<lora:wash:1>|}", tmp_path, "--choices", "all")
    assert [np.array_equal(a, b) for a, b in zip(alone, chosen, strict=True)] == [True] * 3
    order = drawn(tiny[0], "{a |a  }cup {<lora:ink:1>|<lora:wash:1>}", tmp_path, "--choices", "all")
    assert np.array_equal(order[0], order[2])
    assert np.array_equal(order[1], order[3])
    assert not np.array_equal(order[0], order[1])


def test_jobs_keep_pictures_apart_too(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    shelf(tiny, tmp_path)
    names = ["<lora:ink:1> cup", "<lora:wash:1> cup", "<lora:ink:1> cup"]
    fields = {"prompt": "{a}", "seed": 1, "n": 3, "steps": 2, "width": 64, "height": 64}
    stored = fields | {"choices": "random", "prompts": [[name, ""] for name in names]}
    settings = Settings(model=str(tiny[0]), models=tmp_path, engine="torch")
    used: list[tuple[str, ...]] = []

    class Opening(Models):
        def use(self, model: str, loras: Any = (), *rest: Any) -> Any:
            used.append(tuple(file.stem for file, _ in loras))
            return super().use(model, loras, *rest)

    events = list(run_draw(Task("job", "draw", stored), Opening(settings), lambda: None))
    assert used == [("ink",), ("wash",)]
    made = {event.picture.index: event for event in events if isinstance(event, Made)}
    assert sorted(made) == [0, 1, 2]
    progress = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert progress == [(0, 0), *((done, 6) for done in range(1, 7))]
    used.clear()
    rest = list(run_draw(Task("job", "draw", stored, skip=frozenset({0, 2})), Opening(settings), lambda: None))
    assert used == [("wash",)]
    assert [event.picture.index for event in rest if isinstance(event, Made)] == [1]


def test_a_tag_that_loads_nothing_is_told(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    shelf(tiny, tmp_path)
    said = {"prompt": "a cup <lora:ink:1> <lora:other:1>", "negative_prompt": "a plate <lora:ink:1>"}
    size = {"seed": 1, "steps": 2, "width": 64, "height": 64}
    bundle = families.load(str(tiny[0]), engine="torch", loras=[(tmp_path / "loras" / "ink.safetensors", 1.0)])
    (picture,) = generate.draw(bundle, bundle.request(**said, **size))
    assert picture.notes == (
        "<lora:other> in the prompt was left out: no LoRA of this name is loaded",
        "<lora:ink> in the negative prompt loads nothing: it belongs into the prompt",
    )
    for more in ({}, {"compat": "original"}, {"compat": "diffusers"}):
        clean = bundle.request(prompt="a cup", negative_prompt="a plate", **size, **more)
        tagged = bundle.request(**said, **size, **more)
        pixels = [generate.draw(bundle, request)[0].pixels for request in (clean, tagged)]
        assert np.array_equal(*pixels), "tags are no words"
    wanted = adapters.Wanted([], [], tmp_path, strict=True)
    with pytest.raises(InputError, match=r"negative_prompt: <lora:ink> loads nothing there; write it into the prompt"):
        wanted.of("a cup", said["negative_prompt"], True, "tiny")
    with pytest.raises(InputError, match=r"prompt: <lora:ink>: tiny takes no LoRA"):
        wanted.of("a cup <lora:ink:1>", "", False, "tiny")


def test_what_is_not_done_is_told(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    """Hypernetworks and whatever else has a tag are no words and load nothing; ``dyn=`` would cut a LoRA's rank."""
    shelf(tiny, tmp_path)
    bundle = families.load(str(tiny[0]), engine="torch", loras=[(tmp_path / "loras" / "ink.safetensors", 1.0)])
    size = {"seed": 1, "steps": 2, "width": 64, "height": 64}
    tagged = {"prompt": "a cup <lyco:ink:1:dyn=8> <hypernet:x:1>", "negative_prompt": "<hypernet:y:1>"}
    (picture,) = generate.draw(bundle, bundle.request(**tagged, **size))
    assert picture.notes == (
        "<lyco:ink> in the prompt: 'dyn=8' had no effect: known are a weight, te= and unet=",
        "<hypernet:x> in the prompt loads nothing: of such networks only LoRAs are known",
        "<hypernet:y> in the negative prompt loads nothing: of such networks only LoRAs are known",
    )
    (clean,) = generate.draw(bundle, bundle.request(prompt="a cup", **size))
    assert np.array_equal(picture.pixels, clean.pixels)
    with pytest.raises(InputError, match="<lora:ink>: 'much' is no weight"):
        generate.draw(bundle, bundle.request(prompt="a cup <lora:ink:much>", **size))
    wanted = adapters.Wanted([], [], tmp_path, strict=True)
    for prompt, negative, message in (
        ("<lyco:ink:1:dyn=8>", "", "prompt: <lyco:ink>: 'dyn=8' has no effect; allowed: a weight, te= and unet="),
        ("<hypernet:x:1>", "", "prompt: <hypernet:x> loads nothing; allowed: <lora:NAME:WEIGHT> in the prompt"),
        ("a cup", "<hypernet:x:1>", "negative_prompt: <hypernet:x> loads nothing; allowed: <lora:NAME:WEIGHT>"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            wanted.of(prompt, negative, True, "tiny")


def test_a_model_without_loras_says_so() -> None:
    for model in ("stable_diffusion-teacup", "kandinsky-teacup"):
        bundle = families.load(model)
        (picture,) = generate.draw(bundle, bundle.request(prompt="a cup <lora:ink:1>", seed=1, steps=1))
        assert f"<lora:ink> in the prompt loads nothing: {model} takes no LoRA" in picture.notes


def test_the_embedded_model_takes_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes none"):
        families.load(loras=[(tmp_path / "a.safetensors", 1.0)])


def test_names_are_looked_up(tmp_path: Path) -> None:
    file = tmp_path / "loras" / "styles" / "ink.safetensors"
    file.parent.mkdir(parents=True)
    write(file, {"weight": np.zeros(3, np.float32)}, {})
    given = [("ink", 0.5), (str(file), 1.0), ("styles/ink", 2.0)]
    prompt = "a cup <lora:ink:0.7>, a <lora:wash> cup"
    assert adapters.loras(given, prompt, tmp_path, strict=False) == [
        (file, (0.5, 0.5)),
        (file, (1.0, 1.0)),
        (file, (2.0, 2.0)),
        (file, (0.7, 0.7)),
    ]
    assert adapters.loras([], "<lyco:ink:te=0.2:unet=0.1>", tmp_path, strict=True) == [
        (file, Weight(unet=0.1, text=0.2))
    ]
    with pytest.raises(InputError, match=r"prompt: <lora:wash>: 'much' is no weight"):
        adapters.loras([], "<lora:wash:much>", tmp_path, strict=False)
    with pytest.raises(InputError, match=r"<lora:wash> is not found in .*allowed: ink, styles/ink, or a file"):
        adapters.loras([], prompt, tmp_path, strict=True)
    with pytest.raises(InputError, match="'wash' is neither a file nor a name"):
        adapters.loras([("wash", 1.0)], "", tmp_path, strict=False)
    with pytest.raises(InputError, match="--models is not given"):
        adapters.loras([("wash", 1.0)], "", None, strict=False)
