"""No malformed file crashes us, hangs us, fills the memory, or fails with another error than our own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import chashka
from bfloat16_files import as_bfloat16
from chashka.checkpoints import write
from serving_process import tell
from toy_model import toy_bundle

pytestmark = [pytest.mark.torch, pytest.mark.promise]
COPIES = 220


def good_files(folder: Path) -> None:
    """One of every kind; the first word of a name says who reads it."""
    chance = np.random.default_rng(0)
    tensors = {name: chance.standard_normal((8, 6)).astype(np.float16) for name in ("a.weight", "b.weight", "c.bias")}
    write(folder / "weights-1.safetensors", tensors, {"config": "{}"})
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights-2.ckpt")
    torch.save({"state_dict": state}, folder / "weights-3.pt", _use_new_zipfile_serialization=False)
    torch.jit.trace(torch.nn.Linear(4, 3), torch.zeros(1, 4)).save(str(folder / "weights-4.pt"))
    short = {name: as_bfloat16(value) for name, value in tensors.items()}
    write(folder / "weights-5.safetensors", short, {})
    torch.save({name: value.bfloat16() for name, value in state.items()}, folder / "weights-6.ckpt")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {f"{key}.lora_down.weight": (2, 8), f"{key}.lora_up.weight": (8, 2), f"{key}.alpha": ()}
    write(folder / "lora-1.safetensors", {name: np.ones(shape, np.float32) for name, shape in parts.items()}, {})
    write(folder / "lora-2.safetensors", {name: as_bfloat16(np.ones(shape)) for name, shape in parts.items()}, {})
    write(folder / "embedding-1.safetensors", {"emb_params": np.ones((2, 8), np.float32)}, {})
    torch.save({"string_to_param": {"*": torch.ones(2, 8)}, "name": "cup"}, folder / "embedding-2.pt")
    torch.save({"string_to_param": {"*": torch.ones(2, 8).bfloat16()}}, folder / "embedding-3.pt")
    bundle = toy_bundle()
    (picture,) = chashka.draw(bundle, bundle.request(prompt="кот", seed=1, steps=1, width=64, height=64))
    for suffix in ("png", "jpg", "webp"):
        chashka.save(picture, folder / f"picture-1.{suffix}")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_p16_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    good_files(tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    reader = Path(__file__).with_name("damaged_reader.py")
    command = [sys.executable, str(reader), str(tmp_path), str(COPIES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        print(done.stderr[-3000:])
    tell("P16 crashes_hangs_other_errors", int(done.returncode != 0), 0, done.returncode == 0)
    found = json.loads(done.stdout)
    assert sorted(found) == names
    tell("P16 damaged_files", len(names) * COPIES, ">= 2000", len(names) * COPIES >= 2000)
    assert all(refused > COPIES // 10 for _, refused in found.values()), found
