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

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """AutoencoderKL of latent diffusion; the defaults are Stable Diffusion 1.x.

    ``width`` times ``mult`` are the encoder's channels by level; every level but the last halves the size. The decoder
    has its own ``decoder_width`` and ``decoder_mult``, and one block more a level than ``decoder_res_blocks``, as in the
    original. Teacup extras, off by default: ``stem`` s unshuffles s×s pixels into channels before the first convolution
    and shuffles them back after the last; ``shortcuts`` adds DC-AE's parameter-free paths around the resamplers
    (arXiv 2410.10733); ``mid_attention`` False leaves the middle's attention out; ``latent_bound`` b bends the encoder's
    means into b·tanh(mean / b), so that no latent is farther out than b.
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
    latent_bound: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "out_channels", "z_channels", "stem", "norm_groups")
        _positive(self, "width", "decoder_width", "res_blocks")
        if self.decoder_res_blocks < 0:
            raise InputError(f"{_name(self)}: decoder_res_blocks is {self.decoder_res_blocks}; it must be at least 0")
        if len(self.mult) != len(self.decoder_mult):
            raise InputError(
                f"{_name(self)}: mult {self.mult} and decoder_mult {self.decoder_mult} must have the same number of"
                " levels, so that the decoder's pictures have the encoder's size"
            )
        for field in ("mult", "decoder_mult"):
            widths = _widths(self, getattr(self, "width" if field == "mult" else "decoder_width"), field)
            if self.shortcuts:
                _foldable(self, field, widths)
        if self.latent_bound is not None and self.latent_bound <= 0:
            raise InputError(
                f"{_name(self)}: latent_bound is {self.latent_bound}; it must be positive, or None for no bound"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent, on a side."""
        return int(self.stem * 2 ** (len(self.mult) - 1))


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The U-Net of guided-diffusion, latent diffusion and Kandinsky 2.0.

    ``width`` times ``mult`` are the channels by level, ``res_blocks`` a level; ``attention_levels`` have attention, of
    kind 'qkv' (self-attention, with the text's keys before the picture's where ``context`` is set) or 'transformer'
    (latent diffusion's spatial transformer); the middle always has it. Exactly one of ``heads`` (a number for every
    level) and ``head_width`` is set. ``context`` is the width of text tokens. ``linear_proj``: the transformer's
    projections are linear (Stable Diffusion 2). ``resample`` 'conv' or 'resblock'. ``scale_shift``: the time embedding
    scales and shifts after the norm.
    Teacup extras, off by default: ``qk_norm`` normalises queries and keys of every head to a learned length;
    ``norm_groups`` of GroupNorm; ``dropout`` in the residual blocks; ``cross_attention_levels`` attend to the text
    alone, which stays cheap where there are many places.
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
    linear_proj: bool = False
    resample: str = "conv"
    scale_shift: bool = False
    qk_norm: bool = False
    norm_groups: int = 32
    dropout: float = 0.0
    cross_attention_levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "out_channels", "width", "res_blocks", "norm_groups")
        _positive(self, *(field for field in ("heads", "head_width", "context") if getattr(self, field) is not None))
        if self.width % 2:
            raise InputError(
                f"{_name(self)}: width is {self.width}; it must be even (half cosines, half sines of the time)"
            )
        if (self.heads is None) == (self.head_width is None):
            raise InputError(
                f"{_name(self)}: exactly one of heads ({self.heads}) and head_width ({self.head_width}) must be set"
            )
        _one_of(self, "attention", ("qkv", "transformer"))
        _one_of(self, "resample", ("conv", "resblock"))
        if not 0 <= self.dropout < 1:
            raise InputError(f"{_name(self)}: dropout is {self.dropout}; it must be in [0, 1)")
        self._check_levels(_widths(self, self.width, "mult"))

    def _check_levels(self, widths: Sequence[int]) -> None:
        levels = (*self.attention_levels, *self.cross_attention_levels)
        if len(set(levels)) != len(levels) or any(not 0 <= level < len(widths) for level in levels):
            raise InputError(
                f"{_name(self)}: attention_levels {self.attention_levels} and cross_attention_levels"
                f" {self.cross_attention_levels} must be different levels from 0 to {len(widths) - 1}"
            )
        if self.cross_attention_levels and self.context is None:
            raise InputError(f"{_name(self)}: cross_attention_levels need text tokens: set context, their width")
        for level in {*levels, len(widths) - 1}:  # the middle has the last level's width
            heads = self.heads_of(widths[level])
            if heads == 0 or widths[level] % heads or (self.head_width and widths[level] % self.head_width):
                raise InputError(
                    f"{_name(self)}: level {level} has {widths[level]} channels, which heads {self.heads} or"
                    f" head_width {self.head_width} do not divide"
                )

    def heads_of(self, channels: int) -> int:
        """Attention heads at a level of so many channels."""
        return self.heads or channels // (self.head_width or channels)


@dataclass(frozen=True, slots=True)
class TextHeadConfig:
    """Kandinsky 2.0's text head: two encoders' tokens and one pooled vector become ``tokens`` and ``added``.

    ``tokens1``, ``pooled1``, ``tokens2`` are the widths that come in; ``context`` and ``added`` those that go out;
    ``heads`` of the attention pooling over the second encoder's tokens. The defaults are Kandinsky 2.0's.
    """

    tokens1: int = 1024
    pooled1: int = 640
    tokens2: int = 512
    context: int = 768
    added: int = 1536
    heads: int = 8

    def __post_init__(self) -> None:
        _positive(self, "tokens1", "pooled1", "tokens2", "context", "added", "heads")
        _divides(self, "heads", "tokens2")


@dataclass(frozen=True, slots=True)
class TextEncoderConfig:
    """The teacup's contrastive text encoder; ``embed`` is the width of the factorised embedding table."""

    vocab: int = 32768
    embed: int = 96
    width: int = 256
    layers: int = 3
    heads: int = 4
    max_length: int = 32
    pooled: int = 256

    def __post_init__(self) -> None:
        _positive(self, "vocab", "embed", "width", "layers", "heads", "max_length", "pooled")
        _divides(self, "heads", "width")


@dataclass(frozen=True, slots=True)
class T5Config:
    """The teacup's T5-style encoder: ``ff`` is the inner width of the gated feed-forward.

    ``buckets`` of relative position: half of them look back and half ahead; of each half, half are exact and the others
    grow logarithmically up to ``max_distance``.
    """

    vocab: int = 32768
    embed: int = 64
    width: int = 192
    layers: int = 3
    heads: int = 3
    ff: int = 512
    buckets: int = 16
    max_distance: int = 32

    def __post_init__(self) -> None:
        _positive(self, "vocab", "embed", "width", "layers", "heads", "ff", "buckets", "max_distance")
        _divides(self, "heads", "width")
        if self.buckets % 4 or self.max_distance <= self.buckets // 2:
            raise InputError(
                f"{_name(self)}: buckets is {self.buckets} and max_distance {self.max_distance}; buckets must be a multiple"
                " of 4 and max_distance more than half of them"
            )


@dataclass(frozen=True, slots=True)
class ImageTowerConfig:
    """The teacup's picture tower: 64×64 RGBA → an 8×8 grid of ``width`` and a pooled vector."""

    in_channels: int = 4
    width: int = 192
    blocks: int = 2
    pooled: int = 256
    norm_groups: int = 16

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "width", "blocks", "pooled", "norm_groups")
        if self.width % (2 * self.norm_groups):
            raise InputError(
                f"{_name(self)}: width is {self.width}; its half must be a multiple of norm_groups ({self.norm_groups})"
            )


@dataclass(frozen=True, slots=True)
class CLIPConfig:
    """OpenAI's CLIP (arXiv 2103.00020); the defaults are ViT-B/32.

    ``vision_layers`` is a number for a vision transformer with ``patch`` pixels a side, and four numbers for a modified
    ResNet, which has no ``patch``. ``embed`` is the width that both towers meet at. Heads of the picture's tower are 64
    wide unless ``vision_heads`` says otherwise. ``activation`` is 'quick_gelu' (OpenAI) or 'gelu' (OpenCLIP's ViT-H).
    """

    embed: int = 512
    image_size: int = 224
    vision_layers: int | tuple[int, ...] = 12
    vision_width: int = 768
    patch: int | None = 32
    vision_heads: int | None = None
    context_length: int = 77
    vocab: int = 49408
    text_width: int = 512
    text_heads: int = 8
    text_layers: int = 12
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        _positive(self, "embed", "image_size", "vision_width", "context_length", "vocab")
        _positive(self, "text_width", "text_heads", "text_layers")
        _divides(self, "text_heads", "text_width")
        _one_of(self, "activation", ("quick_gelu", "gelu"))
        if isinstance(self.vision_layers, int):
            if not self.patch or self.image_size % self.patch:
                raise InputError(
                    f"{_name(self)}: patch is {self.patch}; a vision transformer needs one that divides image_size"
                    f" ({self.image_size})"
                )
        elif len(self.vision_layers) != 4 or self.patch is not None or self.image_size % 32:
            raise InputError(
                f"{_name(self)}: a ResNet has four vision_layers (here {self.vision_layers}), no patch (here"
                f" {self.patch}) and an image_size that is a multiple of 32 (here {self.image_size})"
            )
        if not self.heads_of_vision or self.vision_features % self.heads_of_vision:
            raise InputError(
                f"{_name(self)}: {self.heads_of_vision} heads do not divide the picture's {self.vision_features} features"
            )

    @property
    def vision_features(self) -> int:
        """Width of the picture's features before the projection: a ResNet's last stage is 32 times its first."""
        return self.vision_width if isinstance(self.vision_layers, int) else 32 * self.vision_width

    @property
    def heads_of_vision(self) -> int:
        return self.vision_features // 64 if self.vision_heads is None else self.vision_heads


TEACUP_AUTOENCODER = AutoencoderConfig(
    in_channels=4,
    out_channels=4,
    width=64,
    mult=(1, 2, 2),
    res_blocks=1,
    z_channels=16,
    decoder_width=80,
    decoder_mult=(1, 2, 2),
    decoder_res_blocks=1,
    stem=4,
    shortcuts=True,
    mid_attention=False,
    norm_groups=16,
)
TEACUP_UNET = UNetConfig(
    in_channels=16,
    out_channels=16,
    width=64,
    mult=(1, 2, 2),
    res_blocks=2,
    attention_levels=(1, 2),
    head_width=32,
    context=256,
    resample="resblock",
    scale_shift=True,
    qk_norm=True,
    dropout=0.0,
)
TEACUP_TEXT_HEAD = TextHeadConfig(tokens1=256, pooled1=256, tokens2=192, context=256, added=256, heads=4)
TEACUP_TEXT = TextEncoderConfig()
TEACUP_T5 = T5Config()
TEACUP_IMAGE_TOWER = ImageTowerConfig()


CLIPPair: TypeAlias = tuple[CLIPTextConfig, CLIPVisionConfig]
"""The text tower and the picture tower of one model."""


def _clip_resnet(layers: tuple[int, ...], width: int, resolution: int, text: int, embed: int) -> CLIPPair:
    tower = CLIPVisionConfig(resolution=resolution, layers=layers, width=width, embed=embed)
    return CLIPTextConfig(width=text, heads=text // 64, embed=embed), tower


_LARGE = CLIPTextConfig(width=768, heads=12, embed=768)
# As published: the sizes lie in the weight files of openai/CLIP; ViT-H/14 is open_clip's model_configs/ViT-H-14.json,
# read as Stable Diffusion 2 reads it (penultimate layer, then the final norm).
CLIP_PRESETS: dict[str, CLIPPair] = {
    "RN50": _clip_resnet((3, 4, 6, 3), 64, 224, 512, 1024),
    "RN101": _clip_resnet((3, 4, 23, 3), 64, 224, 512, 512),
    "RN50x4": _clip_resnet((4, 6, 10, 6), 80, 288, 640, 640),
    "RN50x16": _clip_resnet((6, 8, 18, 8), 96, 384, 768, 768),
    "RN50x64": _clip_resnet((3, 15, 36, 10), 128, 448, 1024, 1024),
    "ViT-B/32": (CLIPTextConfig(), CLIPVisionConfig()),
    "ViT-B/16": (CLIPTextConfig(), CLIPVisionConfig(patch=16)),
    "ViT-L/14": (_LARGE, CLIPVisionConfig(layers=24, width=1024, patch=14, embed=768)),
    "ViT-L/14@336px": (_LARGE, CLIPVisionConfig(resolution=336, layers=24, width=1024, patch=14, embed=768)),
    "OpenCLIP-ViT-H/14": (
        CLIPTextConfig(width=1024, heads=16, layers=24, embed=1024, activation="gelu", skip_last=1),
        CLIPVisionConfig(layers=32, width=1280, patch=14, embed=1024, head_width=80, activation="gelu"),
    ),
}
CLIP_VIT_B_32 = CLIPConfig()
CLIP_VIT_B_16 = CLIPConfig(patch=16)
CLIP_VIT_L_14 = CLIPConfig(
    embed=768, vision_layers=24, vision_width=1024, patch=14, text_width=768, text_heads=12, text_layers=12
)
CLIP_RN50 = CLIPConfig(embed=1024, vision_layers=(3, 4, 6, 3), vision_width=64, patch=None)


def to_json(config: Any) -> str:
    """A config as compact JSON with sorted keys, for a weight file's metadata."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True, separators=(",", ":"))


def from_json(cls: type[Config], text: str) -> Config:
    """Read a config back. Raises WeightsError when its fields are not those of ``cls`` (a file of another version)."""
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"this is not a {cls.__name__}: {error}") from error


def _name(config: Any) -> str:
    return type(config).__name__


def _positive(config: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{_name(config)}: {field} is {value!r}; it must be a whole number of at least 1")


def _divides(config: Any, part: str, whole: str) -> None:
    if getattr(config, whole) % getattr(config, part):
        raise InputError(
            f"{_name(config)}: {part} is {getattr(config, part)}; it must divide {whole} ({getattr(config, whole)})"
        )


def _one_of(config: Any, field: str, allowed: Sequence[str]) -> None:
    if getattr(config, field) not in allowed:
        raise InputError(f"{_name(config)}: {field} is {getattr(config, field)!r}; allowed: {', '.join(allowed)}")


def _widths(config: Any, width: int, field: str) -> list[int]:
    """Channels by level, checked against GroupNorm."""
    mult = getattr(config, field)
    widths = [int(width * m) for m in mult]
    if not widths or any(w < 1 or w % config.norm_groups for w in widths):
        raise InputError(
            f"{_name(config)}: {field} {mult} gives {widths} channels; there must be at least one level, and every"
            f" level's channels must be a multiple of norm_groups ({config.norm_groups})"
        )
    return widths


def _foldable(config: Any, field: str, widths: Sequence[int]) -> None:
    """DC-AE's paths fold 2×2 places into four times the channels and average groups of them (or repeat, going up)."""
    for fine, coarse in zip(widths, widths[1:], strict=False):
        if 4 * fine % coarse:
            raise InputError(
                f"{_name(config)}: with shortcuts, {field}'s next level ({coarse} channels) must divide four times the level"
                f" before it ({fine} channels)"
            )
