"""Configurations of every network, as frozen dataclasses without torch: they are stored in the weight files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """AutoencoderKL of latent diffusion; the defaults are Stable Diffusion 1.x.

    ``width`` times ``mult`` are the encoder's channels by level; every level but the last halves the size. The decoder has its
    own ``decoder_width`` and ``decoder_mult`` and one block more a level than ``decoder_res_blocks``, as in the original.
    Teacup extras, off by default: ``stem`` s unshuffles s×s pixels into channels before the first convolution and shuffles them
    back after the last; ``shortcuts`` adds DC-AE's parameter-free paths around the resamplers (arXiv 2410.10733);
    ``mid_attention`` False leaves the middle's attention out.
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
