"""The numbers that training computes with: bfloat16 where the processor is quicker with it, otherwise float32; weights are always
float32."""

from __future__ import annotations

import functools
import time

import torch

BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""torch's names of what a processor needs to multiply bfloat16 itself; others, Arm's among them, are taken to lack it."""


QUICKER = 0.9
"""Of float32's time bfloat16 takes at most this where it is worth its rounding; where both are alike, chance must not decide."""


def matrix_type(device: str) -> torch.dtype:
    """bfloat16 on a GPU and on CPUs that are quicker with it (:func:`quick_bfloat16`)."""
    if device.startswith("cpu") and not quick_bfloat16():
        return torch.float32
    return torch.bfloat16


@functools.cache
def quick_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in less time than float32: it is tried, which takes a twentieth of a second.

    Without instructions it is emulated, twenty times slower than float32 (seen on an AMD EPYC of the third generation). With
    AVX-512's, an EPYC of the fourth is twice as fast, an Intel Xeon that hides its AMX half as fast.
    """
    if not cpu_has_bfloat16():
        return False
    kinds = (torch.float32, torch.bfloat16)
    taken: dict[torch.dtype, list[float]] = {kind: [] for kind in kinds}
    for _ in range(8):  # in turns, so that what else the machine does slows both
        for kind in kinds:
            a, b = torch.ones(512, 1024, dtype=kind), torch.ones(1024, 1024, dtype=kind)
            taken[kind].append(_seconds(a, b))
    return min(taken[torch.bfloat16]) < QUICKER * min(taken[torch.float32])


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - started


def cpu_has_bfloat16() -> bool:
    """Whether this processor has one of ``BFLOAT16``; no where this torch cannot say."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(known.get(name)) for name in BFLOAT16)


def autocast(device: str) -> torch.autocast:
    """Products and convolutions in ``matrix_type``; a context manager."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=matrix_type(device) == torch.bfloat16)


FEEDING = 4
"""Threads of the processor beside a GPU, which has the work; of sixteen, nine were seen busy over small tensors."""


def prepare(device: str) -> None:
    """On a GPU, let float32 products use its matrix units and let convolutions be chosen by trying them."""
    if device.startswith("cuda"):
        torch.set_num_threads(min(torch.get_num_threads(), FEEDING))
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
