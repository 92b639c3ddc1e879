"""Kinds at work: pictures are the very same bytes every time, a job can be stopped, and what goes wrong has a code."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from chashka import enlarge, families, images
from chashka.app import kinds
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import DiedError, Event, Made, Progress, Remark, Task, TaskError
from chashka.app.settings import Settings
from chashka.errors import EngineError
from chashka.families.family import Bundle
from toy_model import ToyCodec, toy_bundle

SETTINGS = Settings(slots=1)
PROMPT = {"prompt": "чашка"}


def check(kind: str, said: dict[str, Any], inputs: dict[str, tuple[int, int]] | None = None) -> dict[str, Any]:
    return kinds.check(kind, said, inputs or {}, SETTINGS).fields


class Opened:
    """``families.load`` that gives the toy, whatever is asked for."""

    def __init__(self, rows: int = 4) -> None:
        self.bundle = toy_bundle(rows=rows)

    def __call__(self, model: str, **options: Any) -> Bundle:
        return self.bundle


@pytest.fixture
def toy() -> InProcess:
    return InProcess(Models(SETTINGS, Opened()))


def never() -> str:
    return ""


def size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def done(
    runner: InProcess, kind: str, said: dict[str, Any], files: dict[str, Path] | None = None, **more: Any
) -> list[Event]:
    sizes = {use: size(file) for use, file in (files or {}).items()}
    return list(runner.run(Task("job", kind, check(kind, said, sizes), files or {}, **more), never))


def made(events: list[Event]) -> list[Made]:
    return [event for event in events if isinstance(event, Made)]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """256x256, a disc on nothing; a file without a suffix, as blobs are."""
    y, x = np.mgrid[:256, :256]
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[(y - 128) ** 2 + (x - 128) ** 2 < 80**2] = (200, 30, 30, 255)
    images.save(images.Labelled(pixels, images.Label("trainedAlgorithmicMedia")), tmp_path / "disc.png")
    return (tmp_path / "disc.png").rename(tmp_path / "blob")


def test_pictures_are_what_the_library_draws(toy: InProcess) -> None:
    from chashka.generate import draw

    events = done(toy, "draw", {"prompt": "a cup", "n": 6, "seed": 7, "negative_prompt": "tea"})
    pictures = made(events)
    assert [one.picture.index for one in pictures] == list(range(6))
    request = families.options()(prompt="a cup", n=6, seed=7, negative_prompt="tea")
    for one, expected in zip(pictures, draw(toy_bundle(), request), strict=True):
        assert hashlib.sha256(one.data).hexdigest() == one.picture.sha256
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.data))), expected.pixels)
        assert one.picture.metadata == images.describe(expected)
        assert max(Image.open(io.BytesIO(one.thumbnail)).size) <= 256
        said = (one.picture.prompt, one.picture.negative_prompt, one.picture.model, one.picture.seed)
        assert said == ("a cup", "tea", "toy-plain", 7)
    steps = [event for event in events if isinstance(event, Progress)]
    assert (steps[-1].done, steps[-1].total) == (16, 16)
    assert [event.done for event in steps] == sorted(event.done for event in steps)
    first = next(event for event in steps if event.previews)
    assert set(first.previews) == {0, 1, 2, 3}
    assert Image.open(io.BytesIO(first.previews[0])).format == "WEBP"


def test_the_same_bytes_every_time(toy: InProcess) -> None:
    said = {"prompt": "a cup", "n": 6, "seed": 7}
    whole = {one.picture.index: one.data for one in made(done(toy, "draw", said))}
    rest = {one.picture.index: one.data for one in made(done(toy, "draw", said, skip=frozenset({0, 1, 2, 3, 5})))}
    assert rest == {4: whole[4]}
    for cautious in (1, 2):
        again = {one.picture.index: one.data for one in made(done(toy, "draw", said, cautious=cautious))}
        assert again == whole


def test_the_last_attempt_decodes_in_tiles_and_says_so() -> None:
    decoded: list[int] = []

    class Small(ToyCodec):
        def decode(self, x: Any) -> Any:
            decoded.append(len(x))
            return super().decode(x)

    class Able(ToyCodec):
        def careful(self) -> Small:
            return Small()

    opened = Opened()
    opened.bundle = replace(opened.bundle, codec=Able())  # type: ignore[arg-type]
    toy = InProcess(Models(SETTINGS, opened))
    said = {"prompt": "a cup", "n": 2, "seed": 7}
    notes = [one.note for one in done(toy, "draw", said, cautious=1) if isinstance(one, Remark)]
    assert not decoded and not any("tiles" in note for note in notes)
    notes = [one.note for one in done(toy, "draw", said, cautious=2) if isinstance(one, Remark)]
    assert decoded == [1, 1] and any("decoded in tiles" in note for note in notes)


def test_choices_are_drawn_as_they_were_made(toy: InProcess) -> None:
    said = {"prompt": "{red|blue|green} cup", "choices": "random", "n": 4, "seed": 3}
    fields = check("draw", said)
    found = made(list(toy.run(Task("job", "draw", fields), never)))
    assert [[one.picture.prompt, one.picture.negative_prompt] for one in found] == fields["prompts"]
    said = {"prompt": "a cup", "negative_prompt": "{tea|milk}", "choices": "all"}
    assert [one.picture.negative_prompt for one in made(done(toy, "draw", said))] == ["tea", "milk"]
    found = made(done(toy, "draw", {"prompt": "{red|blue} cup", "choices": "all", "n": 2}))
    assert [(one.picture.index, one.picture.prompt) for one in found] == [
        (0, "red cup"),
        (1, "red cup"),
        (2, "blue cup"),
        (3, "blue cup"),
    ]


@pytest.mark.parametrize(
    ("kind", "said", "uses"),
    [
        ("edit", {"prompt": "a cup", "strength": 0.5}, ("init",)),
        ("edit", {"prompt": "a cup"}, ("init", "mask")),
        ("vary", {"n": 2}, ("init",)),
        ("mix", {"mix": [{"picture": 0, "weight": 1}, {"picture": 1, "weight": 1}]}, ("picture 0", "picture 1")),
        ("extend", {"left": 64, "prompt": "a cup"}, ("init",)),
        ("extend", {"left": 64}, ("init",)),
        ("upscale", {"by": 4}, ("init",)),
    ],
)
def test_every_kind_gives_pictures(
    toy: InProcess, picture: Path, kind: str, said: dict[str, Any], uses: tuple[str, ...]
) -> None:
    files = dict.fromkeys(uses, picture)
    if "mask" in files:
        files["mask"] = picture.with_name("mask")
        Image.fromarray(np.full((256, 256), 255, np.uint8)).save(files["mask"], "PNG")
    events = done(toy, kind, said, files)
    found = made(events)
    assert len(found) == said.get("n", 1)
    assert (found[0].picture.width, found[0].picture.height) == {"extend": (320, 256), "upscale": (1024, 1024)}.get(
        kind, (256, 256)
    )
    assert any(isinstance(event, Progress) and event.done == event.total > 0 for event in events)


def test_an_enlarged_picture_is_the_librarys(toy: InProcess, picture: Path) -> None:
    (one,) = made(done(toy, "upscale", {"by": 2}, {"init": picture}))
    expected = enlarge.upscale(toy_bundle(), images.read(picture), 2)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.data))), expected)


def test_stopping_within_a_step(toy: InProcess) -> None:
    steps: list[Event] = []
    task = Task("job", "draw", check("draw", {"prompt": "a cup", "n": 8}))
    for event in toy.run(task, lambda: "now" if len(steps) >= 3 else ""):
        steps.append(event)
    assert len(steps) == 3
    events = list(toy.run(task, lambda: "after"))
    assert len(made(events)) == 4  # those that the model draws at once


def test_problems_have_codes(toy: InProcess, picture: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(picture.read_bytes()[:100])
    for kind, fields, files, code in (
        ("edit", {"prompt": "a"}, {"init": torn}, "file"),
        ("draw", {"prompt": "a", "tiling": "x"}, {}, "input"),
    ):
        task = Task("job", kind, check(kind, fields, dict.fromkeys(files, (256, 256))), files)
        with pytest.raises(TaskError) as caught:
            list(toy.run(task, never))
        assert caught.value.problem.code == code and "\n" not in caught.value.problem.message


def test_curves_need_their_extra(toy: InProcess, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vtracer", None)
    with pytest.raises(TaskError) as caught:
        done(toy, "svg", {}, {"init": picture})
    assert caught.value.problem.code == "missing_extra" and "chashka[svg]" in caught.value.problem.message


def test_memory_that_ran_out_is_a_death(picture: Path) -> None:
    class Small(Opened):
        def __call__(self, model: str, **options: Any) -> Bundle:
            raise MemoryError

    class Smaller(Opened):
        def __call__(self, model: str, **options: Any) -> Bundle:
            raise EngineError("openvino failed in unet: std::bad_alloc")

    for opened in (Small(), Smaller()):
        with pytest.raises(DiedError, match=r"memory ran out at [0-9,]+ MB") as caught:
            done(InProcess(Models(SETTINGS, opened)), "draw", PROMPT)
        assert caught.value.problem.code == "out_of_memory"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("server")
    runner = InProcess(Models(replace(SETTINGS, data=folder, cache=folder / "cache")))
    yield runner
    runner.close()


def test_the_embedded_model_draws_the_same_bytes(embedded: InProcess) -> None:
    said = {"prompt": "чашка", "seed": 7, "steps": 2}
    sums = {made(done(embedded, "draw", said))[0].picture.sha256 for _ in range(2)}
    sums.add(made(done(InProcess(Models(replace(SETTINGS, cache=None))), "draw", said))[0].picture.sha256)
    assert len(sums) == 1
    events = done(embedded, "draw", said | {"width": 64, "height": 64})
    assert made(events)[0].picture.width == 64 and any(isinstance(event, Remark) for event in events)


def test_the_embedded_model_enlarges(embedded: InProcess, picture: Path) -> None:
    """A disc comes back as a disc: between the one drawn at the larger size and this is next to nothing."""
    (large,) = made(done(embedded, "upscale", {}, {"init": picture}))
    assert (large.picture.height, large.picture.width) == (512, 512)
    pixels = images.read(large.data)
    y, x = np.mgrid[:512, :512] + 0.5
    disc = (y - 257) ** 2 + (x - 257) ** 2 < 160**2
    assert ((pixels[..., 3] > 127) != disc).mean() < 0.01
    assert np.abs(pixels[300, 256, :3].astype(int) - (200, 30, 30)).max() <= 6


def test_a_model_without_an_upscaler_says_so(
    embedded: InProcess, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chashka.families.stable_diffusion.teacup.open_upscaler", lambda *_: None)
    with pytest.raises(TaskError) as caught:
        done(embedded, "upscale", {"model": "stable_diffusion-teacup"}, {"init": picture})
    assert caught.value.problem.code == "weights" and "has no upscaler" in caught.value.problem.message
