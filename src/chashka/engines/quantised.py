"""W8A8: a U-Net's graph whose larger layers take int8 activations and int8 weights; the rest stays in floating point.

Such a graph says something else than the float one, and how much depends on the weights and on the processor. So it is made,
measured (``evaluation.calibration``) and kept beside the report of what was measured, by the sha256 of the weights, and it is
opened again only for these weights, on this processor, with this version of openvino, and if it held.

Which convolutions: those of more than one place, except for the first and the last one. Measured on the embedded model: 1×1
convolutions, most of them on the way around a block, read the raw sum of everything before them, three times as wide as what a norm
leaves. Leaving them out costs no speed and takes the drift from 34 to 11 % at the lowest noise level. Of a transformer's products
the widest one, of the feed-forward half, which reads what a norm left: two fifths of its arithmetic, and on Stable Diffusion's
teacup no drift that could be told from the convolutions' own. Products with the text stay out (arXiv 2405.17873).
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chashka.checkpoints.safetensors_file import NumpyArray, replace, sha256
from chashka.engines.machine import processor
from chashka.engines.runtime import nncf, openvino
from chashka.errors import EngineError, FileError, UncalibratedError

W8A8 = "w8a8"
"""The precision's name."""
COMPONENT = "unet"
LAYERS = ("Convolution", "MatMul")
WIDENING = 4
"""How many times as wide what comes out of a product is, at least, where it becomes int8."""
FOLDER = "quantised"
REPORT = "report.json"
LAYOUT = 2
"""Of the report and of what is quantised: raise it when either changes."""
ALLOWED = 0.01
"""How much int8 may add to the mean squared error of denoising at any noise level: the share that held-out figures may lose where
weights are stored in fewer bits (``evaluation.precision``). Drift itself decides nothing: where the network says little (the mean
picture at high noise), a large share of it is a small error; where it says the noise exactly, a small share is a large one. The
network's own error is the scale for both."""


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level of held-out drawings: ``t`` as the network is told it, how many calls are behind it.

    drift: ‖w8a8 - float‖ / ‖float‖ of what the network says, median over calls; largest: of them. loss: mean squared error of what
    the float network says of noised pictures; added: the mean square of what int8 changes there, as a share of it.
    """

    t: float
    calls: int
    drift: float
    largest: float
    loss: float
    added: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured on one checkpoint's U-Net, kept as ``report.json``.

    config: the network's, as JSON. rest: precision of everything that is not int8. layers: in int8, of all convolutions and
    products. calls: those that the ranges were taken from. psnr: of finished pictures at equal seeds in decibels, median, lowest,
    highest; floor: the same for the float network at another seed. float_ms, w8a8_ms: one call of ``rows`` rows, medians of
    interleaved calls; float_precision: what the float one computed with. graph_sha256: of the quantised weights.
    """

    model: str
    weights_sha256: str
    config: str
    processor: str
    openvino: str
    nncf: str
    rest: str
    layers: tuple[int, int]
    calls: int
    settings: dict[str, Any]
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    levels: tuple[Level, ...]
    psnr: tuple[float, float, float]
    floor: tuple[float, float, float]
    rows: int
    float_precision: str
    float_ms: float
    w8a8_ms: float
    graph_sha256: str
    layout: int = LAYOUT

    @property
    def worst(self) -> Level:
        """The level at which int8 adds most."""
        return max(self.levels, key=lambda level: level.added)

    @property
    def holds(self) -> bool:
        """Whether w8a8 is offered: int8 adds at most ``ALLOWED`` at every level (and not a number is a failure)."""
        return all(level.added <= ALLOWED for level in self.levels)

    @property
    def ratio(self) -> float:
        """How many times as fast a call is."""
        return self.float_ms / self.w8a8_ms

    @property
    def verdict(self) -> str:
        """The gate's word: what was measured, and what is allowed."""
        worst = self.worst
        return f"int8 adds up to {worst.added:.2%} to its error (at t = {worst.t:.0f}), allowed is {ALLOWED:.0%}"


def home(cache_dir: Path, weights_sha256: str) -> Path:
    """Where the graph and the report for these weights are kept."""
    return Path(cache_dir) / FOLDER / weights_sha256[:32]


def found(cache_dir: Path | None, weights: Path, config: str) -> tuple[Calibration, Path]:
    """The report for these weights and the graph that belongs to it.

    Raises UncalibratedError where there is none for them, this processor and this openvino, EngineError if it did not hold.
    """
    if cache_dir is None:
        raise EngineError("precision w8a8 is kept in a cache folder: give cache_dir, the one that it was calibrated in")
    digest = sha256(weights)
    folder = home(cache_dir, digest)
    report = _read(folder / REPORT)
    if report is None or report.weights_sha256 != digest or report.config != config:
        raise UncalibratedError("its drift was not measured with these weights")
    if report.processor != processor():
        raise UncalibratedError("its drift was measured on another processor")
    if report.openvino != openvino().get_version():
        raise UncalibratedError(f"its drift was measured with openvino {report.openvino.partition('-')[0]}")
    if not report.holds:
        raise EngineError(f"precision w8a8 is not offered for these weights: {report.verdict}; use precision auto")
    graph = folder / f"{COMPONENT}.xml"
    if not (graph.is_file() and graph.with_suffix(".bin").is_file()):
        raise UncalibratedError("the quantised graph is gone")
    return report, graph


def keep(cache_dir: Path, report: Calibration, graph: Path) -> Path:
    """Store the report, and the graph (.xml, .bin) if it held; returns the report's file. ``graph`` is moved. Raises FileError."""
    folder = home(cache_dir, report.weights_sha256)
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        if report.holds:
            for suffix in (".bin", ".xml"):
                shutil.move(graph.with_suffix(suffix), folder / f"{COMPONENT}{suffix}")
    except OSError as error:
        raise FileError(f"cannot keep the quantised graph in {folder}: {error.strerror or error}") from error
    # The report comes last: without it nothing of the above is opened.
    replace(folder / REPORT, [json.dumps(asdict(report), ensure_ascii=False, indent=1).encode()])
    return folder / REPORT


def _read(path: Path) -> Calibration | None:
    """The report, or None where there is none of this layout."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["layout"] != LAYOUT:
            return None
        levels = tuple(Level(**level) for level in values.pop("levels"))
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Calibration(levels=levels, **{**values, **lists})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def quantise(graph: Path, weights: Path, calls: Sequence[Mapping[str, NumpyArray]], path: Path) -> tuple[int, int]:
    """Write ``path`` (.xml, and .bin beside it): the graph with int8 layers; returns how many, of how many.

    calls: the inputs by name, of real calls at all noise levels: ranges are taken from them, activations' asymmetric (what SiLU
    leaves begins at -0.28), weights' symmetric by channel. Raises MissingExtraError, EngineError.
    """
    import xml.etree.ElementTree as ET

    from chashka.engines.precise import keep_precise

    quantiser, core = nncf(), openvino().Core()
    model = core.read_model(str(graph), str(weights))
    all_of_them = [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS]
    chosen = chosen_convolutions(model)
    if not chosen:
        raise EngineError("this U-Net has no convolution between the first and the last that int8 would serve")
    chosen |= chosen_products(model)
    kinds = {node.get_type_name() for node in model.get_ops()} - {*LAYERS, "Parameter", "Result", "Constant"}
    others = [name for name in (node.get_friendly_name() for node in all_of_them) if name not in chosen]
    try:
        with _silent(quantiser):
            made = quantiser.quantize(
                model,
                quantiser.Dataset([dict(call) for call in calls]),
                preset=quantiser.QuantizationPreset.MIXED,
                subset_size=len(calls),
                ignored_scope=quantiser.IgnoredScope(types=sorted(kinds), names=others, validate=False),
            )
            openvino().save_model(made, str(path), compress_to_fp16=True)
    except (RuntimeError, quantiser.ValidationError) as error:
        raise EngineError(f"nncf cannot quantise {graph}: {' '.join(str(error).split())[-300:]}") from error
    tree = ET.parse(path)
    keep_precise(tree.getroot())
    tree.write(path, encoding="utf-8", xml_declaration=True)
    return len(chosen), len(all_of_them)


def chosen_convolutions(model: Any) -> set[str]:
    """Names of the convolutions that become int8: of more than one place, without the first and the last one."""
    behind = [result.input_value(0).get_node() for result in model.get_results()]
    edges = _nearest(behind, lambda node: [value.get_node() for value in node.input_values()])
    before = [port.get_node() for port in model.inputs if "x" in port.get_names()]
    edges |= _nearest(
        before, lambda node: [to.get_node() for output in node.outputs() for to in output.get_target_inputs()]
    )
    return {
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
        and node.get_friendly_name() not in edges
        and max(node.input_value(1).get_shape()[2:]) > 1
    }


def chosen_products(model: Any) -> set[str]:
    """Names of the products that become int8: of stored weights with what a norm left, and ``WIDENING`` times as wide."""
    chosen = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _normed(node.input_value(0).get_node()):
            read, made = node.input_value(0).get_partial_shape()[-1], node.get_output_partial_shape(0)[-1]
            if read.is_static and made.is_static and made.get_length() >= WIDENING * read.get_length():
                chosen.add(node.get_friendly_name())
    return chosen


def _normed(node: Any) -> bool:
    """Whether a node is a norm's end: its shift, its scale, or itself."""
    for kind in ("Add", "Multiply"):
        if node.get_type_name() == kind:
            node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "MVN")


def _nearest(begin: Sequence[Any], following: Callable[[Any], list[Any]]) -> set[str]:
    """Names of the convolutions that are reached first."""
    reached, todo, seen = set(), list(begin), set()
    while todo:
        node = todo.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Convolution":
            reached.add(name)
        elif kind != "ShapeOf" and name not in seen:  # a shape leads everywhere
            seen.add(name)
            todo += following(node)
    return reached


@contextmanager
def _silent(quantiser: Any) -> Iterator[None]:
    """nncf tells of every layer and draws bars on the standard output, where our own report goes."""
    level = logging.getLogger("nncf").level
    quantiser.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        quantiser.set_log_level(level)
