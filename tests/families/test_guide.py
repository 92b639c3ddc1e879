"""The guides' commands and code, as they stand there: with the embedded model, and with tiny published ones."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_folder import SIZES, write_published
from stable_folder import tiny_folder

import kandinsky2.opening
from chashka import images
from chashka.checkpoints import write
from chashka.cli import main
from chashka.families import kandinsky
from chashka.families.kandinsky.published import open_text

ROOT = Path(__file__).resolve().parents[2]
RUSSIAN, STABLE = "kandinsky.ru.md", "stable-diffusion.md"


def blocks(guide: str, mark: str) -> list[tuple[str, str]]:
    """(language, code) of a guide's blocks behind a mark."""
    text = (ROOT / "docs" / "guides" / guide).read_text(encoding="utf-8")
    return re.findall(rf"<!-- {re.escape(mark)} -->\n```(\w+)\n(.*?)```", text, flags=re.DOTALL)


def run(language: str, code: str) -> None:
    if language == "python":
        exec(compile(code, "guide", "exec"), {})
        return
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "chashka"
        main.main(words[1:], standalone_mode=False)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASHKA_MODELS", raising=False)
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())


def test_with_the_embedded_model(tmp_path: Path) -> None:
    found = blocks(RUSSIAN, "executed")
    assert found
    for block in found:
        run(*block)
    assert len(list((tmp_path / "cosmos").glob("*.png"))) == 2 and (tmp_path / "fox.png").is_file()


@pytest.mark.torch
def test_with_a_published_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "models" / "kandinsky-2.0")
    tiny = replace(kandinsky.PUBLISHED, open=partial(open_text, sizes=SIZES))
    monkeypatch.setitem(kandinsky.FAMILY.presets, "2.0", tiny)  # type: ignore[arg-type]
    found = blocks(RUSSIAN, "executed with the published model")
    assert len(found) >= 4
    for block in found:
        run(*block)
    assert "kandinsky-2.0  ready" in capsys.readouterr().out
    wanted = {"cosmos.png": (64, 128), "oil.png": (64, 128), "cosmos-0.png": (64, 64), "paper.png": (64, 64)}
    assert {name: images.read(tmp_path / name).shape[:2] for name in wanted} == wanted


@pytest.mark.torch
def test_with_a_stable_diffusion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet, vae, _ = tiny_folder(tmp_path / "tiny-sd")
    vae.decoder.conv_out.bias.data += 0.1
    vae.save_pretrained(tmp_path / "soft-vae")
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    width = unet.get_submodule(name).weight.shape[0]
    lora = {"lora_A": np.full((2, width), 0.1, np.float32), "lora_B": np.full((width, 2), 0.1, np.float32)}
    write(tmp_path / "ink.safetensors", {f"unet.{name}.{half}.weight": value for half, value in lora.items()}, {})
    write(tmp_path / "red-cat.safetensors", {"emb_params": np.ones((2, 24), np.float32)}, {})
    mask = np.zeros((128, 64), np.uint8)
    mask[40:80, 20:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "prompts.txt").write_text("a harbour at night\na red boat\n", encoding="utf-8")
    found = blocks(STABLE, "executed")
    assert len(found) >= 7
    for block in found:
        run(*block)
    said = capsys.readouterr()
    assert "tiny  ready" in said.out and "ink removed" in said.out and "note" not in said.err
    sizes = {
        "boat": (128, 64),
        "winter": (128, 64),
        "gull": (128, 64),
        "wide": (128, 128),
        "large": (128, 128),
        "cat": (64, 64),
    }
    assert {name: images.read(tmp_path / f"{name}.png").shape[:2] for name in sizes} == sizes
    assert len(list((tmp_path / "cups").glob("*.png"))) == len(list((tmp_path / "variations").glob("*.png"))) == 2
    soft = [images.read(tmp_path / name) for name in ("soft.png", "soft-again.png")]
    assert np.array_equal(*soft) and np.array_equal(soft[0], images.read(tmp_path / "soft-once-more.png"))
    cats = [images.read(tmp_path / name) for name in ("cat.png", "cat-again.png")]
    assert np.array_equal(*cats)
    told = [images.read_metadata(tmp_path / name) for name in ("cat.png", "cat-again.png", "ink.png")]
    assert (
        told[0] is not None
        and told[0] == told[1]
        and told[0]["loras"][0].items() >= {"name": "ink", "weight": 0.4}.items()
    )
    assert (
        told[0]["embeddings"][0]["name"] == "red-cat" and told[2] is not None and told[2]["loras"][0]["weight"] == 0.7
    )
    assert len(told[0]["loras"][0]["sha256"]) == 64 and str(tmp_path) not in str(told)
    assert (soft[0] != images.read(tmp_path / "ink.png")).any()
    kept = images.read(tmp_path / "boat.png")
    assert (images.read(tmp_path / "gull.png")[mask == 0] == kept[mask == 0]).all()
