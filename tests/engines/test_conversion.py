"""Which conversions are refused, which are kept, and that the type of the numbers in a file changes no graph."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bfloat16_files import as_bfloat16, widened
from chashka.checkpoints import sha256
from chashka.engines import Blueprint, conversion, sums
from chashka.engines.components import imported
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.engines.torch_engine import TorchEngine
from chashka.errors import WeightsError
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, UNetConfig
from chashka.nets.kandinsky_presets import PriorConfig
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch


def test_a_slice_without_an_end_is_refused(tmp_path: Path) -> None:
    """OpenVINO would lose its last element in every process that finds the compiled graph in the cache."""

    class Open(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels[:, 1:] + 1

    class Split(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.split([1, 3], 1)[1] + 1

    given = {"pixels": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(WeightsError, match="slice without an end"):
        conversion.save_graph(Open(), given, ["pixels"], ["out"], tmp_path / "open.xml")
    conversion.save_graph(Split(), given, ["pixels"], ["out"], tmp_path / "split.xml")


def test_the_usual_length_of_texts_is_compiled_for_itself(tmp_path: Path) -> None:
    """It is drawn with nearly always; all other lengths share a graph. Both say the same of a text padded to either length."""
    blueprint, weights = tiny_unet()
    (tmp_path / "source").write_bytes(b"")
    graph = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    rng = np.random.default_rng(0)
    x, tokens = rng.normal(size=(1, 4, 8, 8)), rng.normal(size=(1, 1, 24))
    said = {n: graph(x=x, t=np.ones(1), tokens=np.repeat(tokens, n, 1))["out"] for n in (7, 5, 14, 9)}
    compiled = [dict(key)["tokens"] for key in graph._requests]
    assert compiled == [(1, 7, 24), (1, -1, 24)]
    for out in said.values():  # attention over copies of one token is the same whatever their number
        np.testing.assert_allclose(out, said[7], atol=1e-4)
    again = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    np.testing.assert_array_equal(again(x=x, t=np.ones(1), tokens=np.repeat(tokens, 7, 1))["out"], said[7])


def tiny_unet() -> tuple[Blueprint, dict[str, np.ndarray]]:
    cfg = UNetConfig(4, 4, 32, (1, 2), 1, (0, 1), "transformer", 4, context=24)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = {key: value.numpy() for key, value in UNet(cfg).state_dict().items()}
    inputs = {"x": (2, 4, 8, 8), "t": (2,), "tokens": (2, 7, 24)}
    return Blueprint("unet", "nets.unet:UNet", cfg, inputs, ("out",)), weights


def test_a_graph_belongs_to_the_content_of_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file at another path finds the graph; another content at the same path does not."""
    blueprint, weights = tiny_unet()
    made: list[Path] = []
    make = conversion._make
    monkeypatch.setattr(conversion, "_make", lambda *words: (made.append(words[2]), make(*words)))
    cache, first, second = tmp_path / "cache", tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")

    def built(source: Path) -> Path:
        return OpenVINOEngine(precision="f32", cache_dir=cache).build(blueprint, weights, source).weights

    assert built(first) == built(second) and made == [first]
    second.write_bytes(b"changed")  # as long as before
    os.utime(second, ns=(1, 1))
    assert built(second) != built(first) and made == [first, second]
    assert len(list((cache / conversion.FOLDER).iterdir())) == 2


def test_sums_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(file: Path) -> str:
        read.append(file)
        return sha256(file)

    monkeypatch.setattr(sums, "sha256", counted)
    file, gone, cache = tmp_path / "file", tmp_path / "gone", tmp_path / "cache"
    file.write_bytes(b"weights")
    gone.write_bytes(b"other")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert [sums.content_of(file, cache) for _ in range(3)] == [digest] * 3 and read == [file]
    os.utime(file, ns=(5, 5))
    assert sums.content_of(file, cache) == digest and read == [file, file], "its time has changed, so it is read again"
    sums.learn(cache, {gone: "f" * 64})
    assert sums.content_of(gone, cache) == "f" * 64 and len(read) == 2, "known already: by whoever computed it"
    gone.unlink()
    os.utime(file, ns=(6, 6))
    sums.content_of(file, cache)
    assert list(json.loads((cache / sums.FILE).read_text())) == [str(file)]
    (cache / sums.FILE).write_text("[]")
    assert sums.content_of(file, cache) == digest and len(read) == 4, "a damaged file of sums is none"
    assert str(file) in sums.content_of(file, None) and len(read) == 4, "nothing is kept, nothing is computed"
    with pytest.raises(WeightsError, match=r"cannot read .*gone"):
        sums.content_of(gone, cache)


def test_the_oldest_go_but_none_that_may_still_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()

    def made(folder: Path) -> Path:
        for i in range(conversion.KEPT + 4):
            (folder / f"{i:02}").mkdir(parents=True)
            os.utime(folder / f"{i:02}", (now - 60.0 * (50 - i), now - 60.0 * (50 - i)))
        return folder

    def left(folder: Path) -> list[str]:
        conversion._prune(folder)
        return sorted(path.name for path in folder.iterdir())

    names = [f"{i:02}" for i in range(conversion.KEPT + 4)]
    folder = made(tmp_path / "some")
    held = conversion._locked(folder / "01", shared=True)
    assert held is not None and conversion._locked(folder / "01", shared=True) is not None, "many may read it"
    os.utime(folder / "01", (now - 3000, now - 3000))
    assert left(folder) == ["01", *names[4:]], "of the four beyond the limit one is held"
    held.close()
    (folder / "99").mkdir()
    assert left(folder) == [*names[4:], "99"][-conversion.KEPT :]
    monkeypatch.setattr(conversion, "fcntl", None)
    assert left(made(tmp_path / "others")) == names, "without locks all that were used today stay"


def test_a_graph_that_is_open_stays_while_others_are_made(tmp_path: Path) -> None:
    """Each new size of a picture is compiled from its file."""
    blueprint, weights = tiny_unet()
    (tmp_path / "source").write_bytes(b"")
    graph = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    os.utime(graph.path.parent, (0, 0))
    for i in range(conversion.KEPT + 1):
        (tmp_path / conversion.FOLDER / f"later {i}").mkdir()
    conversion._prune(tmp_path / conversion.FOLDER)
    x, tokens = np.ones((1, 4, 16, 8)), np.ones((1, 7, 24))
    assert graph(x=x, t=np.ones(1), tokens=tokens)["out"].shape == (1, 4, 16, 8)
    home = graph.path.parent
    del graph
    gc.collect()
    os.utime(home, (0, 0))
    conversion._prune(tmp_path / conversion.FOLDER)
    assert not home.exists(), "nobody holds it any more"


def test_the_frequencies_of_t_stay_float32(tmp_path: Path) -> None:
    """In float16 they would be wrong in the fourth digit, and times t that is a good part of a turn."""
    blueprint, weights = tiny_unet()
    rounded = {name: value.astype(np.float16) for name, value in weights.items()}
    (tmp_path / "source").write_bytes(b"")
    given = {"x": np.ones((1, 4, 8, 8)), "t": np.array([993.0]), "tokens": np.ones((1, 7, 24))}
    said = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, rounded, tmp_path / "source")(**given)
    wanted = TorchEngine("cpu").build(blueprint, rounded, tmp_path / "source")(**given)
    assert np.abs(said["out"] - wanted["out"]).max() < 2e-5 * np.abs(wanted["out"]).max()


X = {"x": (2, 4, 8, 8), "t": (2,)}
VAE = AutoencoderConfig(
    width=32, mult=(1, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 2), decoder_res_blocks=1
)
NETWORKS = [
    Blueprint(
        "unet",
        "nets.unet:UNet",
        UNetConfig(4, 4, 32, (1,), 1, (0,), "transformer", None, 16, context=24, linear_proj=True),
        X | {"tokens": (2, 7, 24)},
        ("out",),
    ),
    Blueprint(
        "unet",
        "nets.unet:UNet",
        UNetConfig(4, 8, 32, (1, 2), 1, (1,), head_width=8, context=24, resample="resblock", scale_shift=True),
        X | {"tokens": (2, 7, 24), "added": (2, 128)},
        ("out",),
    ),
    Blueprint("decoder", "nets.autoencoder:DecoderKL", VAE, {"latents": (1, 4, 4, 4)}, ("pixels",)),
    Blueprint(
        "text", "nets.clip:TextTower", CLIPTextConfig(99, 9, 24, 2, 2, 24), {"ids": (2, 9)}, ("tokens", "pooled")
    ),
    Blueprint(
        "prior",
        "nets.prior:PriorTransformer",
        PriorConfig(16, 16, 7, 32, 2, 4),
        {"x": (2, 16), "t": (2,), "tokens": (2, 7, 16), "pooled": (2, 16), "mask": (2, 7)},
        ("out",),
    ),
]


def short_weights(blueprint: Blueprint) -> dict[str, np.ndarray]:
    """Random ones in bfloat16."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        state = imported(blueprint.network)(blueprint.config).state_dict()
    return {name: as_bfloat16(value.numpy()) for name, value in state.items()}


def graph_of(blueprint: Blueprint, weights: dict[str, Any], folder: Path) -> tuple[bytes, str]:
    """Numbers and operations; names are the converter's own."""
    folder.mkdir()
    conversion._convert(blueprint, weights, folder / "source", folder / "graph.xml")
    text = (folder / "graph.xml").read_text(encoding="utf-8")
    return (folder / "graph.bin").read_bytes(), re.sub(r' names?="[^"]*"', "", text)


@pytest.mark.parametrize("blueprint", NETWORKS, ids=lambda b: b.network.partition(":")[2])
def test_the_type_in_the_file_changes_no_graph(
    blueprint: Blueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of two bytes are in memory as float16 while it is made; float32 is made as it always was."""
    short = short_weights(blueprint)
    wide = {name: widened(value) for name, value in short.items()}
    half = {name: value.astype(np.float16) for name, value in wide.items()}
    held: list[set[torch.dtype]] = []
    save = conversion.save_graph

    def noted(module: nn.Module, *rest: Any, **more: Any) -> Any:
        held.append({value.dtype for name, value in module.named_parameters() if value.ndim > 1})
        return save(module, *rest, **more)

    monkeypatch.setattr(conversion, "save_graph", noted)
    graphs = [graph_of(blueprint, weights, tmp_path / str(i)) for i, weights in enumerate((wide, short, half))]
    assert held[0] == {torch.float32} and torch.float16 in held[1] and held[1] == held[2]
    assert graphs[0] == graphs[1]
    assert graphs[2] == graph_of(
        blueprint, {name: value.astype(np.float32) for name, value in half.items()}, tmp_path / "half"
    )


def test_numbers_beyond_float16_are_left_to_openvino(tmp_path: Path) -> None:
    """float16's largest is 65504, and bfloat16's next one below 65280."""
    (blueprint,) = (one for one in NETWORKS if one.name == "decoder")
    short = short_weights(blueprint)
    for name, value, halved in (
        ("conv_in", 65280.0, True),
        ("conv_out", -65536.0, False),
        ("mid.attn_1.q", np.nan, False),
    ):
        short[f"decoder.{name}.weight"].reshape(-1)[:1] = as_bfloat16([value])
        with torch.device("meta"):
            module = imported(blueprint.network)(blueprint.config)
        layer = module.get_submodule(f"decoder.{name}")
        assert (layer in conversion._halved(module, short)) == halved == (layer.weight.dtype == torch.float16)
    wide = {name: widened(value) for name, value in short.items()}
    assert graph_of(blueprint, short, tmp_path / "short") == graph_of(blueprint, wide, tmp_path / "wide")
