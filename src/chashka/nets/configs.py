"""Configurations of every network, as frozen dataclasses without torch: they are stored in the weight files.

Every configuration checks itself when it is built and raises InputError (a ValueError) with what was given, what is
allowed and why, so that a wrong recipe or weight file fails here and not in the middle of a network.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chashka.errors import InputError, WeightsError
from chashka.nets import checks

Config = TypeVar("Config")
LATER = "later"


def later(default: Any) -> Any:
    """A field that older files do not have: it is written only where it says something else than ``default``."""
    return dataclasses.field(default=default, metadata={LATER: True})


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """AutoencoderKL of latent diffusion; the defaults are Stable Diffusion 1.x.

    ``width`` times ``mult`` are the encoder's channels by level; every level but the last halves the size. The
    decoder has its own ``decoder_width`` and ``decoder_mult``, and one block more a level than
    ``decoder_res_blocks``, as in the original. ``attention_levels`` have attention after every block. One that is not
    ``variational`` has no log-variance (MoVQ's). Teacup extras, off by default: ``stem`` s unshuffles s×s pixels into
    channels before the first convolution and shuffles them back after the last; ``shortcuts`` adds DC-AE's
    parameter-free paths around the resamplers (arXiv 2410.10733); ``mid_attention`` False leaves the middle's
    attention out.
    """

    in_channels: int = 3
    out_channels: int = 3
    width: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    z_channels: int = 4
    decoder_width: int = 128
    decoder_mult: tuple[int, ...] = (1, 2, 4, 4)
    decoder_res_blocks: int = 2
    stem: int = 1
    shortcuts: bool = False
    mid_attention: bool = True
    norm_groups: int = 32
    attention_levels: tuple[int, ...] = later(())
    variational: bool = later(True)

    def __post_init__(self) -> None:
        checks.positive(self, "in_channels", "out_channels", "z_channels", "stem", "norm_groups")
        checks.positive(self, "width", "decoder_width", "res_blocks")
        if self.decoder_res_blocks < 0:
            raise InputError(
                f"{checks.name(self)}: decoder_res_blocks is {self.decoder_res_blocks}; it must be at least 0"
            )
        if len(self.mult) != len(self.decoder_mult):
            raise InputError(
                f"{checks.name(self)}: mult {self.mult} and decoder_mult {self.decoder_mult} must have the same"
                " number of levels, so that the decoder's pictures have the encoder's size"
            )
        for field in ("mult", "decoder_mult"):
            widths = checks.widths(self, self.width if field == "mult" else self.decoder_width, field)
            if self.shortcuts:
                checks.foldable(self, field, widths)

    @property
    def factor(self) -> int:
        """Pixels per latent, on a side."""
        return int(self.stem * 2 ** (len(self.mult) - 1))

    @property
    def moments(self) -> int:
        """Channels of what the encoder says."""
        return self.z_channels * (2 if self.variational else 1)


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The U-Net of guided-diffusion, latent diffusion and Kandinsky 2.0.

    ``width`` times ``mult`` are the channels by level, ``res_blocks`` a level; ``attention_levels`` have attention, of kind 'qkv'
    (self-attention, with the text's keys before the picture's where ``context`` is set) or 'transformer' (latent diffusion's);
    the middle always has it. Exactly one of ``heads`` (a number for every level) and ``head_width`` is set. ``context``: width of
    text tokens. ``pooled``: width of a text's one vector, which joins the time embedding through two layers (``label_emb``, as
    in Stable Diffusion unCLIP and XL). ``linear_proj``: the transformer's projections are linear (Stable Diffusion 2).
    ``resample`` 'conv' or 'resblock'. ``scale_shift``: the time embedding scales and shifts after the norm. Teacup extras, off
    by default: ``qk_norm`` normalises queries and keys of every head to a learned length; ``norm_groups`` of GroupNorm;
    ``dropout`` in the residual blocks; ``places`` waves along each axis join the input, so that the network knows where it is;
    ``told``: the first told² of the ``tokens`` say what stands in that many places on a side (``kandinsky_text.PlaceReader``), and
    are added to what is seen there; ``dropped``: names of residual and attention blocks that the input ``keep`` takes away, row by
    row. What the whole network
    says beyond the one without them is where it is heading: a guide as in arXiv 2411.18664 and 2406.02507.

    ``in_channels`` of 2·C + 1, where C are the data's channels, makes it an inpainting network: x, the mask and the masked
    data come in, in this order, as in latent diffusion's (CompVis ``ddpm.py``, ``LatentInpaintDiffusion``).
    """

    in_channels: int
    out_channels: int
    width: int
    mult: tuple[float, ...]
    res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    attention: str = "qkv"
    heads: int | None = None
    head_width: int | None = None
    context: int | None = None
    pooled: int | None = None
    linear_proj: bool = False
    resample: str = "conv"
    scale_shift: bool = False
    qk_norm: bool = False
    norm_groups: int = 32
    dropout: float = 0.0
    places: int = 0
    told: int = later(0)
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(self, "in_channels", "out_channels", "width", "res_blocks", "norm_groups")
        for name in ("places", "told"):
            if getattr(self, name) < 0:
                raise InputError(f"{checks.name(self)}: {name} is {getattr(self, name)}; it must be 0 or more")
        if self.told and self.context is None:
            raise InputError(f"{checks.name(self)}: told is {self.told}, but no context says how wide its tokens are")
        checks.positive(
            self, *(n for n in ("heads", "head_width", "context", "pooled") if getattr(self, n) is not None)
        )
        if self.width % 2:
            raise InputError(
                f"{checks.name(self)}: width is {self.width}; it must be even (half cosines, half sines of the time)"
            )
        if (self.heads is None) == (self.head_width is None):
            raise InputError(
                f"{checks.name(self)}: exactly one of heads ({self.heads}) and head_width ({self.head_width}) must be"
                " set"
            )
        checks.one_of(self, "attention", ("qkv", "transformer"))
        checks.one_of(self, "resample", ("conv", "resblock"))
        if not 0 <= self.dropout < 1:
            raise InputError(f"{checks.name(self)}: dropout is {self.dropout}; it must be in [0, 1)")
        self._check_levels(checks.widths(self, self.width, "mult"))

    def _check_levels(self, widths: Sequence[int]) -> None:
        levels = self.attention_levels
        if len(set(levels)) != len(levels) or any(not 0 <= level < len(widths) for level in levels):
            raise InputError(
                f"{checks.name(self)}: attention_levels is {levels}; allowed are different levels from 0 to"
                f" {len(widths) - 1}"
            )
        for level in sorted({*levels, len(widths) - 1}):  # the middle has the last level's width
            heads = self.heads_of(widths[level])
            if heads == 0 or widths[level] % heads or (self.head_width and widths[level] % self.head_width):
                raise InputError(
                    f"{checks.name(self)}: level {level} has {widths[level]} channels, which heads {self.heads} or"
                    f" head_width {self.head_width} do not divide"
                )

    def heads_of(self, channels: int) -> int:
        """Attention heads at a level of so many channels."""
        return self.heads or channels // (self.head_width or channels)


@dataclass(frozen=True, slots=True)
class TextHeadConfig:
    """Kandinsky 2.0's text head: two encoders' tokens and one pooled vector become ``tokens`` and ``added``.

    ``tokens1``, ``pooled1``, ``tokens2`` are the widths that come in; ``context`` and ``added`` those that go out;
    ``heads`` of the attention pooling over the second encoder's tokens. Teacup extra, off in the original: ``places`` on a side of
    a square, for each of which one token more says what the text puts there (``kandinsky_text.PlaceReader``).
    """

    tokens1: int = 1024
    pooled1: int = 640
    tokens2: int = 512
    context: int = 768
    added: int = 1536
    heads: int = 8
    places: int = later(0)

    def __post_init__(self) -> None:
        checks.positive(self, "tokens1", "pooled1", "tokens2", "context", "added", "heads")
        checks.divides(self, "heads", "tokens2")
        if self.places:
            checks.positive(self, "places")
            checks.divides(self, "heads", "context")


@dataclass(frozen=True, slots=True)
class TextEncoderConfig:
    """The teacup's contrastive text encoder; ``embed`` is the width of the factorised embedding table."""

    vocab: int = 32768
    embed: int = 96
    width: int = 256
    layers: int = 2
    heads: int = 4
    max_length: int = 32
    pooled: int = 256

    def __post_init__(self) -> None:
        checks.positive(self, "vocab", "embed", "width", "layers", "heads", "max_length", "pooled")
        checks.divides(self, "heads", "width")


@dataclass(frozen=True, slots=True)
class T5Config:
    """The teacup's T5-style encoder: ``ff`` is the inner width of the gated feed-forward.

    ``buckets`` of relative position: half of them look back and half ahead; of each half, half are exact and the others
    grow logarithmically up to ``max_distance``.
    """

    vocab: int = 32768
    embed: int = 64
    width: int = 192
    layers: int = 2
    heads: int = 3
    ff: int = 512
    buckets: int = 16
    max_distance: int = 32

    def __post_init__(self) -> None:
        checks.positive(self, "vocab", "embed", "width", "layers", "heads", "ff", "buckets", "max_distance")
        checks.divides(self, "heads", "width")
        if self.buckets % 4 or self.max_distance <= self.buckets // 2:
            raise InputError(
                f"{checks.name(self)}: buckets is {self.buckets} and max_distance {self.max_distance}; buckets must be"
                " a multiple of 4 and max_distance more than half of them"
            )


@dataclass(frozen=True, slots=True)
class ImageTowerConfig:
    """The teacup's picture encoder: 64×64 RGBA → 4×4 places of ``width`` → ``hidden`` → a pooled vector."""

    in_channels: int = 4
    width: int = 192
    blocks: int = 1
    hidden: int = 448
    pooled: int = 256
    norm_groups: int = 16

    def __post_init__(self) -> None:
        checks.positive(self, "in_channels", "width", "blocks", "hidden", "pooled", "norm_groups")
        if self.width % (2 * self.norm_groups):
            raise InputError(
                f"{checks.name(self)}: width is {self.width}; its half must be a multiple of norm_groups"
                f" ({self.norm_groups})"
            )


@dataclass(frozen=True, slots=True)
class UpscalerConfig:
    """The network that doubles a picture's width and height: ``blocks`` residual blocks of ``width`` channels."""

    in_channels: int = 4
    width: int = 48
    blocks: int = 8

    def __post_init__(self) -> None:
        checks.positive(self, "in_channels", "width", "blocks")

    @property
    def reach(self) -> int:
        """How many pixels away something can still change a place: every 3×3 convolution looks one further."""
        return 2 * self.blocks + 2


@dataclass(frozen=True, slots=True)
class CLIPTextConfig:
    """CLIP's text tower (openai/CLIP ``model.py``; open_clip keeps its key names); the defaults are ViT-B/32's.

    ``embed`` is the width of the space that pictures and texts share. ``activation`` is 'quick_gelu' (OpenAI's
    weights) or 'gelu' (OpenCLIP's). What ``tokens`` are is a matter of who reads them: ``skip_last`` counts the
    blocks left out at the end (1 is the penultimate layer, for Stable Diffusion 2) and ``final_norm`` puts
    ``ln_final`` on top all the same. ``added``: how many of ``vocab`` are words that were added behind its own.
    """

    vocab: int = 49408
    context: int = 77
    width: int = 512
    heads: int = 8
    layers: int = 12
    embed: int = 512
    activation: str = "quick_gelu"
    skip_last: int = 0
    final_norm: bool = True
    added: int = later(0)

    def __post_init__(self) -> None:
        _check_activation(self.activation)
        if not 0 <= self.skip_last < self.layers:
            raise InputError(
                f"skip_last is {self.skip_last}; allowed: 0 to {self.layers - 1} (the tower's layers less one)"
            )
        if self.width % self.heads:
            raise InputError(f"width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True, slots=True)
class CLIPVisionConfig:
    """CLIP's picture tower; the defaults are ViT-B/32's.

    ``layers`` is a number for the transformer (then ``patch`` and ``head_width`` count) or four numbers of bottleneck
    blocks for the modified ResNet (``width`` is then that of its first stage). ``resolution`` is the side of its square
    input in pixels.
    """

    resolution: int = 224
    layers: int | tuple[int, ...] = 12
    width: int = 768
    embed: int = 512
    patch: int = 32
    head_width: int = 64
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        _check_activation(self.activation)
        if isinstance(self.layers, tuple):
            if len(self.layers) != 4 or self.resolution % 32:
                raise InputError(
                    f"a ResNet tower has 4 stages and a resolution in multiples of 32, not {len(self.layers)} stages "
                    f"at {self.resolution}"
                )
        elif self.resolution % self.patch or self.width % self.head_width:
            raise InputError(
                f"resolution {self.resolution} must be a multiple of patch {self.patch}, and width {self.width} of "
                f"head_width {self.head_width}"
            )


def _check_activation(name: str) -> None:
    if name not in ("quick_gelu", "gelu"):
        raise InputError(f"activation is {name!r}; allowed: 'quick_gelu', 'gelu'")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The detector that judges drawings: RGBA of ``side`` pixels → centres, boxes and masks on a grid of ``side`` / 4 places.

    ``classes`` things, and one class more for what is none of them. ``width`` channels on the grid, twice and four times as
    many at half and at a quarter of it, with ``blocks`` residual blocks there.
    """

    classes: int = 99
    in_channels: int = 4
    side: int = 128
    width: int = 64
    blocks: int = 2
    norm_groups: int = 8

    def __post_init__(self) -> None:
        checks.positive(self, "classes", "in_channels", "side", "width", "blocks", "norm_groups")
        checks.divides(self, "norm_groups", "width")
        if self.side % 16 or self.width % (2 * self.norm_groups):
            raise InputError(
                f"{checks.name(self)}: side is {self.side} and width {self.width}; side must be a multiple of 16 and half of"
                f" width one of norm_groups ({self.norm_groups})"
            )

    @property
    def grid(self) -> int:
        """Places along each side of what the network says."""
        return self.side // 4


def to_json(config: Any) -> str:
    """A config as compact JSON with sorted keys, for a weight file's metadata."""
    fields = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        if LATER in field.metadata and fields[field.name] == field.default:
            del fields[field.name]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def from_json(cls: type[Config], text: str) -> Config:
    """Read a config back. Raises WeightsError when its fields are not those of ``cls`` (a file of another version)."""
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"this is not a {cls.__name__}: {error}") from error
