"""``chashka export``: what --precision means, and its second form, --int8 --calibrate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chashka.cli import calibrate
from chashka.cli.export import chosen_precision
from chashka.errors import InputError
from chashka.families.kandinsky.opening import COMPONENTS


def test_without_it_nothing_is_chosen() -> None:
    assert chosen_precision(()) == {}


def test_one_component_differs_from_the_others_in_any_order() -> None:
    wanted = dict.fromkeys(COMPONENTS, "int8") | {"unet": "fp16"}
    assert chosen_precision(("int8", "unet=fp16")) == chosen_precision(("unet=fp16", "int8")) == wanted


def test_optional_components_count_where_they_are_given() -> None:
    assert chosen_precision(("picture=int8",), ("picture",)) == {"picture": "int8"}
    assert chosen_precision(("int8",), ("picture",)) == dict.fromkeys([*COMPONENTS, "picture"], "int8")


@pytest.mark.parametrize("word", ["int4", "judge=int8", "picture=int8", "=int8x", "unet="])
def test_what_does_not_exist_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"precision: .* is not known; allowed are fp16, int8"):
        chosen_precision((word,))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--int8"], "int8: activations in int8 are offered only where they were measured; add --calibrate"),
        (["--calibrate"], "calibrate: belongs to int8; give --int8 --calibrate"),
        (["--int8", "--calibrate", "--unet", "x"], "unet: belongs to the export of training runs"),
        (["--int8", "--calibrate", "--precision", "int8"], "precision: belongs to the export of training runs"),
        (["--int8", "--calibrate", "--guide-without", "x"], "guide-without: belongs to the export of training runs"),
        (["--int8", "--calibrate", "--sampler", "x"], "sampler: belongs to the export of training runs"),
        (["--int8", "--calibrate", "--guidance", "0"], "guidance: belongs to the export of training runs"),
        (["--json", "--out", "x"], "json: belongs to --int8 --calibrate"),
        (["--calls", "3"], "calls: belongs to --int8 --calibrate"),
        (["--autoencoder", "a", "--clip", "c", "--out", "x"], "Missing option '--unet' (see chashka export --help)"),
    ],
)
def test_the_two_kinds_of_export_do_not_mix(call: Callable[..., Any], words: list[str], said: str) -> None:
    result = call("export", *words)
    assert result.code == 2 and said in result.error


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--prompts", "no.txt"], 5, "cannot read 'no.txt'"),
        (["--prompts", "one.txt"], 2, "prompts: 1 given; two different ones are needed"),
        (["--steps", "0"], 2, "steps"),
        (["--size", "large"], 2, "size: 'large' is not possible"),
        (["--model", "nobody"], 2, "model 'nobody' does not exist"),
        (["--prompts", "two.txt", "--calls", "0"], 2, "calls: 0 is not possible"),
    ],
)
def test_a_calibration_says_what_is_wrong_before_it_draws(
    call: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.setattr(calibrate.importlib.util, "find_spec", lambda _: True)
    (here / "one.txt").write_text("# prompts\n\na cup\n", encoding="utf-8")
    (here / "two.txt").write_text("a cup\na fox\n", encoding="utf-8")
    result = call("export", "--int8", "--calibrate", *words)
    assert result.code == code and said in result.error


def test_a_calibration_names_its_extra(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.importlib.util, "find_spec", lambda _: None)
    result = call("export", "--int8", "--calibrate")
    assert result.code == 3 and "chashka[quantise]" in result.error


def test_drawing_with_w8a8_says_what_comes_first(call: Callable[..., Any], here: Path) -> None:
    result = call("draw", "a cup", "--precision", "w8a8", "--model", "kandinsky-teacup")
    assert result.code == 6
    assert "run this first: chashka export --int8 --calibrate --model kandinsky-teacup" in result.error
