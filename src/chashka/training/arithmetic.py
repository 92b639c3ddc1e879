"""The numbers that training computes with: bfloat16 where the processor has it, otherwise float32; weights are always float32."""

from __future__ import annotations

import torch


def matrix_type(device: str) -> torch.dtype:
    """bfloat16 on a GPU and on CPUs with instructions for it. Without them it is emulated, twenty times slower than float32
    (seen on an AMD EPYC of the third generation)."""
    if not device.startswith("cpu"):
        return torch.bfloat16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX-512 BF16, AMX, or Arm's BF16)."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "sve_bf16", "bf16"))


def autocast(device: str) -> torch.autocast:
    """Products and convolutions in ``matrix_type``; a context manager."""
    kind = matrix_type(device)
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=kind == torch.bfloat16)
