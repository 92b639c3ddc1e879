"""Curves of training logs: points where they belong, runs joined along the steps, wrong files refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from chashka.cli import main
from chashka.errors import FileError, InputError
from chashka.evaluation.curve import COLOURS, PANEL, as_svg, families, read_logs

SVG = "{http://www.w3.org/2000/svg}"


def log(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_runs_follow_one_another(tmp_path: Path) -> None:
    first = log(
        tmp_path / "a.jsonl", {"step": 10, "loss": 4.0, "norm": 9.0}, {"step": 20, "held_out": {"held_0.1": 2.0}}
    )
    second = log(tmp_path / "b.jsonl", {"step": 10, "loss": 2.0}, {"step": 30, "loss": 1.0})
    found = read_logs([first, second])
    assert (found.name, found.starts) == ("a to b", (0, 20))
    assert {c.name: c.points for c in found.curves} == {
        "loss": ((10, 4.0), (30, 2.0), (50, 1.0)),
        "held_0.1": ((20, 2.0),),
    }


def test_the_loss_of_a_lesson_alone_is_not_drawn(tmp_path: Path) -> None:
    rows = (
        {"step": 1, "loss": 7.0, "reading": 7.0},
        {"step": 2, "loss": 0.3, "reading": 0.2},
        {"step": 3, "loss": 0.2},
    )
    (curve,) = read_logs([log(tmp_path / "a.jsonl", *rows)]).curves
    assert curve.points == ((2, 0.3), (3, 0.2))


def test_higher_values_stand_higher_and_inside_their_panel(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *({"step": s, "loss": v} for s, v in ((1, 0.93), (50, 0.31), (100, 0.3))))
    root = ET.fromstring(as_svg([read_logs([path])], "a < b"))
    (line,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[0][1] < points[1][1] < points[2][1]
    assert points[2][1] - points[0][1] <= PANEL
    assert "a < b" in [text.text for text in root.iter(f"{SVG}text")]


def test_one_value_alone_has_an_axis(tmp_path: Path) -> None:
    for value in (0.0, -3.0, 1e-9, 7e5):
        path = log(tmp_path / "log.jsonl", {"step": 0, "loss": value})
        assert "nan" not in as_svg([read_logs([path])], "one")


def test_a_run_that_began_anew_has_its_own_line_from_the_beginning(tmp_path: Path) -> None:
    logs = [
        log(tmp_path / f"{name}.jsonl", {"step": 10, "loss": value}, {"step": 40, "loss": value / 2})
        for name, value in (("first", 4.0), ("second", 3.0), ("third", 8.0))
    ]
    drawn = families(logs, ["third"], presentations=False)
    assert [(f.name, f.starts) for f in drawn] == [("first to second", (0, 40)), ("third", (0,))]
    root = ET.fromstring(as_svg(drawn, "both"))
    lines = [line.attrib for line in root.iter(f"{SVG}polyline")]
    assert [line["stroke"] for line in lines] == [COLOURS[0], COLOURS[0], COLOURS[1]]
    begins = [float(line["points"].split(",")[0]) for line in lines]
    assert begins[2] == begins[0] < begins[1]
    assert {"first to second", "third"} <= {text.text for text in root.iter(f"{SVG}tspan")}
    with pytest.raises(InputError, match="'fourth' is not among the logs"):
        families(logs, ["fourth"], presentations=False)


def test_presentations_are_counted_by_the_recipes(tmp_path: Path) -> None:
    """Of a stored log by its name, of a run's own log beside it."""
    for folder in ("logs", "recipes", "run"):
        (tmp_path / folder).mkdir()
    stored = log(tmp_path / "logs" / "small.jsonl", {"step": 10, "loss": 4.0})
    own = log(tmp_path / "run" / "log.jsonl", {"step": 3, "loss": 2.0})
    (tmp_path / "recipes" / "small.json").write_text('{"run": {"batch": 48}}', encoding="utf-8")
    (tmp_path / "run" / "recipe.json").write_text('{"run": {"batch": 1024}}', encoding="utf-8")
    found = read_logs([stored, own], presentations=True)
    assert found.curves[0].points == ((480, 4.0), (480 + 3072, 2.0)) and found.name == "small to run"
    (tmp_path / "recipes" / "small.json").unlink()
    with pytest.raises(InputError, match="its recipe"):
        read_logs([stored], presentations=True)


@pytest.mark.parametrize("text", ["", "{}", '{"step": 1, "held_out": 3}', "[1]", "no json", '{"step": 1, "loss": NaN}'])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="log"):
        read_logs([path])


def test_command_writes_the_file_or_says_why_not(tmp_path: Path) -> None:
    path = log(tmp_path / "unet.jsonl", {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4})
    out = tmp_path / "curve.svg"
    result = CliRunner().invoke(main, ["evaluate", "curve", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "unet" in out.read_text(encoding="utf-8")
    with pytest.raises(FileError, match="cannot read"):
        read_logs([tmp_path / "none.jsonl"])
