"""W8A8, measured: ranges from the model's own drawings, then what int8 changes on other drawings, and what it saves.

Errors are measured where sampling really goes: along the float network's own trajectories, both networks are given the same
input. What decides (``engines.quantised.ALLOWED``) is how much int8 adds to the network's own error: the pictures that the float
network drew are noised anew at every level of the run, and the mean square of what int8 changes is compared with that of what the
float network gets wrong. A good denoiser's error has nothing to do with anything that it was given, so that the two add up;
measuring their sum instead would bring in the chance of a few pictures. Pictures need not be equal; how near they are is reported
beside how near two seeds are.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from chashka.checkpoints import sha256
from chashka.diffusion import Conditioning, Denoiser, Network, PictureNoise
from chashka.engines import GraphNetwork, quantised
from chashka.engines.machine import processor
from chashka.engines.openvino_engine import OpenVINOEngine, OpenVINOGraph
from chashka.engines.quantised import Calibration, Level
from chashka.engines.runtime import nncf, openvino
from chashka.errors import InputError
from chashka.evaluation.drawing import Float, settings
from chashka.evaluation.metrics import HIGHEST, psnr
from chashka.evaluation.precision import relative
from chashka.evaluation.prompts import PROMPTS
from chashka.families import Bundle
from chashka.generate import generate
from chashka.images import flatten
from chashka.request import Picture

CALLS = 60
"""Calls of the network that ranges are taken from."""
HELD_OUT_SEED, OTHER_SEED = 1000, 2000
"""Added to the numbers of held-out drawings: their seeds, those of the floor."""
PAIRS, SECONDS = 40, 60.0
"""Pairs of calls that are timed at most, and for how long at most; five pairs at least."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a network was given: ``x`` (B, C, h, w) in network space, ``t`` (B,)."""

    x: Float
    t: Float
    cond: Conditioning


@dataclass(slots=True)
class _Recorder:
    """A network that keeps what it is given, and how far ``other``, if there is one, is from it on the same input."""

    network: Network
    other: Network | None = None
    calls: list[Call] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def __call__(self, x: Float, t: Float, cond: Conditioning) -> Float:
        out: Float = self.network(x, t, cond)
        self.calls.append(Call(np.array(x), np.array(t), dict(cond)))
        if self.other is not None:
            self.errors.append(relative(self.other(x, t, cond), out))
        return out


def split(prompts: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Prompts to calibrate with and held-out ones: every second of the given ones, six and six of the fixed ones for None.

    Raises InputError for less than two.
    """
    if prompts is None:
        return [p.text for p in PROMPTS[0::8]], [p.text for p in PROMPTS[4::8]]
    if len(set(prompts)) < 2:
        raise InputError(
            f"prompts: {len(set(prompts))} given; two different ones are needed, one of them to measure with"
        )
    return list(prompts[0::2]), list(prompts[1::2])


def calibrate(
    bundle: Bundle,
    cache_dir: Path,
    prompts: Sequence[str] | None = None,
    calls: int = CALLS,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> tuple[Calibration, Path]:
    """Quantise the U-Net of a model, measure it, and keep both in ``cache_dir``; the report, and its file.

    bundle: opened by openvino on a CPU, in f32. prompts: see :func:`split`. calls: how many the ranges are taken from.
    ``on_picture`` is called after each drawing, one a prompt to calibrate with and three a held-out one. ``fields``: of the
    requests. Raises InputError for a model whose denoiser is no graph of openvino's, MissingExtraError, and what drawing raises.
    """
    network = bundle.denoiser.network
    graph = network.graph if isinstance(network, GraphNetwork) else None
    if not isinstance(graph, OpenVINOGraph) or graph.name != quantised.COMPONENT or graph.engine.precision != "f32":
        raise InputError(
            f"model: {bundle.model} has no U-Net that openvino runs in f32; allowed are those that it does"
        )
    if calls < 1:
        raise InputError(f"calls: {calls} is not possible; allowed: 1 and more")
    taught, held = split(prompts)
    told = on_picture or (lambda: None)
    recorder = _Recorder(network)
    for seed, prompt in enumerate(taught):
        _drawn(bundle, recorder, prompt, seed, fields)
        told()
    chosen = [recorder.calls[int(i)] for i in np.linspace(0, len(recorder.calls) - 1, min(calls, len(recorder.calls)))]
    Path(cache_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as temporary:
        path = Path(temporary) / f"{quantised.COMPONENT}.xml"
        inputs = [_inputs(graph, call) for call in chosen]
        layers = quantised.quantise(graph.path, graph.weights, inputs, path)
        float_ms, w8a8_ms, best, other = _timed(graph, path, inputs[len(inputs) // 2])
        rows = len(chosen[len(inputs) // 2].x)
        measured = _measured(bundle, GraphNetwork(other), held, fields, told)
        report = Calibration(
            model=bundle.model,
            weights_sha256=sha256(graph.weights),
            config=graph.metadata["config"],
            processor=processor(),
            openvino=openvino().get_version(),
            nncf=str(nncf().__version__),
            rest=other.engine.rest,
            layers=layers,
            calls=len(chosen),
            settings=measured.settings,
            prompts=tuple(taught),
            held_out=tuple(held),
            levels=measured.levels(),
            psnr=_spread(measured.psnr),
            floor=_spread(measured.floor),
            rows=rows,
            float_precision=best,
            float_ms=float_ms,
            w8a8_ms=w8a8_ms,
            graph_sha256=sha256(path.with_suffix(".bin")),
        )
        return report, quantised.keep(cache_dir, report, path)


def _inputs(graph: OpenVINOGraph, call: Call) -> dict[str, Float]:
    given = {"x": call.x, "t": call.t} | {name: call.cond[name] for name in graph.inputs if name in call.cond}
    return {name: np.asarray(given[name], np.float32) for name in graph.inputs}


def _drawn(bundle: Bundle, network: Network, prompt: str, seed: int, fields: dict[str, Any]) -> tuple[Picture, Float]:
    """One picture by that network, and what the sampler ended with: x (1, C, h, w), data."""
    other = replace(bundle, denoiser=replace(bundle.denoiser, network=network))
    run = generate(other, other.request(prompt=prompt, seed=seed, **fields))
    x: Float | None = None
    while True:
        try:
            x = next(run).step.denoised
        except StopIteration as finished:
            (picture,) = finished.value
            assert x is not None
            return picture, np.asarray(x)


@dataclass(slots=True)
class _Measured:
    """What held-out drawings gave, by t as the network is told it: drifts, and mean squares of the float network's error and of
    what int8 changes."""

    settings: dict[str, Any] = field(default_factory=dict)
    drifts: dict[float, list[float]] = field(default_factory=dict)
    losses: dict[float, list[tuple[float, float]]] = field(default_factory=dict)
    psnr: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def levels(self) -> tuple[Level, ...]:
        found = []
        for t, drifts in sorted(self.drifts.items(), reverse=True):
            own, added = (statistics.fmean(pair[i] for pair in self.losses[t]) for i in (0, 1))
            found.append(Level(t, len(drifts), statistics.median(drifts), max(drifts), own, added / own))
        return tuple(found)


def _measured(
    bundle: Bundle, other: Network, held: Sequence[str], fields: dict[str, Any], told: Callable[[], object]
) -> _Measured:
    """Every held-out prompt drawn by the float network, with both asked along the way; by the other; and with another seed."""
    network, result = bundle.denoiser.network, _Measured()
    for number, prompt in enumerate(held):
        recorder = _Recorder(network, other)
        first, x0 = _drawn(bundle, recorder, prompt, HELD_OUT_SEED + number, fields)
        told()
        second, _ = _drawn(bundle, other, prompt, HELD_OUT_SEED + number, fields)
        told()
        elsewhere, _ = _drawn(bundle, network, prompt, OTHER_SEED + number, fields)
        told()
        result.psnr.append(_decibels(first, second))
        result.floor.append(_decibels(first, elsewhere))
        for call, error in zip(recorder.calls, recorder.errors, strict=True):
            t = round(float(call.t[0]), 2)
            result.drifts.setdefault(t, []).append(error)
            result.losses.setdefault(t, []).append(_losses(bundle.denoiser, other, call, x0, number))
        if not result.settings:
            result.settings = settings(first.request)
    return result


def _losses(denoiser: Denoiser, other: Network, call: Call, x0: Float, seed: int) -> tuple[float, float]:
    """Mean squares at a call's level, with its texts and channels: of the error of what the network says of ``x0`` in fresh noise,
    and of how far ``other`` is from it."""
    sigma = denoiser.schedule.t_to_sigma(float(call.t[0]) / denoiser.schedule.t_scale)
    noise = PictureNoise([seed], x0.shape[1:])(round(float(call.t[0])))
    noisy = (x0 + np.float32(sigma) * noise) * np.float32(denoiser.schedule.scale(sigma))
    channels = x0.shape[1]
    x = np.concatenate([np.repeat(noisy, len(call.x), 0), call.x[:, channels:]], 1).astype(np.float32)
    first, second = (
        np.asarray(network(x, call.t, call.cond), np.float64)[:, :channels] for network in (denoiser.network, other)
    )
    own, added = first - denoiser.target(x0, noise, sigma), second - first
    return float(np.square(own).mean()), float(np.square(added).mean())


def _decibels(a: Picture, b: Picture) -> float:
    return min(psnr(flatten(a.pixels), flatten(b.pixels)), HIGHEST)


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _timed(graph: OpenVINOGraph, path: Path, inputs: dict[str, Float]) -> tuple[float, float, str, OpenVINOGraph]:
    """Milliseconds of a call as it would be without int8 and with it, the former's precision, and the quantised graph.

    Where this machine is quicker in bf16, what is not int8 is tried in both precisions: casts from int8 can cost what bf16 saves.
    """
    engine = graph.engine
    usual = OpenVINOEngine(engine.device, "auto", engine.threads, engine.cache_dir)
    rests = [engine] if usual.precision == engine.precision else [usual, engine]
    reference = graph if len(rests) == 1 else graph.at(usual)
    tried = [graph.quantised(rest, path, None) for rest in rests]
    taken: list[list[float]] = [[] for _ in range(1 + len(tried))]
    for one in (reference, *tried):
        one(**inputs)  # compiles
    started = time.perf_counter()
    while len(taken[0]) < 5 or (len(taken[0]) < PAIRS and time.perf_counter() - started < SECONDS):
        for one, times in zip((reference, *tried), taken, strict=True):
            begun = time.perf_counter()
            one(**inputs)
            times.append((time.perf_counter() - begun) * 1000)
    before, *after = (statistics.median(times) for times in taken)
    fastest = min(range(len(tried)), key=after.__getitem__)
    return before, after[fastest], usual.precision, tried[fastest]


def told(report: Calibration) -> list[str]:
    """The report for people, a line each."""
    some, all_of_them = report.layers
    lines = [
        f"{report.model}: {some} of {all_of_them} layers in int8, ranges from {report.calls} calls of "
        f"{len(report.prompts)} drawings; measured on {len(report.held_out)} others",
        "      t    drift (at most)  added to its error",
    ]
    lines += [f"  {v.t:5.0f} {v.drift:8.2%} {f'({v.largest:.2%})':>9} {v.added:18.2%}" for v in report.levels]
    for what, values in (("w8a8 beside float, same seed", report.psnr), ("float, another seed", report.floor)):
        lines.append(f"pictures, {what}: PSNR {values[0]:.2f} dB (median; {values[1]:.2f} to {values[2]:.2f})")
    lines.append(
        f"a call of {report.rows} rows: {report.w8a8_ms:.1f} ms with the rest in {report.rest}, {report.float_ms:.1f} ms in "
        f"{report.float_precision}: {report.ratio:.2f} times as fast"
    )
    offered = "offered: --precision w8a8" if report.holds else "not offered"
    return [*lines, f"w8a8 is {offered}: {report.verdict}"]
