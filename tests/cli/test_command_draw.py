"""``chashka draw``: files, reports, and one line for everything that is wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chashka import families, images
from chashka.errors import EngineError, MissingExtraError, WeightsError

Call = Callable[..., Any]
PROMPT = "космос внутри чайной чашки"


@pytest.fixture(autouse=True)
def toy(loads: list[dict[str, Any]], here: Path) -> None:
    """Every test draws with the toy model in an empty folder."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- what it does -------------------------------------------------------------------------------------------------------


def test_one_picture_into_the_current_folder(call: Call, here: Path) -> None:
    result = call("draw", PROMPT, "--seed", 7)
    assert result.code == 0
    assert result.out == "космос-внутри-чайной-чашки-7-0.png\n"
    assert result.err.startswith("seed 7, ")
    assert images.read(here / result.out.strip()).shape == (256, 256, 4)


def test_four_pictures_and_a_sheet_into_a_new_folder(call: Call, here: Path) -> None:
    result = call("draw", PROMPT, "-n", 4, "--seed", 7, "--out", "новая папка/ещё одна", "--grid")
    assert result.code == 0
    folder = here / "новая папка" / "ещё одна"
    stem = "космос-внутри-чайной-чашки-7"
    assert names(folder) == sorted([*(f"{stem}-{i}.png" for i in range(4)), f"{stem}-grid.png"])
    assert images.read(folder / f"{stem}-grid.png").shape == (520, 520, 4)
    assert call("draw", PROMPT, "--seed", 7, "--out", "новая папка/ещё одна").out.endswith("-7-0-2.png\n")


def test_a_file_of_the_given_name_is_replaced(call: Call, here: Path) -> None:
    for _ in range(2):
        assert call("draw", PROMPT, "--seed", 7, "--out", "моя чашка.jpg").out == "моя чашка.jpg\n"
    assert names(here) == ["моя чашка.jpg"]
    assert call("draw", PROMPT, "-n", 2, "--seed", 7, "--out", "моя чашка.jpg").code == 0
    assert names(here) == ["моя чашка-0.jpg", "моя чашка-1.jpg", "моя чашка.jpg"]


def test_the_json_report_tells_everything(call: Call, here: Path) -> None:
    result = call("draw", " ".join("abcdefghij"), "--seed", 7, "-n", 2, "--size", "300x200", "--json", "--grid")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert [p["picture"] for p in report["pictures"]] == [0, 1]
    assert all((here / p["file"]).is_file() and (p["width"], p["height"]) == (300, 200) for p in report["pictures"])
    assert (here / report["grid"]).is_file()
    assert report["request"]["steps"] == 8 and report["request"]["seed"] == 7
    assert report["tokens"] == {"used": 8, "cut": 2, "limit": 8}
    assert len(report["notes"]) == 2
    assert report["seconds"]["draw"] >= 0


def test_a_seed_is_chosen_printed_and_stored(call: Call, here: Path) -> None:
    results = [call("draw", PROMPT, "--json") for _ in range(2)]
    seeds = [json.loads(result.out)["request"]["seed"] for result in results]
    assert seeds[0] != seeds[1]
    stored = images.read_metadata(here / json.loads(results[0].out)["pictures"][0]["file"])
    assert stored is not None and stored["seed"] == seeds[0]


def test_the_same_seed_gives_the_same_file(call: Call, here: Path) -> None:
    for name in ("a.png", "b.png"):
        call("draw", PROMPT, "--seed", 1, "--out", name)
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()


def test_every_flag_reaches_the_request(call: Call) -> None:
    words = "--seed 3 --first 2 --steps 5 --guidance 2.5 --sampler ddim --spacing karras --negative плохо --background white"
    settings = ["--set", "eta=0.5", "--set", "denoised-type = dynamic_threshold", "--set", "guidance_stop=0.8"]
    report = json.loads(call("draw", PROMPT, *words.split(), *settings, "--json").out)
    expected = {
        "prompt": PROMPT,
        "seed": 3,
        "first": 2,
        "steps": 5,
        "guidance_scale": 2.5,
        "sampler": "ddim",
        "spacing": "karras",
        "negative_prompt": "плохо",
        "background": "white",
        "eta": 0.5,
        "denoised_type": "dynamic_threshold",
        "guidance_stop": 0.8,
    }
    assert report["request"] | expected == report["request"]
    assert report["pictures"][0]["picture"] == 2


def test_a_sampler_as_a1111_writes_it(call: Call) -> None:
    report = json.loads(call("draw", PROMPT, "--sampler", "DPM++ 2M Karras", "--json").out)
    assert (report["request"]["sampler"], report["request"]["spacing"]) == ("dpmpp_2m", "karras")


def test_engine_options_reach_the_engine(call: Call, loads: list[dict[str, Any]]) -> None:
    call("draw", PROMPT, "--engine", "torch", "--device", "cuda:1", "--precision", "bf16")
    assert loads[0] | {"engine": "torch", "device": "cuda:1", "precision": "bf16"} == loads[0]
    assert loads[0]["model"] == families.DEFAULT


@pytest.mark.parametrize("size", ["320x192", "320X192", "320×192", " 320 х 192 "])
def test_sizes_as_people_type_them(call: Call, size: str) -> None:
    report = json.loads(call("draw", PROMPT, "--size", size, "--json").out)
    assert (report["pictures"][0]["width"], report["pictures"][0]["height"]) == (320, 192)


def test_from_a_picture_with_a_mask_in_paths_with_spaces(call: Call, here: Path) -> None:
    folder = here / "исходные файлы"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "моя чашка.png")
    mask = np.zeros((45, 60), np.uint8)
    mask[:, 40:] = 255
    Image.fromarray(mask).save(folder / "моя маска.png")
    result = call(
        *("draw", "кот", "--init", folder / "моя чашка.png", "--mask", folder / "моя маска.png"),
        *("--out", "готово.png", "--seed", 1),
    )
    assert result.code == 0
    assert "note: the mask was 60x45 and was resized to the picture's 120x90" in result.err
    drawn = images.read(here / "готово.png")
    assert np.array_equal(drawn[:, :75], pixels[:, :75]) and not np.array_equal(drawn[:, 85:], pixels[:, 85:])
    stored = images.read_metadata(here / "готово.png")
    assert stored is not None and stored["request"]["strength"] == 1


def test_a_bar_only_on_a_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    call("draw", PROMPT, "-n", 6, "--steps", 3, "--seed", 1)
    assert "/6 [" in shown.getvalue()


# --- what is wrong ------------------------------------------------------------------------------------------------------

WRONG: list[tuple[list[str], int, list[str]]] = [
    ([""], 2, ["prompt", "1 to 10000 characters"]),
    (["x" * 10_001], 2, ["prompt", "10001 characters", "1 to 10000"]),
    (["кот", "--steps", "0"], 2, ["steps", "0", "1 to 1000"]),
    (["кот", "--steps", "5000"], 2, ["steps", "5000", "1 to 1000"]),
    (["кот", "--steps", "many"], 2, ["--steps", "many", "integer"]),
    (["кот", "--guidance", "nan"], 2, ["guidance_scale", "nan", "0 to 50"]),
    (["кот", "--sampler", "k_magic"], 2, ["sampler 'k_magic' does not exist", "ddim", "dpmpp_2m", "heun"]),
    (["кот", "--sampler", "LMS Karras"], 2, ["sampler 'LMS Karras' does not exist", "DPM++ 2M", "p_sampler"]),
    (["кот", "--sampler", "Euler Karras", "--spacing", "ays"], 2, ["spacing: 'ays'", "'Euler Karras'", "says karras"]),
    (["кот", "--spacing", "wide"], 2, ["spacing 'wide'", "karras"]),
    (["кот", "-n", "65"], 2, ["n: 65", "1 to 64"]),
    (["кот", "--seed", "-1"], 2, ["seed", "-1", "0 to 2**63"]),
    (["кот", "--size", "12"], 2, ["width", "12", "64 to 2048"]),
    (["кот", "--size", "big"], 2, ["size", "'big'", "256x256"]),
    (["кот", "--strength", "2"], 2, ["strength", "'2'", "0 to 1"]),
    (["кот", "--background", "plaid"], 2, ["background", "'plaid'", "#rrggbb"]),
    (["кот", "--set", "eta"], 2, ["set", "'eta'", "FIELD=VALUE"]),
    (["кот", "--set", "eta=lots"], 2, ["eta", "'lots'", "0 to 1"]),
    (["кот", "--set", "colour=red"], 2, ["colour", "no such field", "eta"]),
    (["кот", "--model", "dalle"], 2, ["model 'dalle'", "kandinsky-teacup"]),
    (["кот", "--engine", "abacus"], 2, ["--engine", "abacus", "openvino"]),
    (["кот", "--nonsense"], 2, ["--nonsense", "chashka draw --help"]),
    (["кот", "--mask", "m.png"], 2, ["mask", "--init"]),
    (["кот", "--out", "чашка.tiff"], 2, ["'чашка.tiff'", ".png"]),
    (["кот", "--out", "нет такой папки/a.png"], 5, ["нет такой папки", "does not exist"]),
    (["кот", "--out", "/dev/full"], 5, ["/dev/full"]),
    (["кот", "--init", "нет.png"], 5, ["нет.png", "No such file"]),
    (["кот", "--init", "текст.png"], 5, ["текст.png", "PNG, JPEG, WebP"]),
    (["кот", "--init", "бомба.png"], 5, ["бомба.png", "25 megapixels"]),
    (["кот", "--init", "серый.png", "--mask", "серый.png"], 2, ["mask", "black all over"]),
]


@pytest.mark.parametrize(("words", "code", "told"), WRONG, ids=lambda v: str(v)[:40])
def test_one_line_for_everything_that_is_wrong(
    call: Call, here: Path, loads: list[dict[str, Any]], words: list[str], code: int, told: list[str]
) -> None:
    (here / "текст.png").write_text("не картинка")
    Image.new("1", (6000, 5000)).save(here / "бомба.png")
    Image.new("L", (8, 8)).save(here / "серый.png")
    before = names(here)
    result = call("draw", *words)
    assert result.code == code
    for word in told:
        assert word in result.error
    assert len(result.error) < 400
    assert names(here) == before
    assert not loads, "refused only after the model was loaded"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WeightsError("the weight file unet.safetensors does not exist"), 4),
        (EngineError("openvino failed in unet: no memory"), 6),
        (MissingExtraError("torch", "the torch engine"), 3),
    ],
)
def test_errors_of_loading_have_their_codes(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(families, "load", fail)
    result = call("draw", "кот")
    assert (result.code, result.error) == (code, f"error: {error}")


@pytest.mark.parametrize("out", ["a.png", "новая"])
def test_a_full_disk_leaves_no_half_file(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = call("draw", "кот", "--out", out)
    assert result.code == 5 and "No space left on device" in result.error
    assert not [p for p in here.rglob("*") if p.is_file()]


def test_a_folder_that_cannot_be_written(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root every folder can be written, so the system call says no."""
    import tempfile

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    result = call("draw", "кот", "--out", "a.png")
    assert result.code == 5 and "Permission denied" in result.error and "a.png" in result.error


def test_a_file_in_place_of_a_folder(call: Call, here: Path) -> None:
    (here / "занято").write_text("")
    assert "'занято'" in call("draw", "кот", "--out", "занято").error
    result = call("draw", "кот", "--out", "занято/внутри")
    assert result.code == 5 and "занято" in result.error


def test_interruption_is_130_and_leaves_nothing(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chashka import generate

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "draw", stop)
    result = call("draw", "кот")
    assert result.code == 130 and result.error == "error: stopped"
    assert names(here) == []


SLOW = """
import signal
# a shell that starts this in the background makes its children ignore SIGINT, and Python would keep that
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, time
sys.path.insert(0, sys.argv.pop(1))
from toy_model import ToyNetwork, toy_bundle
from chashka import families
from chashka.cli import main

class Slow(ToyNetwork):
    def __call__(self, x, t, cond):
        print("drawing", flush=True)
        time.sleep(0.05)
        return super().__call__(x, t, cond)

bundle = toy_bundle()
object.__setattr__(bundle.denoiser, "network", Slow())
families.load = lambda *_, **__: bundle
main()
"""


def test_ctrl_c_in_a_real_process(here: Path, project: Path) -> None:
    words = [sys.executable, "-c", SLOW, str(project / "tests"), "draw", "кот", "--steps", "1000", "--out", "a.png"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        started = process.stdout.readline()
        assert started == "drawing\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        assert process.wait(timeout=30) == 130
    assert error.strip() == "error: stopped"
    assert names(here) == []


def test_a_bug_keeps_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from chashka import generate

    def bug(*_: Any) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(generate, "draw", bug)
    with pytest.raises(ZeroDivisionError):
        from chashka.cli import main

        main(["draw", "кот"])


def test_choices_are_drawn_in_turn_or_by_the_seed(call: Call, tmp_path: Path) -> None:
    words = tmp_path / "words"
    (words / "more").mkdir(parents=True)
    (words / "animal.txt").write_text("# animals\ncat\n\ndog\n", encoding="utf-8")
    (words / "more" / "tea.txt").write_text("tea\n", encoding="utf-8")
    shared = ["--seed", "3", "--json", "--wildcards", str(words)]
    told = json.loads(
        call("draw", "a __animal__ {in|on} __more/tea__", *shared, "--choices", "all", "--out", str(tmp_path / "a")).out
    )
    prompts = [row["prompt"] for row in told["pictures"]]
    assert prompts == ["a cat in tea", "a cat on tea", "a dog in tea", "a dog on tea"]
    assert len({row["file"] for row in told["pictures"]}) == 4
    drawn = ["draw", "a {red|green|blue|white} cup", *shared, "-n", "6", "--choices", "random"]
    first, second = (json.loads(call(*drawn, "--out", str(tmp_path / place)).out) for place in ("b", "c"))
    assert [r["prompt"] for r in first["pictures"]] == [r["prompt"] for r in second["pictures"]]
    assert len({r["prompt"] for r in first["pictures"]}) > 1 and [r["picture"] for r in first["pictures"]] == list(
        range(6)
    )
    assert (
        "no wildcard file 'x'; there are: animal, more/tea" in call("draw", "__x__", *shared, "--choices", "all").error
    )
    assert "more than 1000 combinations" in call("draw", "{0|1|2|3|4|5|6|7|8|9}" * 4, *shared, "--choices", "all").error
    away = ["--negative", "__animal__", "--choices", "all", "--out", str(tmp_path / "n")]
    both = json.loads(call("draw", "a {red|blue} cup", *shared, *away).out)["pictures"]
    said = [(row["prompt"], row["negative_prompt"]) for row in both]
    assert said == [(f"a {colour} cup", animal) for colour in ("red", "blue") for animal in ("cat", "dog")]
    assert images.read_metadata(Path(both[1]["file"]))["request"]["negative_prompt"] == "dog"
    plain = json.loads(call("draw", "a {b|c}", *shared, "--out", str(tmp_path / "d")).out)
    assert plain["pictures"][0]["prompt"] == "a {b|c}", "braces are letters unless choices are asked for"


def test_tags_that_load_nothing(call: Call, tmp_path: Path) -> None:
    said = ["draw", "a cup <lora:ink:1>", "--seed", "3", "--json", "--out", str(tmp_path)]
    assert "<lora:ink>: kandinsky-teacup takes no LoRA; leave it out" in call(*said, "--strict").error
    (note,) = json.loads(call(*said).out)["notes"]
    assert note.startswith("<lora:ink> in the prompt loads nothing: ") and note.endswith("takes no LoRA")
    negative = call("draw", "a cup", "--negative", "<lora:ink>", "--strict").error
    assert "negative_prompt: <lora:ink> loads nothing there; write it into the prompt" in negative


def test_ways_of_drawing(call: Call, here: Path) -> None:
    """What is left out is chosen and stored, so that a variation can be drawn again."""
    done = json.loads(call("draw", "кот", "--seed", "1", "--subseed-strength", "0.4", "--json").out)
    asked = done["request"]
    assert asked["subseed_strength"] == 0.4 and 0 <= asked["subseed"] < 2**32
    again = call(
        "draw", "кот", "--seed", "1", "--subseed-strength", "0.4", "--subseed", str(asked["subseed"]), "--out", "b.png"
    )
    assert again.code == 0
    assert images.read(Path(done["pictures"][0]["file"])).tobytes() == images.read(here / "b.png").tobytes()
    call("draw", "кот", "--seed", "1", "--out", "cup.png", "--background", "white")
    done = json.loads(call("draw", "кот", "--init", "cup.png", "--strength", "subtle", "--json").out)
    assert done["request"]["strength"] == 0.5
    assert "hires_scale: toy-plain draws at one size" in call("draw", "кот", "--hires", "2").error
    assert "only_masked: there is no mask" in call("draw", "кот", "--init", "cup.png", "--only-masked").error


@pytest.mark.parametrize(
    "words",
    [
        ["draw", "голый ребёнок"],
        ["draw", "{кот|голый} {пёс|ребёнок}", "--choices", "random"],
        ["draw", "a __who__, nude", "--choices", "all", "--wildcards", "words"],
        ["draw", "кот", "--negative", "голый ребёнок", "--guidance", 0],
        ["draw", "кот", "--negative", "__who__, nude", "--guidance", 0, "--choices", "all", "--wildcards", "words"],
        ["mix", "--text", "голый", 1, "--text", "ребёнок", 2],
        ["extend", "cup.png", "голый ребёнок", "--left", 8],
    ],
    ids=lambda words: words[1],
)
def test_the_rule_holds_before_a_model_is_opened(
    call: Call, here: Path, loads: list[dict[str, Any]], words: list[str]
) -> None:
    (here / "words").mkdir()
    (here / "words" / "who.txt").write_text("cat\nlittle girl\n", encoding="utf-8")
    Image.new("RGB", (64, 64)).save(here / "cup.png")
    before = names(here)
    result = call(*words)
    assert result.code == 8 and "refused by the rule 'minors'" in result.error
    assert not loads and names(here) == before


def test_what_is_to_be_kept_away_from_is_no_reason(call: Call) -> None:
    assert call("draw", "ребёнок", "--negative", "голый", "--seed", 1).code == 0
