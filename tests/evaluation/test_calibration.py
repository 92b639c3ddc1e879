"""What a calibration measures, on the toy model and a second network that is off by a known number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chashka.engines.quantised import Calibration, Level
from chashka.errors import InputError
from chashka.evaluation import calibration
from chashka.evaluation.metrics import HIGHEST
from chashka.evaluation.prompts import PROMPTS
from toy_model import toy_bundle

OFF = 0.05
FIELDS = {"steps": 4, "guidance_scale": 3.0, "sampler": "euler"}


def measured(off: float) -> Any:
    bundle = toy_bundle()
    network = bundle.denoiser.network
    other = lambda x, t, cond: network(x, t, cond) + np.float32(off)  # noqa: E731
    done: list[None] = []
    result = calibration._measured(bundle, other, ["a red cup", "blue"], FIELDS, lambda: done.append(None))
    assert len(done) == 6
    return result


def test_what_int8_changes_is_seen_at_every_level_beside_the_networks_own_error() -> None:
    result = measured(OFF)
    levels = result.levels()
    assert [level.t for level in levels] == sorted((level.t for level in levels), reverse=True) and len(levels) == 4
    for level in levels:
        assert level.calls == 2 and 0 < level.drift <= level.largest
        assert level.added * level.loss == pytest.approx(OFF**2, rel=1e-4)
    # The toy is exact: what it gets wrong of its own drawings is the chance that no network can know.
    assert all(np.isfinite(level.loss) and level.loss > 0 for level in levels)
    assert max(result.psnr) < HIGHEST and result.settings["steps"] == 4


def test_the_same_network_adds_nothing() -> None:
    result = measured(0.0)
    assert all((level.drift, level.largest, level.added) == (0, 0, 0) for level in result.levels())
    assert result.psnr == [HIGHEST, HIGHEST] and max(result.floor) < HIGHEST


def test_channels_beside_x_are_kept() -> None:
    """A network that is given a mask too sees it at the noised pictures as it did in its call."""
    seen = []

    def network(x: Any, t: Any, cond: Any) -> Any:
        seen.append(x[:, 4:])
        return x[:, :4]

    bundle = toy_bundle()
    denoiser = type(bundle.denoiser)(network, bundle.denoiser.schedule, bundle.denoiser.prediction)
    call = calibration.Call(np.full((2, 9, 4, 4), 7, np.float32), np.full(2, 500, np.float32), {})
    calibration._losses(denoiser, network, call, np.zeros((1, 4, 4, 4), np.float32), 0)
    assert len(seen) == 2 and all((given == 7).all() and given.shape == (2, 5, 4, 4) for given in seen)


def test_prompts_are_split_and_never_measured_on_what_was_calibrated_with() -> None:
    assert calibration.split(["a", "b", "c"]) == (["a", "c"], ["b"])
    taught, held = calibration.split(None)
    assert len(taught) == len(held) == 6 and not set(taught) & set(held)
    assert {*taught, *held} <= {prompt.text for prompt in PROMPTS}
    for few in ([], ["a"], ["a", "a"]):
        with pytest.raises(InputError, match="two different ones are needed"):
            calibration.split(few)


def test_a_model_without_a_graph_of_openvinos_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="has no U-Net that openvino runs in f32"):
        calibration.calibrate(toy_bundle(), tmp_path)


@pytest.mark.parametrize(("added", "last"), [(0.002, "offered: --precision w8a8"), (0.02, "not offered")])
def test_the_report_ends_with_the_gates_word(added: float, last: str) -> None:
    level = Level(500.0, 2, 0.1, 0.2, 1.0, added)
    report = Calibration(
        *("tiny", "0" * 64, "{}", "p", "2026", "3", "f32", (3, 9), 6, {}, ("a",), ("b",), (level,)),
        *((30.0, 29.0, 31.0), (10.0, 9.0, 11.0), 2, "f32", 20.0, 10.0, "1" * 64),
    )
    lines = calibration.told(report)
    assert lines[-1].startswith(f"w8a8 is {last}: int8 adds up to {added:.2%}") and "2.00 times as fast" in lines[-2]
