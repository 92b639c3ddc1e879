"""Stable Diffusion 1.5 at its full size: a step, decoding, the text, a finished picture and memory, beside diffusers.

    .venv/bin/python benchmarks/sd15.py FOLDER [SIDE [STEPS [PRECISION]]]

SIDE is 512, STEPS of the finished picture are 4, unless told; PRECISION: f32, bf16 or w8a8 alone. FOLDER gets 2 GB of random
weights in the original single file (float16; kept, so that a second run begins at once) and such weights in diffusers' layout.
Every line is a process of its own, because memory is measured by the most that it ever held (VmHWM). A step is guided: two
rows. ``whole`` and ``fitted`` are pictures of 20 guided steps and of 10 at the places of ``ays``, guided in the middle six.
``w8a8`` is calibrated as ``chashka export --int8 --calibrate --calls 8 --steps 2`` does it, and timed in turns with the best of
float's precisions; of random weights its drift says nothing of a real checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from measuring import child, computes_bf16, filled, peak, seconds

FILE = "sd15.safetensors"
PROMPT = "a photograph of a cup of tea with a galaxy inside"
ROWS = [
    ("ours", "torch", "f32"),
    ("diffusers", "torch", "f32"),
    ("ours", "openvino", "f32"),
    ("ours", "openvino", "f32"),
    ("plain", "openvino", "f32"),
    ("ours", "torch", "bf16"),
    ("diffusers", "torch", "bf16"),
    ("ours", "openvino", "bf16"),
    ("plain", "openvino", "bf16"),
    ("int8", "openvino", "w8a8"),
]
"""ours, diffusers, diffusers' U-Net in a plain conversion to OpenVINO, and ours with activations in int8."""


def main() -> None:
    lines = {"ours": ours, "diffusers": diffusers, "plain": plain, "int8": int8}
    if sys.argv[1] in lines:
        kind, home, *rest = sys.argv[1:]
        print(json.dumps(lines[kind](Path(home), *rest)))
        return
    folder = Path(sys.argv[1]).expanduser()
    side, steps, only = (*sys.argv[2:], *("512", "4", "")[len(sys.argv) - 2 :])
    if not (folder / "done").exists():
        write(folder)
        (folder / "done").touch()
    print(f"sd15: {side}x{side}, a picture of {steps} guided steps, random weights in {folder}")
    bf16 = computes_bf16()
    for kind, engine, precision in ROWS:
        if only not in ("", precision):
            continue
        if precision == "bf16" and not bf16:
            print(f"  {kind:9} {engine:8} bf16  left out: this processor does not compute it")
            continue
        row = child(__file__, kind, str(folder), engine, precision, side, steps)
        print(f"  {kind:9} {engine:8} {precision:4}  " + "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def ours(folder: Path, engine: str, precision: str, side: str, steps: str) -> dict[str, str]:
    """The published file through the loader, and each part by its port."""
    import numpy as np

    from chashka import families, generate

    started = time.perf_counter()
    bundle = families.load(str(folder / FILE), engine=engine, precision=precision, cache_dir=folder / "cache")
    loaded = time.perf_counter()
    size = int(side)
    text = seconds(lambda: bundle.text.encode([PROMPT]))
    rows = np.zeros((2, 4, size // 8, size // 8), np.float32)
    cond = bundle.text.encode([PROMPT, ""])
    first = seconds(lambda: bundle.denoiser(rows, 1.0, cond))
    step = seconds(lambda: bundle.denoiser(rows, 1.0, cond), 2)
    decode = seconds(lambda: bundle.codec.decode(rows[:1]))
    request = bundle.request(prompt=PROMPT, seed=1, steps=int(steps), width=size, height=size)
    picture = seconds(lambda: generate.draw(bundle, request))
    taken = {"load": loaded - started, "text": text, "first": first, "step": step, "decode": decode, "picture": picture}
    if (engine, precision) == ("openvino", "bf16"):
        few = {"steps": 10, "spacing": "ays", "guidance_start": 0.2, "guidance_stop": 0.8}
        for name, how in (("whole", {"steps": 20}), ("fitted", few)):
            asked = bundle.request(prompt=PROMPT, seed=1, width=size, height=size, **how)
            taken[name] = seconds(partial(generate.draw, bundle, asked))
    return shown(**taken)


def diffusers(folder: Path, engine: str, precision: str, side: str, steps: str) -> dict[str, str]:
    import torch

    started = time.perf_counter()
    pipe = pipeline(folder, getattr(torch, {"f32": "float32", "bf16": "bfloat16"}[precision]))
    loaded = time.perf_counter()
    size = int(side)
    kind = pipe.unet.dtype
    rows, t = torch.zeros(2, 4, size // 8, size // 8, dtype=kind), torch.tensor(500)
    with torch.inference_mode():
        text = seconds(lambda: pipe.encode_prompt(PROMPT, "cpu", 1, False))
        tokens = torch.cat(pipe.encode_prompt(PROMPT, "cpu", 1, True))
        first = seconds(lambda: pipe.unet(rows, t, tokens))
        step = seconds(lambda: pipe.unet(rows, t, tokens), 2)
        decode = seconds(lambda: pipe.vae.decode(rows[:1]))
        picture = seconds(lambda: pipe(PROMPT, num_inference_steps=int(steps), height=size, width=size))
    return shown(load=loaded - started, text=text, first=first, step=step, decode=decode, picture=picture)


def plain(folder: Path, engine: str, precision: str, side: str, steps: str) -> dict[str, str]:
    """diffusers' U-Net as OpenVINO's own converter gives it, with fixed shapes."""
    import numpy as np
    import openvino
    import torch

    unet = pipeline(folder, torch.float32).unet

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, x: Any, t: Any, tokens: Any) -> Any:
            return self.unet(x, t, tokens).sample

    size = int(side) // 8
    example = torch.zeros(2, 4, size, size), torch.tensor(500.0), torch.zeros(2, 77, 768)
    with torch.no_grad():
        graph = openvino.convert_model(Plain().eval(), example_input=example)
    graph.reshape({i: openvino.PartialShape(list(value.shape)) for i, value in enumerate(example)})
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    given = [np.asarray(value.numpy()) for value in example]
    first = seconds(lambda: compiled(given))
    return shown(first=first, step=seconds(lambda: compiled(given), 2))


def int8(folder: Path, engine: str, precision: str, side: str, steps: str) -> dict[str, str]:
    """Of a step, by the same graph with weights and activations in int8."""
    from chashka import families
    from chashka.evaluation.calibration import calibrate

    bundle = families.load(str(folder / FILE), engine=engine, precision="f32", cache_dir=folder / "cache")
    started = time.perf_counter()
    size, prompts = int(side), [PROMPT, "a red fox in the snow"]
    report, _ = calibrate(bundle, folder / "cache", prompts, 8, steps=2, width=size, height=size)
    taken = shown(calibrate=time.perf_counter() - started, step=report.w8a8_ms / 1000)
    other = {report.float_precision: f"{report.float_ms / 1000:.2f} s", "rows": str(report.rows)}
    return other | taken | {"times": f"{report.float_ms / report.w8a8_ms:.2f}"}


def shown(**taken: float) -> dict[str, str]:
    return {name: f"{value:.2f} s" for name, value in taken.items()} | {"peak": peak()}


def pipeline(folder: Path, dtype: Any) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder / "diffusers", torch_dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write(folder: Path) -> None:
    """Random weights in diffusers' layout, and the same kind of weights in the original single file."""
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from chashka.nets.autoencoder import DecoderKL, EncoderKL
    from chashka.nets.configs import AutoencoderConfig, UNetConfig
    from chashka.nets.unet import UNet

    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072}
    sizes |= {"num_attention_heads": 12, "num_hidden_layers": 12}
    text = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=49408, hidden_act="quick_gelu"))
    unet = UNetConfig(4, 4, 320, (1, 2, 4, 4), 2, (0, 1, 2), "transformer", heads=8, context=768)
    with torch.device("meta"):
        state = {f"model.diffusion_model.{name}": value for name, value in UNet(unet).state_dict().items()}
        halves = EncoderKL(AutoencoderConfig()).state_dict() | DecoderKL(AutoencoderConfig()).state_dict()
    state |= {f"first_stage_model.{name}": value for name, value in halves.items()}
    state |= {f"cond_stage_model.transformer.{name}": value for name, value in text.state_dict().items()}
    save_file(filled(state), folder / FILE)
    blocks = 4
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    theirs = UNet2DConditionModel(sample_size=64, attention_head_dim=8, cross_attention_dim=768)
    tokenizer = own_tokenizer(folder)
    scheduler = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    parts: dict[str, Any] = {"vae": vae, "text_encoder": text, "unet": theirs}
    for module in parts.values():
        module.half()
    pipe: Any = StableDiffusionPipeline(
        **parts, tokenizer=tokenizer, scheduler=scheduler, safety_checker=None, feature_extractor=None
    )
    pipe.save_pretrained(folder / "diffusers")


def own_tokenizer(folder: Path) -> Any:
    """CLIP's words from chashka's own copy, as transformers' class wants them."""
    from transformers import CLIPTokenizer

    from chashka.prompts import clip_words

    words = dict(clip_words.original().ids)
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    merges = clip_words.MERGES.read_text(encoding="utf-8")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, model_max_length=77)


if __name__ == "__main__":
    main()
