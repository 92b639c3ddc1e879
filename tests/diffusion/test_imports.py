"""The mathematics is usable without torch."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["torch"] = sys.modules["array_api_compat"] = None
import pkgutil, importlib, chashka.diffusion as d
for module in pkgutil.iter_modules(d.__path__):
    importlib.import_module("chashka.diffusion." + module.name)
noise = d.PictureNoise([7], (1, 4, 4))
flow = d.Flow()
cond, uncond = {"tokens": noise(0)[:, 0]}, {"tokens": noise(1)[:, 0]}
network = lambda x, t, c: x[: len(x)] * 0.1
denoise = d.dynamic_threshold(d.cfg(d.Denoiser(network, flow, "flow"), cond, uncond, 3.0, rescale=0.5))
for name, sample in d.SAMPLERS.items():
    for step in sample(denoise, flow.start(noise.start(), flow.max_sigma), flow.spaced(3), noise=noise):
        pass
    assert step.x.dtype == "float32", name
"""


def test_everything_runs_with_torch_blocked() -> None:
    result = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
