"""``chashka evaluate`` with the toy model: options reach the reports, reports reach files and the screen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_shards import CONCEPTS

from chashka import families
from chashka.cli.evaluate import evaluate
from chashka.errors import ChashkaError
from chashka.evaluation import metrics, sheet
from chashka.evaluation.prompts import PROMPTS, SINGLE
from toy_model import toy_bundle


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The toy model in place of the shipped one; what it was loaded with."""
    loaded: list[dict[str, Any]] = []

    def load(name: str, **options: Any) -> families.Bundle:
        loaded.append({"name": name, **options})
        return toy_bundle()

    monkeypatch.setattr(families, "load", load)
    return loaded


def call(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(a) for a in arguments], catch_exceptions=False)


def test_sheet(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: list[dict[str, Any]]) -> None:
    few = {"prompts": PROMPTS[:3]}
    monkeypatch.setattr(sheet.contact_sheet, "__kwdefaults__", {**sheet.contact_sheet.__kwdefaults__, **few})
    result = call("sheet", "--out", tmp_path / "s", "--shards", shards, "--steps", 2, "--engine", "openvino")
    assert result.exit_code == 0
    assert "sheet.png" in result.output
    assert "drawn: 3 pictures" in result.output
    assert "held-out: 6 pictures" in result.output
    stored = json.loads((tmp_path / "s" / "sheet.json").read_text(encoding="utf-8"))
    assert stored["settings"]["steps"] == 2
    assert toy[0]["engine"] == "openvino"
    assert toy[0]["name"] == families.DEFAULT


def test_autoencoder(shards: Path, tmp_path: Path) -> None:
    result = call("autoencoder", "--shards", shards, "--limit", 2, "--out", tmp_path / "a.json")
    assert result.exit_code == 0
    assert result.output.startswith("2 pictures: PSNR ")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["pictures"] == 2


def known_only(monkeypatch: pytest.MonkeyPatch, name: str) -> int:
    """Only the prompts whose concepts are in the made shards: the commands ask for all of SINGLE."""
    report = getattr(metrics, name)
    known = [prompt for prompt in SINGLE if prompt.concept in CONCEPTS]
    monkeypatch.setattr(report, "__kwdefaults__", {**report.__kwdefaults__, "prompts": known})
    return len(known)


def test_recognition(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = known_only(monkeypatch, "recognition_report")
    result = call("recognition", "--shards", shards, "-n", 2, "--steps", 1, "--out", tmp_path / "r.json")
    assert result.exit_code == 0
    assert "judge: nearest training picture, 3 concepts" in result.output
    assert f"({2 * count} pictures)" in result.output
    assert "held-out: " in result.output
    stored = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert len(stored["verdicts"]) == 2 * count
    assert stored["caveat"] == metrics.CAVEAT


@pytest.mark.parametrize("words", [(), ("--fast",)])
def test_drafts_are_judged_too(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    known_only(monkeypatch, "recognition_report")
    monkeypatch.setattr(families, "load", lambda *_, **__: replace(toy_bundle(), fast={"steps": 1}))
    assert call("recognition", "--shards", shards, *words, "--out", tmp_path / "r.json").exit_code == 0
    settings = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["steps"] == 1, settings.get("fast", False)) == (bool(words), bool(words))


def test_thresholds(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_only(monkeypatch, "threshold_report")
    result = call("thresholds", "--shards", shards, "--steps", 2, "--out", tmp_path / "t.json")
    assert result.exit_code == 0
    assert "dynamic_threshold and clip_denoised: PSNR" in result.output
    stored = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert [kind["denoised_type"] for kind in stored["kinds"]] == list(metrics.THRESHOLDS)
    assert stored["settings"]["steps"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sheet", "--out", "x", "--steps", "0"], "steps: 0 is not possible"),
        (["thresholds", "--picture", "a.safetensors"], "give --shards too"),
        (["autoencoder", "--shards", "nowhere"], "no pictures-"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ChashkaError, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def test_a_report_that_cannot_be_written_is_told(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ChashkaError, match="cannot write"):
        call("autoencoder", "--shards", shards, "--limit", 1, "--out", tmp_path / "no" / "folder.json")
