"""The published sizes of CLIP's models, as configurations without torch."""

from __future__ import annotations

from typing import TypeAlias

from chashka.nets.configs import CLIPTextConfig, CLIPVisionConfig

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the training pictures by channel (openai/CLIP ``clip.py``, ``_transform``), for pixels in [0, 1]."""

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
