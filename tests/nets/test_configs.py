"""Configs: what is stored in a weight file comes back, and what cannot be built is refused with a reason."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from chashka.errors import WeightsError
from chashka.nets import teacup_configs
from chashka.nets.clip_presets import CLIP_PRESETS
from chashka.nets.configs import (
    AutoencoderConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    TextHeadConfig,
    UNetConfig,
    from_json,
    to_json,
)


def presets() -> dict[str, Any]:
    """Every config that the module offers by name, and the plain defaults of the classes that have them."""
    found = {
        name: value
        for name, value in vars(teacup_configs).items()
        if name.isupper() and dataclasses.is_dataclass(value)
    }
    for name, (text, vision) in CLIP_PRESETS.items():
        found |= {f"{name} text": text, f"{name} vision": vision}
    return found | {
        cls.__name__: cls() for cls in (AutoencoderConfig, TextHeadConfig, CLIPTextConfig, CLIPVisionConfig)
    }


PRESETS = presets()
STABLE = UNetConfig(4, 4, 320, (1, 2, 4, 4), 2, (0, 1, 2), "transformer", heads=8, context=768)
HALF = UNetConfig(
    3, 6, 256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6), head_width=64, resample="resblock", scale_shift=True
)


def test_the_teacup_has_presets() -> None:
    assert {"TEACUP_AUTOENCODER", "TEACUP_UNET", "TEACUP_TEXT_HEAD", "TEACUP_TEXT", "TEACUP_T5"} <= PRESETS.keys()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_come_back_from_json(name: str) -> None:
    config = PRESETS[name]
    back = from_json(type(config), to_json(config))
    assert back == config
    assert hash(back) == hash(config)  # tuples are tuples again, not lists
    assert to_json(back) == to_json(config)


@pytest.mark.parametrize("config", [STABLE, HALF], ids=["stable diffusion", "half first width"])
def test_originals_come_back_from_json(config: UNetConfig) -> None:
    assert from_json(UNetConfig, to_json(config)) == config


def test_json_is_compact_and_sorted() -> None:
    text = to_json(STABLE)
    said = {field.name for field in dataclasses.fields(STABLE)}
    assert list(json.loads(text)) == sorted(said - {"told"}), "a field of later, which says nothing here, is left out"
    assert list(json.loads(to_json(dataclasses.replace(STABLE, told=4)))) == sorted(said)
    assert " " not in text


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STABLE.width = 1  # type: ignore[misc]


def fields(**changes: object) -> str:
    return json.dumps(dataclasses.asdict(STABLE) | changes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (fields(colour="blue"), "colour"),
        ('{"in_channels": 4}', "out_channels"),
        (fields(attention="none"), "attention is 'none'; allowed: 'qkv', 'transformer'"),
        (fields(resample="bilinear"), "resample is 'bilinear'; allowed: 'conv', 'resblock'"),
        (fields(head_width=64), r"exactly one of heads \(8\) and head_width \(64\)"),
        (fields(heads=None), r"exactly one of heads \(None\) and head_width \(None\)"),
        ("[1, 2]", "list"),
        ("null", "NoneType"),
        ("not json", "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_what_is_not_a_unet_config_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=f"^this is not a UNetConfig: .*{reason}") as caught:
        from_json(UNetConfig, text)
    assert "\n" not in str(caught.value)


def test_a_config_of_another_class_is_refused() -> None:
    with pytest.raises(WeightsError, match="this is not a AutoencoderConfig"):
        from_json(AutoencoderConfig, to_json(STABLE))


@pytest.mark.parametrize("heads", [{}, {"heads": 4, "head_width": 16}])
def test_a_unet_has_exactly_one_way_to_count_heads(heads: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="exactly one of heads"):
        UNetConfig(3, 3, 32, (1, 2), **heads)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("attention", "linear"), ("resample", "")])
def test_a_unet_names_what_is_allowed(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value!r}; allowed: "):
        dataclasses.replace(STABLE, **{field: value})  # type: ignore[arg-type]


def test_heads_of_a_level() -> None:
    assert [STABLE.heads_of(channels) for channels in (320, 640, 1280)] == [8, 8, 8]
    assert [HALF.heads_of(channels) for channels in (256, 512, 1024)] == [4, 8, 16]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "relu"}, "activation is 'relu'; allowed: 'quick_gelu', 'gelu'"),
        ({"skip_last": 12}, "skip_last is 12; allowed: 0 to 11"),
        ({"skip_last": -1}, "skip_last is -1; allowed: 0 to 11"),
        ({"heads": 7}, "width 512 is not a multiple of heads 7"),
    ],
)
def test_clip_text_configs_that_cannot_be(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CLIPTextConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"patch": 33}, "resolution 224 must be a multiple of patch 33"),
        ({"head_width": 65}, "width 768 of head_width 65"),
        ({"layers": (1, 2, 3)}, "a ResNet tower has 4 stages .* not 3 stages at 224"),
        ({"layers": (1, 1, 1, 1), "resolution": 40}, "in multiples of 32, not 4 stages at 40"),
    ],
)
def test_clip_vision_configs_that_cannot_be(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CLIPVisionConfig(**changes)
