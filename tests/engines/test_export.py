"""Exported components: one file of weights, the same bytes again, and both engines agree on every network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_components import GOLDEN, STORED, components, export_unet, unet_inputs
from torch import nn

from chashka.checkpoints import GRAPH_TENSOR, layout, read_metadata, sha256
from chashka.engines import open_engine
from chashka.engines.export import GRAPH_LIMIT, export_component
from chashka.engines.selftest import works
from chashka.errors import WeightsError
from chashka.nets.configs import ImageTowerConfig

pytestmark = pytest.mark.torch

NAMES = ("unet", "encoder", "decoder", "text_contrastive", "text_t5", "text_head", "upscaler")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Any, dict[str, Any], dict[str, Any], list[str]]]:
    return components()


@pytest.fixture(scope="module")
def folder(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("components")
    for name in NAMES:
        module, examples, _, outputs = made[name]
        tensors = {key: torch.from_numpy(value) for key, value in examples.items()}
        export_component(module, name, tensors, list(tensors), outputs, out, {"latent_scale": "1.5"})
    return out


@pytest.fixture(scope="module")
def again(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, nn.Module]:
    """The U-Net exported once more, after all others: the converter's counters have run on."""
    return export_unet(tmp_path_factory.mktemp("again"), "unet")


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_agree_on_other_sizes_than_the_example(name: str, folder: Path, made: dict[str, Any]) -> None:
    module, _, inputs, outputs = made[name]
    a = open_engine("openvino", precision="f32", threads=1).open(folder, name)(**inputs)
    b = open_engine("torch", "cpu", "f32").open(folder, name)(**inputs)
    with torch.no_grad():
        direct = module.half().float()(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    direct = dict(zip(outputs, direct if isinstance(direct, tuple) else (direct,), strict=True))
    for output in outputs:
        wanted = direct[output].numpy()
        assert np.abs(b[output] - wanted).max() <= 1e-6 * np.abs(wanted).max()  # only where the weights lie differs
        assert np.abs(a[output] - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_only_two_files_a_component_and_few_constants(folder: Path) -> None:
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".xml"}
    for name in NAMES:
        graph = layout(folder / f"{name}.safetensors")[0].get(GRAPH_TENSOR)
        assert graph is None or graph.size < 1024
        weights = load_file(folder / f"{name}.safetensors")  # the library reads it as well
        assert all(v.dtype == np.float16 for k, v in weights.items() if k != GRAPH_TENSOR)


def test_metadata_say_what_it_is(folder: Path) -> None:
    metadata = read_metadata(folder / "decoder.safetensors")
    assert metadata["class"] == "nets.autoencoder:Decoder"
    assert metadata["config_class"] == "AutoencoderConfig"
    assert json.loads(metadata["config"])["z_channels"] == 4
    assert json.loads(metadata["inputs"]) == ["latents"] and json.loads(metadata["outputs"]) == ["pixels"]
    assert metadata["latent_scale"] == "1.5"


def test_the_graph_names_its_weights(folder: Path) -> None:
    text = (folder / "unet.xml").read_text(encoding="utf-8")
    assert f'<weights_sha256 value="{sha256(folder / "unet.safetensors")}" />' in text


def test_exporting_again_gives_the_same_bytes(folder: Path, again: tuple[Any, nn.Module], tmp_path: Path) -> None:
    """In this process, and in another one, which stays silent."""
    code = "import sys; from pathlib import Path; from tiny_components import export_unet\n"
    code += "import torch; torch.set_num_threads(1); export_unet(Path(sys.argv[1]), 'unet')\n"
    code += "print([n for n in sys.modules if n.startswith('openvino_telemetry')])"
    words = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=300)
    assert (result.returncode, result.stdout.strip().splitlines()[-1:]) == (0, ["[]"]), result.stderr
    for suffix in ("safetensors", "xml"):
        fresh = (tmp_path / f"unet.{suffix}").read_bytes()
        assert fresh == again[0].weights.with_suffix(f".{suffix}").read_bytes()
        assert fresh == (folder / f"unet.{suffix}").read_bytes()


def test_the_stored_component_is_still_what_is_exported(again: tuple[Any, nn.Module]) -> None:
    fresh, stored = load_file(again[0].weights), load_file(GOLDEN / f"{STORED}.safetensors")
    assert fresh.keys() == stored.keys()
    for name in stored.keys() - {GRAPH_TENSOR}:  # the graph's own constants may change with openvino
        np.testing.assert_array_equal(fresh[name], stored[name])


def test_exporting_leaves_the_module_as_it_is(again: tuple[Any, nn.Module]) -> None:
    exported, module = again
    assert exported.graph_bytes < 1024 and exported.reused_bytes > 100_000
    assert all(value.dtype == torch.float32 for value in module.state_dict().values())


def test_bfloat16_does_not_round_the_timestep(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """bfloat16 has 8 bits: 998.2 would become 1000, and a network that was trained on 998.2 would draw worse."""
    if not works(tmp_path_factory.mktemp("cache")):
        return  # this processor has no bfloat16 to round with
    low = open_engine("openvino", precision="bf16").open(folder, "unet")
    full = open_engine("torch", "cpu", "f32").open(folder, "unet")
    for t in (1.0, 503.3, 903.7, 998.2):
        inputs = unet_inputs(1, 8, 4) | {"t": np.array([t], np.float32)}
        a, b = low(**inputs)["out"], full(**inputs)["out"]
        assert np.sqrt(np.square(a - b).mean() / np.square(b).mean()) < 0.03
        other = inputs | {"t": np.array([t + 0.7], np.float32)}
        assert np.abs(low(**other)["out"] - a).max() > 0


class Scaled(nn.Module):
    """Computes with its weight before it uses it, unless told not to."""

    def __init__(self, rearranged: bool = False) -> None:
        super().__init__()
        self.cfg = ImageTowerConfig()
        self.weight = nn.Parameter(torch.randn(192, 256, generator=torch.Generator().manual_seed(0)) / 16)
        self.bias = nn.Parameter(torch.linspace(0.1, 0.2, 192))
        self.rearranged = rearranged

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight.reshape(2, 96, 256).flip(0) * 2).reshape(192, 256) if self.rearranged else self.weight
        return torch.nn.functional.linear(x.mean((2, 3)), weight, self.bias)


def export_scaled(module: nn.Module, folder: Path, **options: Any) -> Any:
    return export_component(module, "scaled", {"x": torch.randn(2, 256, 1, 1)}, ["x"], ["out"], folder, **options)


def test_weights_that_stay_float32(tmp_path: Path) -> None:
    module = Scaled()
    export_scaled(module, tmp_path, keep_f32=["bias"])
    stored = load_file(tmp_path / "scaled.safetensors")
    assert (stored["bias"].dtype, stored["weight"].dtype) == (np.float32, np.float16)
    graph = open_engine("openvino", precision="f32", threads=1).open(tmp_path, "scaled")
    out = graph(x=np.zeros((1, 256, 1, 1), np.float32))["out"]
    np.testing.assert_array_equal(out[0], module.bias.detach().numpy())


def test_rearranged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"at most {GRAPH_LIMIT} are allowed") as caught:
        export_scaled(Scaled(rearranged=True), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [70000.0, float("inf"), float("nan")])
def test_what_float16_cannot_hold_is_refused(value: float, tmp_path: Path) -> None:
    module = Scaled()
    with torch.no_grad():
        module.bias[3] = value
    with pytest.raises(WeightsError, match="bias has values beyond float16's 65504"):
        export_scaled(module, tmp_path)


def test_unknown_names_in_keep_f32_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="keep_f32 names no weights of the network: nothing"):
        export_scaled(Scaled(), tmp_path, keep_f32=["nothing"])


def test_outputs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="1 inputs and 1 outputs; expected x and out, more"):
        export_component(Scaled(), "scaled", {"x": torch.randn(2, 256, 1, 1)}, ["x"], ["out", "more"], tmp_path)


def test_a_network_without_a_configuration_is_refused(tmp_path: Path) -> None:
    module = Scaled()
    module.cfg = SimpleNamespace()  # type: ignore[assignment]
    with pytest.raises(WeightsError, match="no configuration"):
        export_scaled(module, tmp_path)
