"""Kandinsky 2.0 at its full size: load, two steps of a 512×512 picture on both engines, memory, beside diffusers' blocks.

    .venv/bin/python benchmarks/kandinsky_full.py FOLDER [SIDE]

SIDE is 512 unless told. FOLDER gets 5 GB of random weights in the published layout (float16; kept, so that a second run begins at
once). Every line is a process of its own, because memory is measured by the most that it ever held (VmHWM: with the mapped pages of
weight files, which the system may take back). A step is guided: two rows through the U-Net. diffusers' U-Net is the same body, at
its own random weights, called with two rows of the same shapes in the same run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import child, computes_bf16, filled, peak

STEPS = 2
EMULATED = 128
"""Up to this side bf16 is run on a processor that does not compute it: for the memory; its time says nothing."""
ROWS = [
    ("ours", "torch", "f32"),
    ("ours", "torch", "bf16"),
    ("ours", "openvino", "f32"),
    ("ours", "openvino", "f32"),
    ("diffusers", "torch", "f32"),
    ("diffusers", "torch", "bf16"),
]


def main() -> None:
    if len(sys.argv) < 4:
        folder, side = Path(sys.argv[1]).expanduser() / "kandinsky-2.0", int((sys.argv[2:] or ["512"])[0])
        if not (folder / "done").exists():
            child(__file__, str(folder), "write", "all")
            (folder / "done").touch()
        print(f"kandinsky_full: {side}x{side}, {STEPS} guided steps, random weights in {folder}")
        bf16 = computes_bf16()
        for kind, engine, precision in ROWS:
            if precision == "bf16" and not bf16 and side > EMULATED:
                print(f"  {kind:9} {engine:8} bf16  left out: this processor does not compute it, and takes hours")
                continue
            row = child(__file__, str(folder), kind, engine, precision, str(side))
            shown = "  ".join(f"{key} {value}" for key, value in row.items())
            print(f"  {kind:9} {engine:8} {precision:4}  {shown}", flush=True)
        return
    folder, kind, *rest = Path(sys.argv[1]), *sys.argv[2:]
    lines: dict[str, Callable[..., dict[str, str]]] = {"write": write, "ours": ours, "diffusers": diffusers}
    print(json.dumps(lines[kind](folder, *rest)))


def ours(folder: Path, engine: str, precision: str, side: str) -> dict[str, str]:
    from chashka import families
    from chashka.generate import generate

    started = time.perf_counter()
    bundle = families.load(
        "kandinsky-2.0", engine=engine, precision=precision, models=folder.parent, cache_dir=folder / "cache"
    )
    loaded = time.perf_counter()
    bundle.text.encode(["космос внутри чайной чашки", ""])
    encoded = time.perf_counter()
    request = bundle.request(
        prompt="космос внутри чайной чашки", seed=1, steps=STEPS, sampler="euler", width=int(side), height=int(side)
    )
    marks = [time.perf_counter()]
    for _ in generate(bundle, request):
        marks.append(time.perf_counter())
    drawn = time.perf_counter()
    return {
        "load": f"{loaded - started:.1f} s",
        "texts": f"{encoded - loaded:.1f} s",
        "first step": f"{marks[1] - marks[0]:.1f} s",
        "step": f"{marks[-1] - marks[-2]:.1f} s",
        "decode": f"{drawn - marks[-1]:.1f} s",
        "peak": peak(),
    }


def diffusers(folder: Path, engine: str, precision: str, side: str) -> dict[str, str]:
    import torch
    from diffusers import UNet2DConditionModel

    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    torch.set_default_dtype(dtype)
    started = time.perf_counter()
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            sample_size=64,
            in_channels=4,
            out_channels=8,
            down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
            block_out_channels=(384, 768, 1152, 1536),
            layers_per_block=3,
            attention_head_dim=64,
            cross_attention_dim=768,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )
    unet = unet.to_empty(device="cpu").eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(0, 0.02)
        loaded = time.perf_counter()
        x, t = torch.randn(2, 4, int(side) // 8, int(side) // 8), torch.tensor([500, 500])
        tokens, added = torch.randn(2, 154, 768), torch.randn(2, 1536)
        times = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            unet(x, t, tokens, class_labels=added)
            times.append(time.perf_counter() - begin)
    return {
        "made": f"{loaded - started:.1f} s",
        "first step": f"{times[0]:.1f} s",
        "step": f"{times[-1]:.1f} s",
        "peak": peak(),
    }


def write(folder: Path, _: str) -> dict[str, str]:
    """Random weights of the published sizes under the published names."""
    import torch
    from torch import nn
    from transformers import MT5Config, MT5EncoderModel, XLMRobertaConfig, XLMRobertaModel

    from chashka.families.kandinsky.encoders import MT5, ROBERTA
    from chashka.nets.autoencoder import DecoderKL, EncoderKL
    from chashka.nets.kandinsky_presets import AUTOENCODER_20, TEXT_HEAD_20, UNET_20
    from chashka.nets.kandinsky_text import KandinskyTextHead
    from chashka.nets.unet import UNet

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        roberta = nn.Module()
        roberta.transformer = XLMRobertaModel(XLMRobertaConfig(**ROBERTA))
        roberta.LinearTransformation = nn.Linear(1024, 640)
        state = UNet(UNET_20).state_dict() | KandinskyTextHead(TEXT_HEAD_20).state_dict()
        halves = EncoderKL(AUTOENCODER_20).state_dict() | DecoderKL(AUTOENCODER_20).state_dict()
        t5 = MT5EncoderModel(MT5Config(**MT5)).state_dict()
    torch.save(filled(state), folder / "Kandinsky-2-0.pt")
    torch.save({"state_dict": filled(halves)}, folder / "vae.ckpt")
    for name, weights, sizes, words, marks in (
        (
            "text_encoder1",
            roberta.state_dict(),
            ROBERTA,
            "sentencepiece.bpe.model",
            {"unk_id": 0, "bos_id": 1, "eos_id": 2},
        ),
        ("text_encoder2", t5, MT5, "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
    ):
        (folder / name).mkdir(exist_ok=True)
        torch.save(filled(weights), folder / name / "pytorch_model.bin")
        (folder / name / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
        vocabulary(folder / name, words, marks)
    return {}


def vocabulary(folder: Path, name: str, marks: dict[str, Any]) -> None:
    """A small one of a few sentences: which ids the random encoders get does not matter."""
    import sentencepiece

    text = folder / "sentences.txt"
    text.write_text("космос внутри чайной чашки\nа cup of tea on the table\nкот и чашка чая\n" * 40, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "words"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **({"pad_id": -1} | marks),
    )
    (folder / "words.model").rename(folder / name)


if __name__ == "__main__":
    main()
