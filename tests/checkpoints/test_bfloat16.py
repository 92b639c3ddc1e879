"""bfloat16 in numpy: the file's own bytes, never taken for numbers, widened exactly where something computes."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfloat16_files import as_bfloat16, twins, widened
from chashka.checkpoints import content, diffusers_names, embedding, layout, lora, low_rank, read_tensors, write
from chashka.checkpoints.bfloat16 import BFLOAT16, computable, joinable
from chashka.checkpoints.torch_file import not_finite, read_checkpoint
from chashka.errors import WeightsError
from chashka.nets.configs import UNetConfig

ODD = np.array([0.0, -0.0, 1.0, -2.5, 3.140625, 1e30, 1e-40, np.inf, -np.inf, np.nan], np.float32)
RANDOM = np.random.default_rng(0)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Bit by bit, so that what is no number is compared too."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def test_every_number_is_widened_exactly() -> None:
    every = np.arange(65536, dtype=np.uint32)
    bits = every.astype("<u2").view(BFLOAT16).reshape(256, 256)
    assert same(computable(bits), (every << 16).view(np.float32).reshape(256, 256))
    assert same(computable(bits.T), computable(bits).T)
    assert same(computable(bits[::3, 5:9]), computable(bits)[::3, 5:9])
    one = computable(as_bfloat16(2.5))
    assert isinstance(one, np.ndarray) and one.shape == () and one == 2.5
    assert computable(np.zeros((0, 4), BFLOAT16)).shape == (0, 4)
    assert same(computable(as_bfloat16(ODD)), widened(as_bfloat16(ODD)))


def test_what_is_not_bfloat16_stays_the_same_memory() -> None:
    for kind in (np.float16, np.float32, np.float64, np.int8, np.uint16, bool):
        given = np.ones(3, kind)
        assert computable(given) is given


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: np.asarray(a, np.float32),
        lambda a: np.array(a, np.float32),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(np.float16),
        lambda a: np.isfinite(a),
        lambda a: a * 2,
        lambda a: a + a,
        lambda a: a @ a.T,
        lambda a: np.abs(a).max(),
        lambda a: a.sum(),
        lambda a: np.concatenate([a, np.ones((2, 4), np.float32)]),
    ],
)
def test_bits_are_never_taken_for_numbers(wrong: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        wrong(as_bfloat16(RANDOM.standard_normal((2, 4))))


def test_a_file_is_mapped_and_nothing_of_it_is_copied(tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    stored = {"wide": as_bfloat16(RANDOM.standard_normal((3, 5, 2, 2))), "odd": as_bfloat16(ODD)}
    stored |= {"one": as_bfloat16(0.5), "none": np.zeros((0, 4), BFLOAT16), "half": np.ones(3, np.float16)}
    write(file, stored, {"a": "b"})
    assert {place.dtype for place in layout(file)[0].values()} == {"BF16", "F16"}
    for read in (read_tensors, read_checkpoint):
        found = read(file)
        assert found.keys() == stored.keys()
        for name, array in stored.items():
            assert same(found[name], np.asarray(array)), name
            base: Any = found[name]
            while base is not None and not isinstance(base, mmap.mmap):
                base = getattr(base, "base", None)
            assert base is not None, f"{name} is no part of the mapped file"


def test_data_at_odd_places_are_read(tmp_path: Path) -> None:
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header["b"] = {"dtype": "BF16", "shape": [10], "data_offsets": [1, 21]}
    text = json.dumps(header).encode()
    text += b" " * (len(text) % 2)
    file = tmp_path / "b.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" + as_bfloat16(ODD).tobytes())
    assert layout(file)[0]["b"].offset % 2 == 1
    assert same(read_tensors(file)["b"], as_bfloat16(ODD))
    assert content.is_safetensors(file)


def test_a_file_that_is_cut_off_or_lies_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "b.safetensors", {"a": as_bfloat16(ODD)}, {})
    whole = (tmp_path / "b.safetensors").read_bytes()
    for spoiled in (whole[:-2], whole + b"\0\0", whole.replace(b"[10]", b"[11]")):
        (tmp_path / "b.safetensors").write_bytes(spoiled)
        with pytest.raises(WeightsError, match="damaged"):
            read_tensors(tmp_path / "b.safetensors")


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    good = as_bfloat16(RANDOM.standard_normal(7))
    write(tmp_path / "b.safetensors", {"good": good, "ids": np.arange(3), "nan": as_bfloat16(ODD[-1:])}, {})
    assert not_finite(tmp_path / "b.safetensors") == ["nan"]
    write(tmp_path / "b.safetensors", {"inf": as_bfloat16(ODD[7]), "good": good, "none": np.zeros(0, BFLOAT16)}, {})
    assert not_finite(tmp_path / "b.safetensors") == ["inf"]


def test_what_is_joined_stays_small_or_is_widened() -> None:
    short, wide = as_bfloat16(ODD), RANDOM.standard_normal(4).astype(np.float32)
    assert same(np.concatenate(joinable([short, short])), as_bfloat16(np.tile(ODD, 2)))
    assert same(np.concatenate(joinable([short, wide])), np.concatenate([widened(short), wide]))
    assert joinable([]) == []


def lora_file(place: Path, tensors: dict[str, np.ndarray]) -> Path:
    write(place, tensors, {})
    return place


def test_a_lora_is_what_its_float32_twin_is(tmp_path: Path) -> None:
    """alpha too, a single number: it was lost, so that such LoRAs were as many times too strong as their rank is its multiple."""
    made = {
        "lora_unet_input_blocks_0_0.lora_down.weight": RANDOM.standard_normal((4, 3, 3, 3)),
        "lora_unet_input_blocks_0_0.lora_up.weight": RANDOM.standard_normal((5, 4, 1, 1)),
        "lora_unet_input_blocks_0_0.alpha": np.array(2.0),
    }
    short, wide = twins(made)
    (ours,), (theirs,) = (
        lora.read(lora_file(tmp_path / f"{name}.safetensors", tensors))
        for name, tensors in (("short", short), ("wide", wide))
    )
    assert ours.scale == theirs.scale == 0.5
    assert same(ours.product(), theirs.product())
    base = {"input_blocks.0.0.weight": RANDOM.standard_normal((5, 3, 3, 3))}
    merged = [
        lora.merged([theirs], {"unet": 0.7}, {"unet": weights}, {"unet": {}}, tmp_path)["unet"]
        for weights in twins(base)
    ]
    assert same(merged[0]["input_blocks.0.0.weight"], merged[1]["input_blocks.0.0.weight"])
    spoiled = short | {"lora_unet_input_blocks_0_0.lora_up.weight": as_bfloat16(np.full((5, 4, 1, 1), np.inf))}
    with pytest.raises(WeightsError, match="not finite"):
        lora.read(lora_file(tmp_path / "spoiled.safetensors", spoiled))
    spoiled = short | {"lora_unet_input_blocks_0_0.alpha": as_bfloat16(np.nan)}
    with pytest.raises(WeightsError, match="alpha has nan; expected is one finite number"):
        lora.read(lora_file(tmp_path / "spoiled.safetensors", spoiled))


def test_an_embedding_is_what_its_float32_twin_is(tmp_path: Path) -> None:
    short, wide = twins({"emb_params": RANDOM.standard_normal((2, 8))})
    write(tmp_path / "a.safetensors", short, {})
    assert same(embedding.read(tmp_path / "a.safetensors", 8)[1], wide["emb_params"])
    write(tmp_path / "a.safetensors", {"emb_params": as_bfloat16(np.full((2, 8), np.nan))}, {})
    with pytest.raises(WeightsError, match="not finite"):
        embedding.read(tmp_path / "a.safetensors", 8)


def test_changes_of_low_rank_are_added() -> None:
    base, change = {"a.weight": RANDOM.standard_normal((4, 6))}, RANDOM.standard_normal((2, 6))
    changes = {"a.up": RANDOM.standard_normal((4, 2)), "a.down": change}
    ours, theirs = (low_rank.changed(b, c, "") for b, c in zip(twins(base), twins(changes), strict=True))
    assert same(ours["a.weight"], theirs["a.weight"])


MIXED = pytest.mark.parametrize("mixed", [False, True], ids=["all of it", "beside float32"])


@MIXED
def test_renamed_and_joined_projections_are_the_same_numbers(mixed: bool) -> None:
    cfg = UNetConfig(4, 4, 32, (1,), 1, (0,), head_width=8, context=24)
    below = "mid_block.attentions.0"
    names = {f"{below}.{part}.weight": (32, 32) for part in ("to_q", "to_k", "to_v", "to_out.0")}
    names |= {f"{below}.add_{part}_proj.weight": (32, 24) for part in "kv"}
    names |= {f"{name.removesuffix('.weight')}.bias": (32,) for name in names}
    tower = {f"text_model.encoder.layers.0.self_attn.{n}_proj.weight": (8, 8) for n in "qkv"}
    tower |= {f"text_model.encoder.layers.0.self_attn.{n}_proj.bias": (8,) for n in "qkv"}
    tower["text_projection.weight"] = (6, 8)
    vae = {f"decoder.mid_block.attentions.0.to_{n}.weight": (8, 8) for n in "qkv"}
    vae |= {f"decoder.mid_block.attentions.0.to_{n}.bias": (8,) for n in "qkv"}
    renamings: list[tuple[dict[str, Any], Callable[[Any], dict[str, np.ndarray]]]] = [
        (names, lambda tensors: diffusers_names.unet(cfg, tensors)),
        (tower, diffusers_names.clip_text),
        (vae, lambda tensors: diffusers_names.autoencoder(1, tensors)),
    ]
    for shapes, rename in renamings:
        short, wide = twins({name: RANDOM.standard_normal(shape) for name, shape in shapes.items()})
        if mixed:
            short |= {name: wide[name] for name in list(wide)[:1]}
        ours, theirs = rename(short), rename(wide)
        assert ours.keys() == theirs.keys() and ours
        for name, value in theirs.items():
            assert same(widened(ours[name]), value), name
        assert mixed or any(value.dtype == BFLOAT16 for value in ours.values())
