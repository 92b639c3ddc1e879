"""The composition test end to end: a painter that draws what is asked scores all, a shuffled one next to nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_scene_checks import RGB, maps_of, painted

from chashka import families
from chashka.cli import main
from chashka.errors import InputError
from chashka.evaluation import scene_checks as checks
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.composition import Outcome, check_locales, composition_report, judged, rate, table
from chashka.evaluation.composition_pages import NOT_LEFT_OUT, as_markdown, write_composition
from chashka.evaluation.composition_sheet import FRAME, RIGHT, SIDE, write_composition_sheet
from chashka.evaluation.detections import Box, Float, Maps
from chashka.evaluation.detector import About
from chashka.evaluation.retrieval import Share, retrieved, share
from chashka.evaluation.scene_prompts import COUNTS, TASKS, ScenePrompt, scene_prompts
from toy_model import toy_bundle

ABOUT = About("judge", "0", ("twemoji",), 0.3, 0.5, 10, 1.0, 1.0, 1.0, 1.0)
PLACES: dict[int, tuple[Box, Box]] = {
    checks.LEFT: ((0.05, 0.3, 0.4, 0.7), (0.6, 0.3, 0.95, 0.7)),
    checks.RIGHT: ((0.6, 0.3, 0.95, 0.7), (0.05, 0.3, 0.4, 0.7)),
    checks.ABOVE: ((0.3, 0.05, 0.7, 0.4), (0.3, 0.55, 0.7, 0.95)),
    checks.ON: ((0.3, 0.05, 0.7, 0.5), (0.3, 0.5, 0.7, 0.95)),
    checks.UNDER: ((0.3, 0.55, 0.7, 0.95), (0.3, 0.05, 0.7, 0.4)),
    checks.INSIDE: ((0.35, 0.2, 0.65, 0.65), (0.2, 0.5, 0.8, 0.95)),
    -1: ((0.05, 0.3, 0.4, 0.7), (0.6, 0.3, 0.95, 0.7)),
}


class Painter:
    """Draws and judges at once: what it saw last is what it drew for a prompt, so that the rules alone are tested."""

    about = ABOUT

    def __init__(self) -> None:
        self.maps: list[Maps] = []

    def paint(self, prompt: ScenePrompt) -> Float:
        things = [t for t in prompt.asked.things for _ in range(t.count)]
        spots = [(0.05, 0.05, 0.4, 0.4), (0.6, 0.05, 0.95, 0.4), (0.05, 0.6, 0.4, 0.95), (0.6, 0.6, 0.95, 0.95)]
        boxes = list(PLACES[prompt.asked.relation]) if len(prompt.asked.things) == 2 else spots[: len(things)]
        known = {0: "red", 3: "green", 4: "blue", 10: "grey", -1: "grey"}
        colours = [known.get(t.colour, "red") for t in things]
        pixels = painted(*zip(boxes, colours, strict=True))
        said = [(i, box, 0.9) for i, box in enumerate(boxes)]
        small = maps_of(*said)
        heat = np.zeros((100, *small.heat.shape[1:]), np.float32)
        for i, thing in enumerate(things):
            heat[thing.label] = np.maximum(heat[thing.label], small.heat[min(i, len(small.heat) - 1)])
        self.maps = [Maps(heat, small.box, small.mask)]
        return pixels[None]

    def look(self, pixels: Float) -> list[Maps]:
        return self.maps * len(pixels)


def outcome(prompt: ScenePrompt, good: bool, picture: int = 0) -> Outcome:
    return Outcome(
        prompt.number, prompt.task, "en", "", picture, prompt.triple, prompt.composed, good, good, good, None
    )


def scored(shuffled: bool) -> dict[str, float]:
    paintable = {0, 3, 4, 10, -1}
    prompts = [p for p in scene_prompts("report") if {t.colour for t in p.asked.things} <= paintable]
    painter, rows = Painter(), []
    asked = prompts if not shuffled else [prompts[(i * 7 + 3) % len(prompts)] for i in range(len(prompts))]
    for prompt, wanted in zip(prompts, asked, strict=True):
        pixels = painter.paint(prompt)
        rows.append(outcome(wanted, judged(painter, wanted.asked, pixels)[0].correct))
    return {task: s.share for task, s in table("en", rows).tasks.items()}


def test_a_perfect_painter_gets_everything_right() -> None:
    assert scored(False) == dict.fromkeys(TASKS, 1.0)


def test_a_shuffled_painter_is_at_chance() -> None:
    figures = scored(True)
    assert max(figures.values()) < 0.1, figures


def test_prompts_are_fixed() -> None:
    """The texts never change: figures of two models are compared over them."""
    dev, report = scene_prompts("dev"), scene_prompts("report")
    assert (len(dev), len(report)) == (200, 600)
    assert not {p.scene for p in dev} & {p.scene for p in report}
    assert len({p.scene for p in dev + report}) == 800
    assert [p.number for p in dev + report] == list(range(800))
    for task, counts in COUNTS.items():
        assert tuple(sum(p.task == task for p in side) for side in (dev, report)) == counts
    texts = "\n".join(p.text("en") for p in dev + report)
    assert hashlib.sha256(texts.encode()).hexdigest() == CHECKSUM
    assert {p.triple for p in report} == {"", "seen", "unseen"} and any(p.composed for p in report)
    assert [p.task for p in scene_prompts("report", 7)] == list(TASKS)


CHECKSUM = "fe434acbad93d1ba6d878a3d0ac8cae6eac396531c5a3f370cacc21a461d49bc"


def test_standard_errors_are_over_prompts() -> None:
    assert share([1.0, 0.0, 0.0, 0.0]) == Share(4, 0.25, pytest.approx((0.25 * 0.75 / 4) ** 0.5))  # type: ignore[arg-type]
    one, two = scene_prompts("report")[:2]
    rows = [outcome(one, True, i) for i in range(10)] + [outcome(two, False, i) for i in range(10)]
    found = rate(rows)
    assert found is not None and (found.trials, found.share) == (2, 0.5)
    assert found.error == pytest.approx(0.5 / 2**0.5)


def test_retrieval() -> None:
    keys = np.eye(4, dtype=np.float32)
    assert retrieved(keys * 3, keys, [0, 1, 2, 3]) == [True] * 4
    assert retrieved(keys, keys, [1, 0, 2, 3]) == [False, False, True, True]
    twins = np.ones((2, 3), np.float32)
    assert retrieved(twins, twins, [0, 1]) == [True, True], "equal texts cannot be told apart"


def test_report_of_a_toy(tmp_path: Path) -> None:
    drawn = DrawnPictures(toy_bundle(), tmp_path / "pictures", steps=1)
    painter = Painter()
    painter.paint(scene_prompts("dev")[0])
    seen = []
    report = composition_report(
        drawn, painter, second=painter, which="dev", n=2, limit=8, on_picture=lambda: seen.append(1)
    )
    assert (report.count, report.pictures, len(seen)) == (8, 16, 16)
    unspaced = report.tables[0].unspaced
    assert not report.judge_unseen and unspaced is not None and unspaced.trials == 8
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(files) == 16
    stamps = [f.stat().st_mtime_ns for f in files]
    again = composition_report(drawn, painter, second=painter, which="dev", n=2, limit=8)
    assert again == report and [f.stat().st_mtime_ns for f in files] == stamps, "nothing is drawn twice"
    page = write_composition(report, tmp_path).read_text()
    assert NOT_LEFT_OUT in page and "second judge" in page
    # the second judge is the first one here: its rows are those of the first, and so is what it says of perfect pictures
    assert [page.count(line) for line in page.splitlines() if line.startswith(("| en | **", "| *perfect"))] == [2] * 2
    told = json.loads((tmp_path / "composition.json").read_text())
    assert told["tables"][0]["tasks"]["single"]["trials"] == 2
    rows = [dict(zip(told["outcomes"]["columns"], row, strict=True)) for row in told["outcomes"]["rows"]]
    assert [(row["prompt"], row["found"]) for row in rows] == [(o.prompt, o.found) for o in report.outcomes]
    assert NOT_LEFT_OUT not in as_markdown(replace(report, judge_unseen=True))
    reworded = composition_report(drawn, painter, which="dev", limit=8, reworded=True)
    assert "tuning prompts in other words" in as_markdown(reworded) and "other words" not in page
    assert [o.text for o in reworded.outcomes] == [p.text("en", True) for p in scene_prompts("dev", 8)]
    assert [o.text for o in reworded.outcomes] != [o.text for o in report.outcomes[::2]]


def test_the_sheet_frames_every_picture_by_what_the_judge_said(tmp_path: Path) -> None:
    drawn = DrawnPictures(toy_bundle(), tmp_path / "pictures", steps=1)
    painter = Painter()
    painter.paint(scene_prompts("dev")[0])
    report = composition_report(drawn, painter, which="dev", limit=14)
    for every in (1, 2, 20):
        outcomes = [replace(o, found=i % every == 0, coloured=True, placed=True) for i, o in enumerate(report.outcomes)]
        write_composition_sheet(drawn, outcomes, 1, tmp_path / "sheet.webp")
        pixels = np.asarray(Image.open(tmp_path / "sheet.webp").convert("RGB")).astype(int)
        green = (np.abs(pixels - RIGHT).max(-1) < 40).sum() / (4 * FRAME * (SIDE - FRAME))
        assert green == pytest.approx(-(-14 // every), abs=0.3)


def test_other_settings_are_other_pictures(tmp_path: Path) -> None:
    first, second = (DrawnPictures(toy_bundle(), tmp_path, steps=steps) for steps in (1, 2))
    assert not np.array_equal(first(Order("a", 0)), second(Order("a", 0))) and len(list(tmp_path.iterdir())) == 2
    assert set(RGB) == {"red", "green", "blue", "grey"}


def test_languages() -> None:
    assert check_locales("en, ru,en") == ["en", "ru"]
    with pytest.raises(InputError, match="languages: xx; the grammar knows ru, en"):
        check_locales("en,xx")


def test_command_refuses_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "load", lambda name, **options: toy_bundle())
    words = ["evaluate", "teacup", "--judge", str(tmp_path), "--out", str(tmp_path / "out")]
    for content in (None, b"no weights"):
        if content is not None:
            (tmp_path / "judge.safetensors").write_bytes(content)
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 4 and "judge.safetensors" in result.output and "Traceback" not in result.output
