"""Against another reader of the same formats: sd-parsers reads what is written here, and both read the same of others' files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sd_parsers import ParserManager

from chashka import images
from chashka.images.foreign import read_foreign
from chashka.request import Picture, Request
from foreign_files import EVERY

pytestmark = pytest.mark.extra


def read_by_others(data: bytes) -> tuple[str, str, str, object, object]:
    """(prompt, negative prompt, sampler, seed, steps) as sd-parsers sees them."""
    with Image.open(io.BytesIO(data)) as image:
        found = ParserManager().parse(image)
    assert found is not None
    (sampler,) = found.samplers
    prompts, negatives = (" ".join(one.value for one in many) for many in (sampler.prompts, sampler.negative_prompts))
    return prompts, negatives, str(sampler.name), sampler.parameters.get("seed"), sampler.parameters.get("steps")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_is_written_here_is_read_there(tmp_path: Path, suffix: str) -> None:
    request = Request(
        prompt="кот с чашкой, ночь", negative_prompt="туман", steps=20, sampler="euler_a", guidance_scale=4.5, seed=9
    )
    picture = Picture(
        np.full((16, 16, 4), 200, np.uint8), seed=9, index=0, request=request, model="teacup", family="kandinsky"
    )
    path = images.save(picture, tmp_path / f"кот{suffix}")
    prompt, negative, sampler, seed, steps = read_by_others(path.read_bytes())
    assert (prompt, negative, sampler, str(seed), str(steps)) == ("кот с чашкой, ночь", "туман", "euler_a", "9", "20")


NOT_THERE = ("ComfyUI png", "ComfyUI webp", "ComfyUI flux", "AUTOMATIC1111 jpeg, other byte order")
"""What sd-parsers does not look for: texts that come from another node, ComfyUI's WebP, the other byte order."""


@pytest.mark.parametrize("name", [name for name in EVERY if name not in NOT_THERE])
def test_both_read_the_same(name: str) -> None:
    ours = read_foreign(EVERY[name])
    prompt, negative, sampler, seed, steps = read_by_others(EVERY[name])
    assert ours is not None
    assert (ours.prompt, ours.negative_prompt, ours.sampler) == (prompt, negative, sampler)
    assert str(ours.seed) == str(seed)
    assert steps is None or str(ours.steps) == str(steps)
