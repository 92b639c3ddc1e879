"""The two text encoders of the published Kandinsky: XLM-R with M-CLIP's projection, and mT5's encoder.

The networks are those of ``transformers`` (the extra [multilingual]); sizes, words and weights come from the model's folder
alone, and weights by the allow-list reader. Originals: ai-forever/Kandinsky-2.0 ``kandinsky2/model/text_encoders.py``.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chashka.checkpoints import load_strict
from chashka.errors import MissingExtraError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

LENGTH = 77
"""Every text is this many tokens long, the rest of them padding, which the U-Net is not told to leave out."""
WEIGHTS = ("pytorch_model.bin", "model.safetensors", "pytorch_model.bin.index.json", "model.safetensors.index.json")
"""What a file of weights may be called, or the index of several."""
ROBERTA: dict[str, Any] = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
}
"""What a ``config.json`` may say, and what holds where it does not: XLM-R large, which M-CLIP's own configurations leave unsaid."""
MT5: dict[str, Any] = {
    "vocab_size": 250112,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
}
"""mT5 small."""

Ids = NDArray[np.int64]


def require_transformers(needed_for: str) -> None:
    """Raises MissingExtraError without the extra [multilingual]."""
    for package in ("torch", "transformers", "sentencepiece"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("multilingual", needed_for)


class Words:
    """Texts to ids of one encoder. tokenizer: of ``transformers``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """ids and mask, int64 (B, 77): beginning and end marks included, cut and padded to that length."""
        made = self._tokenizer(list(texts), max_length=LENGTH, padding="max_length", truncation=True)
        return np.array(made["input_ids"], np.int64), np.array(made["attention_mask"], np.int64)

    def count(self, text: str) -> int:
        """Tokens of ``text``, marks included, however many they are."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])


def roberta_words(folder: Path) -> Words:
    """XLM-R's tokenizer from ``tokenizer.json`` or ``sentencepiece.bpe.model``. Raises WeightsError."""
    from transformers import XLMRobertaTokenizer

    return Words(_tokenizer(XLMRobertaTokenizer, folder))


def t5_words(folder: Path) -> Words:
    """mT5's tokenizer from ``spiece.model`` or ``tokenizer.json``. Raises WeightsError."""
    from transformers import T5Tokenizer

    return Words(_tokenizer(T5Tokenizer, folder))


def _tokenizer(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever a damaged file makes the library raise
        raise WeightsError(f"{folder}: its tokenizer cannot be read ({str(error)[:120]})") from error


def roberta(folder: Path, tensors: dict[str, Any], source: Path) -> tuple[nn.Module, nn.Module]:
    """XLM-R and the projection of its mean token, on the CPU in the file's own precision; see :func:`roberta_call`."""
    import torch
    from torch import nn
    from transformers import XLMRobertaConfig, XLMRobertaModel

    values = _config(folder, ROBERTA)
    with torch.device("meta"):
        network: nn.Module = XLMRobertaModel(XLMRobertaConfig(**values), add_pooling_layer=False)
    # two tables that are computed, not stored; old files store one of them all the same
    for name in ("position_ids", "token_type_ids"):
        length = int(values["max_position_embeddings"])
        made = torch.arange(length) if name == "position_ids" else torch.zeros(length, dtype=torch.int64)
        network.get_submodule("embeddings").register_buffer(name, made[None], persistent=False)
    body = {
        name.removeprefix("transformer."): value
        for name, value in tensors.items()
        if name.startswith("transformer.") and ".pooler." not in name and not name.endswith(".position_ids")
    }
    load_strict(network, body, source)
    last = {name.rpartition(".")[2]: v for name, v in tensors.items() if name.startswith("LinearTransformation.")}
    if "weight" not in last:
        raise WeightsError(f"{source}: M-CLIP's LinearTransformation is not in it; is it a plain XLM-R?")
    out, width = last["weight"].shape
    with torch.device("meta"):
        projection = nn.Linear(width, out)
    load_strict(projection, last, source)
    return network.eval().requires_grad_(False), projection.eval().requires_grad_(False)


def roberta_call(
    network: nn.Module, projection: nn.Module, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids, mask i64 (B, L) → tokens (B, L, D), pooled (B, P): the projection of the mean over the mask, not of unit length."""
    tokens = network(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask[..., None].to(tokens.dtype)
    pooled = projection((tokens * weight).sum(1) / weight.sum(1))
    return tokens, pooled


def t5(folder: Path, tensors: dict[str, Any], source: Path) -> nn.Module:
    """mT5's encoder; a whole mT5's decoder is left out."""
    import torch
    from transformers import MT5Config, MT5EncoderModel

    with torch.device("meta"):
        network: nn.Module = MT5EncoderModel(MT5Config(**_config(folder, MT5)))
    state = {name: v for name, v in tensors.items() if not name.startswith(("decoder.", "lm_head."))}
    if "shared.weight" in state:  # one table under two names
        state.setdefault("encoder.embed_tokens.weight", state["shared.weight"])
    load_strict(network, state, source)
    return network.eval().requires_grad_(False)


def _config(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Of ``config.json`` the sizes that ``known`` names, and its values for the others: nothing else in it is used."""
    path = folder / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({str(error)[:100]})") from error
    if not isinstance(said, dict):
        raise WeightsError(f"{path}: is not a table")
    values = {name: said.get(name, value) for name, value in known.items()}
    wrong = [n for n, v in values.items() if isinstance(v, bool) or not isinstance(v, type(known[n]) | int | float)]
    if wrong:
        raise WeightsError(f"{path}: {wrong[0]} is {values[wrong[0]]!r}; expected a {type(known[wrong[0]]).__name__}")
    return values
