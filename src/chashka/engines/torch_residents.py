"""Which networks lie on the device: all of them while they fit, otherwise those that were used last; the others wait on the CPU.

A picture needs its networks one after the other, so a GPU that holds the largest of them draws it. Moving one costs its bytes over
the bus, once or twice a picture.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import nn

SPARE = 1 << 30
"""Bytes that are left free for what a network computes, when another one's place is asked for."""
CPU = torch.device("cpu")


class Residents:
    """The networks of one engine on one device.

    free: how many bytes are free there, or None where nobody can say; then networks make room only when memory has run out. Calls
    under ``lock``: what one thread computes with, another must not send away.
    """

    def __init__(self, device: torch.device, free: Callable[[], int | None]) -> None:
        self.device, self.free = device, free
        self.lock = threading.RLock()
        self._used: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        self._clock = 0

    def enter(self, module: nn.Module) -> None:
        """Have ``module`` on the device, and send others away until there is room for it."""
        need = sum(value.nbytes for value in tensors(module) if value.device.type != self.device.type)
        if need:
            for other in self._others(module):
                free = self.free()
                if free is None or free >= need + SPARE:
                    break
                self._leave(other)
            module.to(self.device)
        self._clock += 1
        self._used[module] = self._clock

    def leave_alone(self, module: nn.Module) -> bool:
        """Send all others away; whether there were any."""
        others = self._others(module)
        for other in others:
            self._leave(other)
        return bool(others)

    def _others(self, module: nn.Module) -> list[nn.Module]:
        """Least recently used first; those that share weights with ``module`` are not among them."""
        own = {id(value) for value in tensors(module)}
        found = [m for m in sorted(self._used, key=lambda m: self._used[m]) if m is not module]
        return [m for m in found if not any(id(value) in own for value in tensors(m))]

    def _leave(self, module: nn.Module) -> None:
        module.to(CPU)
        del self._used[module]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def residents_of(device: torch.device) -> Residents | None:
    """None on a CPU, where everything lies already."""
    return None if device.type == "cpu" else Residents(device, lambda: free_bytes(device))


def free_bytes(device: torch.device) -> int | None:
    """What the device has left: what nobody took, and what torch took and does not use. None where torch cannot say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return None
