"""A Kandinsky 2.0 in the published layout, tiny, with the weights that the original code was recorded with.

Weights are made again from their keys (tests/nets/golden_weights.py), so that nothing but numbers is stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from chashka.families.kandinsky.published import Sizes
from chashka.nets.configs import AutoencoderConfig, TextHeadConfig, UNetConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "nets"))

UNET = UNetConfig(4, 8, 32, (1, 2), 1, (1,), head_width=16, context=48, resample="resblock", scale_shift=True)
HEAD = TextHeadConfig(40, 24, 512, 48, 128, 8)
AUTOENCODER = AutoencoderConfig(
    width=32, mult=(1, 1, 2, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 1, 2, 2), decoder_res_blocks=1
)
SIZES = Sizes(UNET, HEAD, AUTOENCODER)
XLMR = {
    "model_type": "M-CLIP",
    "vocab_size": 120,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
}
MT5 = {
    "model_type": "mt5",
    "vocab_size": 96,
    "d_model": 512,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}
SENTENCES = [
    "космос внутри чайной чашки",
    "a cup of tea on the table",
    "кот на столе и чашка чая",
    "eine Tasse Tee",
    "the cat sat on the mat",
]


def write_published(folder: Path, *, inpainting: bool = False, safetensors: bool = False) -> Path:
    """The whole folder; ``safetensors`` instead of torch's files for U-Net and autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "Kandinsky-2-0", _unet(False), ".pt", safetensors)
    if inpainting:
        _write(folder / "Kandinsky-2-0-inpainting", _unet(True), ".pt", safetensors)
    state = _autoencoder() | {"loss.logvar": np.zeros((), np.float32)}
    _write(folder / "vae", state if safetensors else {"state_dict": state, "epoch": 3}, ".ckpt", safetensors)
    _text(
        folder / "text_encoder1", XLMR, _roberta(), "sentencepiece.bpe.model", {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    )
    _text(folder / "text_encoder2", MT5, _t5(), "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1})
    return folder


def recorded(module: Any, seed: int, last: float = 1.0) -> dict[str, np.ndarray]:
    """The weights of a module on meta, float16 as they were recorded."""
    from golden_weights import weights

    return {name: value.numpy().astype(np.float16) for name, value in weights(module, seed, last)[0].items()}


def _unet(inpainting: bool) -> dict[str, np.ndarray]:
    import torch

    from chashka.nets.kandinsky_text import KandinskyTextHead
    from chashka.nets.unet import UNet
    from golden_files import golden

    with torch.device("meta"):
        unet, head = UNet(UNET), KandinskyTextHead(HEAD)
    state = recorded(unet, 20, 0.25) | recorded(head, 20)
    if inpainting:
        stored = np.load(golden("nets/forwards.npz"))
        state["input_blocks.0.0.weight"] = stored["k20.fwd_inpaint.conv_in_weight"]
    return state


def _autoencoder() -> dict[str, np.ndarray]:
    import torch

    from chashka.nets.autoencoder import DecoderKL, EncoderKL

    with torch.device("meta"):
        halves = EncoderKL(AUTOENCODER), DecoderKL(AUTOENCODER)
    return recorded(halves[0], 23) | recorded(halves[1], 23)


def _roberta() -> dict[str, np.ndarray]:
    import torch
    from torch import nn
    from transformers import XLMRobertaConfig, XLMRobertaModel

    whole = nn.Module()
    with torch.device("meta"):
        values = {key: value for key, value in XLMR.items() if key != "model_type"}
        whole.transformer = XLMRobertaModel(XLMRobertaConfig(**values, type_vocab_size=1))
        whole.LinearTransformation = nn.Linear(40, 24)
    # files of 2022 store this table as well
    return recorded(whole, 21) | {"transformer.embeddings.position_ids": np.arange(96)[None]}


def _t5() -> dict[str, np.ndarray]:
    import torch
    from transformers import MT5Config, MT5EncoderModel

    with torch.device("meta"):
        values = {key: value for key, value in MT5.items() if key != "model_type"}
        whole = MT5EncoderModel(MT5Config(**values, feed_forward_proj="gated-gelu"))
    state = recorded(whole, 22)
    state["shared.weight"] = state.pop(
        "encoder.embed_tokens.weight"
    )  # one table; the recorded one was drawn by this name
    return state


def _text(
    folder: Path, config: dict[str, Any], state: dict[str, np.ndarray], words: str, marks: dict[str, int]
) -> None:
    import sentencepiece
    import torch

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, folder / "pytorch_model.bin")
    (folder / "sentences.txt").write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "sentences.txt"),
        model_prefix=str(folder / "words"),
        vocab_size=80,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **({"pad_id": -1} | marks),
    )
    (folder / "words.model").rename(folder / words)


def _write(stem: Path, state: dict[str, Any], suffix: str, safetensors: bool) -> None:
    import torch

    from chashka.checkpoints import write

    if safetensors:
        write(stem.with_suffix(".safetensors"), state, {})
        return

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    torch.save(tensors(state), stem.with_suffix(suffix))
