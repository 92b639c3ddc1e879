"""What a Stable Diffusion takes of memory while it opens, by the type of the numbers in its file.

    .venv/bin/python benchmarks/opening.py FOLDER [WIDTH]

FOLDER gets two single files in the original's layout with the same random weights, one in bfloat16 and one in float16 (about 300 MB
each at the usual WIDTH of 128; kept), and OpenVINO's graphs of them, which are made anew every time. Every line is a process of
its own. What it held before, with everything imported, is taken off. ``memory`` is its own, ``mapped`` has the pages of mapped
files with it, which the system may take back; both are the most of what was seen every few milliseconds.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import filled

KINDS = ("bfloat16", "float16")
ROWS = [("torch", "f32"), ("torch", "bf16"), ("openvino", "f32"), ("openvino", "f32")]
"""The second line of OpenVINO finds the graphs that the first has made."""


def main() -> None:
    if sys.argv[1] == "open":
        opened(*sys.argv[2:])
        return
    folder, width = Path(sys.argv[1]).expanduser(), int((sys.argv[2:] or ["128"])[0])
    for kind in KINDS:
        file = folder / f"{width}-{kind}.safetensors"
        if not file.exists():
            write(folder, width)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        print(f"opening: {file.name}, {file.stat().st_size / 1e6:.0f} MB")
        for engine, precision in ROWS:
            row = watched("open", str(file), engine, precision)
            print(f"  {engine:8} {precision:4}  " + "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def opened(file: str, engine: str, precision: str) -> None:
    """Says that everything is imported, waits to be told, and opens the file."""
    from chashka import families
    from chashka.engines import open_engine

    for module in ("engines.conversion", "nets.autoencoder", "nets.clip", "nets.unet"):
        importlib.import_module(f"chashka.{module}")
    cache = Path(file).parent / "cache"
    open_engine(engine, "cpu", precision, None, cache)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    families.load(file, engine=engine, precision=precision, cache_dir=cache)
    print(f"{time.perf_counter() - started:.1f}", flush=True)


def watched(*words: str) -> dict[str, str]:
    """The most that a process of its own holds beyond what it begins with."""
    command = [sys.executable, __file__, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n", "it could not begin"
        before = held(child.pid)
        most = before
        child.stdin.write("\n")
        child.stdin.flush()
        while child.poll() is None:
            most = tuple(map(max, most, held(child.pid)))
            time.sleep(0.003)
        took = child.stdout.readline().strip()
    own, everything = (f"{(last - first) / 1e3:.0f} MB" for first, last in zip(before, most, strict=True))
    return {"time": f"{took} s", "memory": own, "mapped": everything}


def held(process: int) -> tuple[int, ...]:
    """Thousands of bytes: (its own, with the pages of mapped files)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    said = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return tuple(int(said.get(name, "0")) * 1024 // 1000 for name in ("RssAnon", "VmRSS"))


def write(folder: Path, width: int) -> None:
    """Random weights of a 1.x with a U-Net of that width, and a small autoencoder and text tower."""
    import torch
    from safetensors.torch import save_file

    from chashka.nets.autoencoder import DecoderKL, EncoderKL
    from chashka.nets.clip import TextTower
    from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, UNetConfig
    from chashka.nets.unet import UNet

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    unet = UNetConfig(4, 4, width, (1, 2, 4, 4), 2, (0, 1, 2), "transformer", heads=8, context=256)
    vae = AutoencoderConfig(width=32, mult=(1, 1, 2, 2), decoder_width=32, decoder_mult=(1, 1, 2, 2))
    text = CLIPTextConfig(49408, 77, 256, 4, 4, 256)
    with torch.device("meta"):
        state: dict[str, Any] = {f"model.diffusion_model.{n}": v for n, v in UNet(unet).state_dict().items()}
        halves = EncoderKL(vae).state_dict() | DecoderKL(vae).state_dict()
        tower = TextTower(text).state_dict()
    state |= {f"first_stage_model.{name}": value for name, value in halves.items()}
    state |= {f"cond_stage_model.model.{name}": value for name, value in tower.items()}
    made = filled(state)
    for kind in KINDS:
        cast = {name: value.to(getattr(torch, kind)) for name, value in made.items()}
        save_file(cast, folder / f"{width}-{kind}.safetensors")


if __name__ == "__main__":
    main()
