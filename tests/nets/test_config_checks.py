"""What configurations refuse before any network is built. Runs without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chashka.errors import InputError, WeightsError
from chashka.nets import configs
from chashka.nets.configs import AutoencoderConfig
from chashka.nets.teacup_configs import (
    TEACUP_AUTOENCODER,
    TEACUP_IMAGE_TOWER,
    TEACUP_T5,
    TEACUP_TEXT,
    TEACUP_TEXT_HEAD,
    TEACUP_UNET,
    TEACUP_UPSCALER,
)

WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (TEACUP_AUTOENCODER, {"width": 0}, "width is 0; it must be a whole number of at least 1"),
    (TEACUP_AUTOENCODER, {"stem": True}, "stem is True"),
    (TEACUP_AUTOENCODER, {"mult": (1, 2)}, "same number of levels"),
    (TEACUP_AUTOENCODER, {"mult": (), "decoder_mult": ()}, "at least one level"),
    (TEACUP_AUTOENCODER, {"norm_groups": 24}, r"mult \(1, 2, 2\) gives \[64, 128, 128\] channels"),
    (TEACUP_AUTOENCODER, {"mult": (1, 3, 3)}, r"next level \(192 channels\) must divide four times"),
    (TEACUP_AUTOENCODER, {"decoder_res_blocks": -1}, "decoder_res_blocks is -1"),
    (TEACUP_UNET, {"heads": 4}, r"exactly one of heads \(4\) and head_width \(32\)"),
    (TEACUP_UNET, {"head_width": 48}, "level 1 has 128 channels"),
    (TEACUP_UNET, {"head_width": None, "heads": 3}, "level 1 has 128 channels"),
    (TEACUP_UNET, {"attention_levels": (1, 3)}, "allowed are different levels from 0 to 2"),
    (TEACUP_UNET, {"attention_levels": (1, 1)}, "different levels"),
    (TEACUP_UNET, {"width": 48}, "multiple of norm_groups"),
    (TEACUP_UNET, {"width": 33, "norm_groups": 1, "head_width": 1}, "it must be even"),
    (TEACUP_UNET, {"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
    (TEACUP_TEXT_HEAD, {"heads": 5}, r"heads is 5; it must divide tokens2 \(192\)"),
    (TEACUP_TEXT, {"heads": 3}, r"heads is 3; it must divide width \(256\)"),
    (TEACUP_TEXT, {"max_length": 0}, "max_length is 0"),
    (TEACUP_T5, {"heads": 5}, "must divide width"),
    (TEACUP_T5, {"buckets": 6}, "multiple of 4"),
    (TEACUP_T5, {"max_distance": 8}, "max_distance 8"),
    (TEACUP_IMAGE_TOWER, {"width": 176}, "its half must be a multiple of norm_groups"),
    (TEACUP_UPSCALER, {"blocks": 0}, "blocks is 0"),
]


@pytest.mark.parametrize(("config", "change", "message"), WRONG)
def test_what_cannot_be_built_is_refused(config: Any, change: dict[str, Any], message: str) -> None:
    """One line that names the configuration, the value and what is allowed."""
    with pytest.raises(InputError, match=message) as caught:
        replace(config, **change)
    assert str(caught.value).startswith(type(config).__name__)
    assert "\n" not in str(caught.value)


def test_unusual_widths_are_fine_with_other_norm_groups() -> None:
    assert replace(TEACUP_UNET, width=96, norm_groups=16).heads_of(96) == 3
    assert replace(TEACUP_UNET, width=48, norm_groups=16, head_width=24).width == 48


def test_a_file_from_before_a_field_gets_its_default() -> None:
    assert configs.from_json(AutoencoderConfig, '{"stem":4}') == AutoencoderConfig(stem=4)


@pytest.mark.parametrize("text", ['{"width":-1}', '{"width":"wide"}', '{"mult":[1,2]}', '{"mult":4}'])
def test_a_file_that_cannot_be_built_is_a_weights_error(text: str) -> None:
    with pytest.raises(WeightsError, match="this is not a AutoencoderConfig"):
        configs.from_json(AutoencoderConfig, text)


def test_factor_is_the_pixels_of_one_latent() -> None:
    assert AutoencoderConfig().factor == 8
    assert TEACUP_AUTOENCODER.factor == 16
