"""The numbers that training computes with: bfloat16 where the processor has it, otherwise float32; weights are always float32."""

from __future__ import annotations

import torch

BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""torch's names of what a processor needs to multiply bfloat16 itself; others, Arm's among them, are taken to lack it."""


def matrix_type(device: str) -> torch.dtype:
    """bfloat16 on a GPU and on CPUs with instructions for it. Without them it is emulated, twenty times slower than float32
    (seen on an AMD EPYC of the third generation)."""
    if device.startswith("cpu") and not cpu_has_bfloat16():
        return torch.float32
    return torch.bfloat16


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
