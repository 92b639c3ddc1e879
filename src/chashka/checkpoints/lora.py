"""LoRA: small matrices that are added to a checkpoint's weights once, so that a step costs nothing more.

W ← W + weight·(alpha/rank)·up·down (arXiv 2106.09685, section 4.1); U-Net and text tower each have a weight. Names of three kinds
are read: kohya's (``lora_unet_…``, ``lora_te_…``), diffusers' of all its years (``unet.…``, ``text_encoder.…``, with
``lora_A``/``lora_B``, ``lora.down``, ``lora_linear_layer.down`` or ``processor.to_q_lora.down``) and ComfyUI's
(``diffusion_model.…``, ``text_encoders.…``); the U-Net's modules by their names in diffusers or in the original, as comfy/lora.py
of ComfyUI and AUTOMATIC1111's web UI take them. alpha is a tensor of the file, or of its metadata, as PEFT writes it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chashka.checkpoints import content
from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.safetensors_file import NumpyArray, read_metadata
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import OtherKindError, WeightsError

DOWN = re.compile(r"\.(lora_down|lora_A|lora\.down|lora_linear_layer\.down|(?<=_lora\.)down)(\.default)?\.weight$")
UPS = {
    "lora_down": "lora_up",
    "lora_A": "lora_B",
    "lora.down": "lora.up",
    "lora_linear_layer.down": "lora_linear_layer.up",
    "down": "up",
}
HALF = re.compile(rf"\.({'|'.join(map(re.escape, UPS.values()))})(\.default)?\.weight$")
PREFIXES = {
    "lora_unet_": "unet",
    "lycoris_": "unet",
    "unet.": "unet",
    "diffusion_model.": "unet",
    "lora_te_": "text",
    "lora_te1_": "text",
    "text_encoder.": "text",
    "text_encoders.clip_l.transformer.": "text",
    "text_encoders.clip_h.transformer.": "text",
}
"""Whose a module is, by what its name begins with. Without any of these it is the U-Net's: so diffusers wrote them at first."""
SECOND = re.compile(r"lora_te[23]_|text_encoder_[23]\.|text_encoders\.(clip_g|t5xxl)\.")
"""Of models with more text encoders than one."""
PROCESSOR = re.compile(r"(?:\.processor)?\.(to_[qkv]|to_out)_lora$")
"""What diffusers called a layer when a module of its own kept the matrices."""
ADAPTER = re.compile(r"^(lora|lycoris|oft)_\w+\.|\.(lora|hada|lokr|oft|dora)_|[._]lora\.")
"""Names of weights that change a model, in the ways that are read and in all others."""
PEFT = "base_model.model."
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration, as JSON, each key behind ``unet.`` or ``text_encoder.``."""
KNOWN = "lora_down and lora_up, lora_A and lora_B, lora.down and lora.up, and alpha"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a change goes: a weight, and the rows of it that it is for (None: all)."""

    weight: str
    rows: slice | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A product of two small matrices for one module. down (r, …), up (out, r, …); scale: alpha over rank."""

    module: str
    down: NumpyArray
    up: NumpyArray
    scale: float

    @property
    def part(self) -> str:
        """What it changes: 'unet' or 'text'."""
        return PREFIXES.get(_prefix(self.module), "unet")

    def product(self) -> NumpyArray:
        """(out, in) or (out, in, kh, kw)."""
        up = computable(self.up).reshape(self.up.shape[0], -1).astype(np.float32)
        down = computable(self.down).reshape(self.down.shape[0], -1).astype(np.float32)
        made: NumpyArray = (self.scale * (up @ down)).reshape(self.up.shape[0], *self.down.shape[1:])
        return made


def read(path: Path) -> list[Change]:
    """The changes in a file.

    Raises OtherKindError for one that holds no weights of an adapter, WeightsError for half of one, for another kind of adapter,
    and for anything beside the changes.
    """
    tensors = read_checkpoint(path)
    said = _configuration(path)
    found, seen = [], set()
    for name, down in tensors.items():
        match = DOWN.search(name)
        if match is None:
            continue
        if name.startswith(PEFT):
            raise WeightsError(
                f"{path}: {name} is a name of PEFT, which keeps alpha in an adapter_config.json and not in the file; supported are "
                "kohya's names and diffusers'. PEFT's examples have a script for it, convert_peft_sd_lora_to_kohya_ss.py"
            )
        if SECOND.match(name):
            raise WeightsError(
                f"{path}: {name} is of a second text encoder, as Stable Diffusion XL has it; supported are LoRAs for 1.x and 2.x"
            )
        module = name[: match.start()]
        second = f"{module}.{UPS[match.group(1)]}{match.group(2) or ''}.weight"
        up = tensors.get(second)
        if up is None:
            raise WeightsError(f"{path}: {name} has no second half")
        if not (up.size and down.size):
            raise WeightsError(f"{path}: {module}: its halves {list(up.shape)} and {list(down.shape)} are empty")
        if up.ndim < 2 or down.ndim < 2 or up.shape[1] != down.shape[0]:
            raise WeightsError(
                f"{path}: {module}: its halves {list(up.shape)} and {list(down.shape)} do not belong together"
            )
        if not (np.isfinite(computable(up)).all() and np.isfinite(computable(down)).all()):
            raise WeightsError(f"{path}: {module} holds numbers that are not finite")
        seen |= {name, second, f"{module}.alpha"}
        alpha = tensors.get(f"{module}.alpha")
        rank = down.shape[0]
        scale = _said(said, module, rank) if alpha is None else _number(alpha, f"{path}: {module}.alpha") / rank
        found.append(Change(module, down, up, scale))
    if not any(ADAPTER.search(name) for name in tensors):
        some = ", ".join(list(tensors)[:3])
        raise OtherKindError(f"{path} is no LoRA: no lora_down or lora_A in it, but {some}")
    _nothing_else([name for name in tensors if name not in seen], path)
    return found


def _nothing_else(names: list[str], path: Path) -> None:
    """Raises WeightsError for tensors that would be left out: the picture would not be what the file's author saw."""
    half = next((name for name in names if HALF.search(name)), None)
    if half is not None:
        raise WeightsError(f"{path}: {half} has no second half")
    names = [name for name in names if not name.endswith(".alpha")] or names
    if names:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        raise WeightsError(
            f"{path}: {names[0]}{more} belong to no LoRA of the kind that is read; supported are {KNOWN}, not DoRA, LoHa, LoKr and "
            "others that a model is changed with in another way"
        )


def _number(alpha: NumpyArray, what: str) -> float:
    value = computable(np.asarray(alpha))
    if value.size != 1 or not np.isfinite(value).all():
        given = f"the shape {list(value.shape)}" if value.size != 1 else str(value.reshape(-1)[0])
        raise WeightsError(f"{what} has {given}; expected is one finite number")
    return float(value.reshape(-1)[0])


def _configuration(path: Path) -> dict[str, Any]:
    """PEFT's configuration in the metadata; empty where there is none. Raises WeightsError for one that cannot be read."""
    if not content.is_safetensors(path):
        return {}
    text = read_metadata(path).get(METADATA)
    if text is None:
        return {}
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise WeightsError(f"{path}: its metadata {METADATA!r} is no JSON object")
    return said


def _said(said: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha over rank by PEFT's configuration; 1 where it says nothing of the module's part."""
    part = module.partition(".")[0]
    alpha = said.get(f"{part}.lora_alpha")
    patterns = said.get(f"{part}.alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if module == f"{part}.{pattern}" or module.endswith(f".{pattern}"):
            alpha = value
            break
    if alpha is None:
        return 1.0
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise WeightsError(f"{module}: the file's metadata says alpha {alpha!r}; expected is one finite number")
    return alpha / (math.sqrt(rank) if said.get(f"{part}.use_rslora") is True else rank)


def merged(
    changes: list[Change],
    weight: Mapping[str, float],
    weights: Mapping[str, dict[str, Any]],
    names: Mapping[str, Mapping[str, str]],
    source: Path,
) -> dict[str, dict[str, Any]]:
    """Copies of ``weights`` with the changes in them.

    weight: how much, by part ('unet', 'text'). weights: by part and by our names. names: by part, diffusers' names of modules by
    ours. Raises WeightsError for a LoRA of another model: modules or shapes that the checkpoint does not have.
    """
    places = {part: dict(_places(part, weights[part], names[part])) for part in weights}
    changed = {part: dict(tensors) for part, tensors in weights.items()}
    unknown = []
    for change in changes:
        part, place = change.part, _place(change, places)
        if place is None:
            unknown.append(change.module)
            continue
        value = np.array(computable(changed[part][place.weight]), np.float32)
        target = value if place.rows is None else value[place.rows]
        product = change.product()
        if product.size != target.size or product.shape[0] != target.shape[0]:
            raise WeightsError(
                f"{source}: {change.module} changes {list(product.shape)}, the checkpoint has {list(target.shape)} there: "
                "it is a LoRA for another model"
            )
        target += np.float32(weight[part]) * product.reshape(target.shape)
        changed[part][place.weight] = value
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WeightsError(f"{source}: the checkpoint has no {unknown[0]}{more}: it is a LoRA for another model")
    return changed


def _place(change: Change, places: Mapping[str, Mapping[str, Place]]) -> Place | None:
    bare = PROCESSOR.sub(partial(_layer, change.part), change.module.removeprefix(_prefix(change.module)))
    return places[change.part].get(_key(bare))


def _prefix(module: str) -> str:
    return next((known for known in PREFIXES if module.startswith(known)), "")


def _layer(part: str, old: re.Match[str]) -> str:
    """``to_q`` as it is called today: in a text tower ``q_proj``."""
    name = old.group(1)
    if part == "text":
        return f".{name.removeprefix('to_')}_proj"
    return f".{name}.0" if name == "to_out" else f".{name}"


def _key(module: str) -> str:
    """With dots or underscores, with transformers' outer module (before its fifth version) or without it."""
    return module.replace(".", "_").removeprefix("text_model_")


def _places(part: str, tensors: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, Place]]:
    """Every module that can be changed, by diffusers' name with underscores, and the U-Net's by the original's, which are ours."""
    for name in tensors:
        ours = name.removesuffix(".weight")
        if ours != name:
            if part == "unet":
                yield _key(ours), Place(name)
            prefix = next((p for p in _prefixes(ours) if p in names), None)
            if prefix is not None:
                yield _key(names[prefix] + ours[len(prefix) :]), Place(name)
        elif name.endswith(".in_proj_weight"):
            layer = name.removesuffix(".attn.in_proj_weight")
            width = tensors[name].shape[0] // 3
            if part == "text" and layer in names:
                for i, letter in enumerate("qkv"):
                    yield (
                        _key(f"{names[layer]}.self_attn.{letter}_proj"),
                        Place(name, slice(i * width, (i + 1) * width)),
                    )


def _prefixes(name: str) -> Iterator[str]:
    """The name and every module that it is in, the nearest first."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))
