"""The published Kandinsky 2.0 at tiny sizes, opened."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from published_folder import SIZES, UNET

from chashka.families import Bundle, EngineChoice
from chashka.families.kandinsky import PUBLISHED
from chashka.families.kandinsky.published import open_inpainting, open_text


def tiny(preset: Any, folder: Path | None) -> Any:
    text = preset.name == PUBLISHED.name
    sizes = SIZES if text else replace(SIZES, unet=replace(UNET, in_channels=9))
    opener = open_text if text else open_inpainting
    return replace(preset, folder=folder, open=partial(opener, sizes=sizes))


def opened(preset: Any, folder: Path) -> Bundle:
    made = tiny(preset, folder)
    result: Bundle = made.open(made, EngineChoice("torch"))
    return result
