"""A U-Net of Stable Diffusion's kind made of one of Kandinsky's, which it then is trained on from.

    python -m chashka.training.crossing RUN RECIPE.json OUT.safetensors

RUN is the folder of a finished Kandinsky U-Net's run, with its features; RECIPE that of the new one. Residual blocks stay as they
are. Attention becomes a transformer whose self-attention is the old one's, and whose attention to the text has the old queries, and
keys and values that say of the first encoder's tokens what the old text head and block said (a linear map, fitted to the run's own
texts). What joined the time embedding (two encoders) becomes what ``label_emb`` makes of the first encoder's one vector, and the
time embedding says of a noise level on the new schedule's scale what it said of it on the old one's; both fitted as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from chashka.diffusion.schedule import NoiseSchedule
from chashka.errors import TrainingError
from chashka.nets.attention import SpatialTransformer
from chashka.nets.configs import UNetConfig
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet, sinusoid
from chashka.training.catalogue import from_json
from chashka.training.recipes import UNetRecipe
from chashka.training.unet import schedule_of

LEAK = 0.25
"""How much of its normed input a new transformer adds to what the old attention added: its output projection times this is one."""
HEARD = 0.3
"""The text's part of what the old attention, which looked at text and picture at once, brought; the picture's is the rest."""
OPEN = 8.0
"""Where ``label_emb``'s nonlinearity is worked at, so that it lets through nearly what comes: SiLU is straight there."""
TEXTS = 6000
"""Captions that the maps are fitted to."""
TIMED = 3000
"""Steps in which the time embedding is fitted."""
LOW, HIGH = 0.05, 15.0
"""Noise levels between which it is."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Of some texts: the first encoder's tokens (N, D) and what the text head made of them (N, context), its one vector of each
    text (M, P) and what joined the time embedding (M, 4·width)."""

    tokens: torch.Tensor
    context: torch.Tensor
    pooled: torch.Tensor
    added: torch.Tensor


def crossed(weights: Mapping[str, torch.Tensor], network: UNet, heard: Heard) -> dict[str, torch.Tensor]:
    """Weights of a U-Net with attention of kind 'qkv' and a context, for ``network``, whose attention is a transformer."""
    own = network.state_dict()
    blocks = [name for name, block in network.named_modules() if isinstance(block, SpatialTransformer)]
    found = {key: value for key, value in weights.items() if not key.startswith(tuple(f"{name}." for name in blocks))}
    for name in blocks:
        head = f"{name}."
        mine = {key.removeprefix(head): value for key, value in own.items() if key.startswith(head)}
        old = {key.removeprefix(head): value.float() for key, value in weights.items() if key.startswith(head)}
        quiet = {key: torch.zeros_like(value) for key, value in mine.items() if ".ff.net.2." in key}
        found |= {head + key: value for key, value in (mine | quiet | attending(old, network.cfg, heard)).items()}
    return found | (joined(heard, network.cfg) if network.cfg.pooled else {})


def attending(old: Mapping[str, torch.Tensor], cfg: UNetConfig, heard: Heard) -> dict[str, torch.Tensor]:
    """The keys of a spatial transformer that an attention block's weights decide."""
    out, bias = old["proj_out.weight"][:, :, 0], old["proj_out.bias"]
    channels = len(out)
    heads = cfg.heads_of(channels)
    q, k, v = old["qkv.weight"][:, :, 0].reshape(heads, 3, -1, channels).unbind(1)
    value_bias = old["qkv.bias"].reshape(heads, 3, -1)[:, 2].flatten()
    one = torch.eye(channels)
    inner = "transformer_blocks.0."
    found = {
        "norm.weight": old["norm.weight"],
        "norm.bias": old["norm.bias"],
        "proj_in.weight": one,
        "proj_in.bias": torch.zeros(channels),
        f"{inner}attn1.to_q.weight": q.flatten(0, 1),
        f"{inner}attn1.to_k.weight": k.flatten(0, 1),
        f"{inner}attn1.to_v.weight": v.flatten(0, 1),
        f"{inner}attn1.to_out.0.weight": out * (1 - HEARD) / LEAK,
        f"{inner}attn1.to_out.0.bias": (bias + out @ value_bias * (1 - HEARD)) / LEAK,
        "proj_out.weight": LEAK * one,
        "proj_out.bias": torch.zeros(channels),
    }
    said = heard.context @ old["encoder_kv.weight"][:, :, 0].T + old["encoder_kv.bias"]
    told = torch.linalg.lstsq(heard.tokens, said).solution.T.reshape(heads, 2, -1, heard.tokens.shape[1])
    found |= {
        f"{inner}attn2.to_q.weight": q.flatten(0, 1),
        f"{inner}attn2.to_k.weight": told[:, 0].flatten(0, 1),
        f"{inner}attn2.to_v.weight": told[:, 1].flatten(0, 1),
        f"{inner}attn2.to_out.0.weight": out * HEARD / LEAK,
        f"{inner}attn2.to_out.0.bias": torch.zeros(channels),
    }
    for one_of_two in ("attn1", "attn2"):
        scales = {f"{inner}{one_of_two}.{kind}_norm.scale": f"{kind}_norm.scale" for kind in "qk"}
        found |= {new: old[name] for new, name in scales.items() if name in old}
    return found


def joined(heard: Heard, cfg: UNetConfig) -> dict[str, torch.Tensor]:
    """``label_emb`` as the straight map that is nearest to what joined the time embedding."""
    width = heard.added.shape[1]
    if heard.pooled.shape[1] > width:
        raise TrainingError(f"network.pooled is {cfg.pooled}; it must be {width} or less to begin with these weights")
    rows = torch.cat([heard.pooled, torch.ones(len(heard.pooled), 1)], 1)
    straight = torch.linalg.lstsq(rows, heard.added).solution
    through = torch.zeros(width, heard.pooled.shape[1])
    through[: heard.pooled.shape[1]] = torch.eye(heard.pooled.shape[1])
    after = torch.zeros(width, width)
    after[:, : heard.pooled.shape[1]] = straight[:-1].T
    level = torch.nn.functional.silu(torch.tensor(OPEN))
    return {
        "label_emb.0.0.weight": through,
        "label_emb.0.0.bias": torch.full((width,), OPEN),
        "label_emb.0.2.weight": after,
        "label_emb.0.2.bias": straight[-1] - after.sum(1) * level,
    }


def timed(
    weights: Mapping[str, torch.Tensor], channels: int, old: NoiseSchedule, new: NoiseSchedule
) -> dict[str, torch.Tensor]:
    """The time embedding and the first convolution, for another schedule's times and another scale of what comes in.

    channels: those of the data, the first of the network's input.
    """
    stem = "input_blocks.0.0.weight"
    layers = {key.partition(".")[2]: value.float() for key, value in weights.items() if key.startswith("time_embed.")}
    width, wide = layers["0.weight"].shape[1], len(layers["2.weight"])
    known, fitted = (nn.Sequential(nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide)) for _ in range(2))
    for one in (known, fitted):
        one.load_state_dict(layers)
    sigma = torch.logspace(math.log10(LOW), math.log10(HIGH), 512)
    before, after = (sinusoid(schedule.sigma_to_t(sigma) * schedule.t_scale, width) for schedule in (old, new))
    with torch.no_grad():
        wanted = known(before)
    steps = torch.optim.Adam(fitted.parameters(), 1e-3)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(steps, TIMED)
    for _ in range(TIMED):
        steps.zero_grad()
        F.mse_loss(fitted(after), wanted).backward()
        steps.step()
        pace.step()
    found = {f"time_embed.{key}": value.detach() for key, value in fitted.state_dict().items()}
    scale = float((old.scale(sigma) / new.scale(sigma)).mean())
    first = weights[stem].float().clone()
    first[:, :channels] *= scale
    return found | {stem: first}


@torch.no_grad()
def heard_in(run: Path, head: KandinskyTextHead) -> Heard:
    """What a run's text head makes of its texts; the same ones every time. Raises TrainingError without its features."""
    path = run / "features" / "text.safetensors"
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; the run's folder with its features is needed")
    texts, chance = load_file(path), torch.Generator().manual_seed(0)
    rows = torch.randperm(len(texts["pooled1"]), generator=chance)[:TEXTS].tolist()
    tokens, context, pooled, added = [], [], [], []
    for row in rows:
        start, end = texts["offsets"][row : row + 2].tolist()
        first, second = (texts[name][start:end].float()[None] for name in ("tokens1", "tokens2"))
        whole = texts["pooled1"][row].float()[None]
        said, joining = head(first, whole, second)
        tokens.append(first[0])
        context.append(said[0, : end - start])
        pooled.append(whole[0])
        added.append(joining[0])
    return Heard(torch.cat(tokens), torch.cat(context), torch.stack(pooled), torch.stack(added))


def cross(run: Path, recipe: Path, out: Path) -> None:
    """Write the weights that a run by ``recipe`` starts with. Raises TrainingError for stages that do not fit."""
    source = run / "average.safetensors"
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    old, new = from_json(metadata["recipe"], str(source)), from_json(recipe.read_text(encoding="utf-8"), str(recipe))
    if not (isinstance(old, UNetRecipe) and old.head and isinstance(new, UNetRecipe) and new.head is None):
        raise TrainingError("needed: the run of a U-Net with a text head, and the recipe of one without")
    weights = load_file(source)
    parts = {
        part: {key.partition("/")[2]: value for key, value in weights.items() if key.startswith(f"{part}/")}
        for part in ("unet", "text_head")
    }
    head = KandinskyTextHead(old.head)
    head.load_state_dict(parts["text_head"])
    torch.manual_seed(new.run.seed)
    found = crossed(parts["unet"], UNet(new.network), heard_in(run, head))
    if new.schedule != old.schedule:
        found |= timed(found, new.network.out_channels, schedule_of(old, old.shift), schedule_of(new, new.shift))
    save_file({f"unet/{key}": value.contiguous().clone() for key, value in found.items()}, out, metadata)


if __name__ == "__main__":
    cross(*map(Path, sys.argv[1:4]))
