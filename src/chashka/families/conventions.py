"""What implementations do differently around the same mathematics: where a run begins, what a mask covers.

The defaults are chashka's own. A model that shall give another implementation's numbers brings others (docs/kandinsky.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chashka.diffusion import NoiseSchedule
from chashka.request import Request

Mask: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Levels:
    """The noise levels of a run. sigmas: the whole schedule's; ``first``: how many steps are left out at its beginning.

    entry: the level of the noise that a given picture gets, where it is not that of the first step: x is then what the
    network would see at ``entry``, taken for what it sees at the first step. start: kind of x that begins as noise alone, see
    ``NoiseSchedule.start``.
    """

    sigmas: tuple[float, ...]
    first: int = 0
    entry: float | None = None
    start: str | None = None

    @property
    def run(self) -> tuple[float, ...]:
        """The levels that are run; one alone if there is nothing to do."""
        return self.sigmas[self.first :]


def usual_levels(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """As many steps as asked; from a picture the last round(strength · steps) of them, at least one unless strength is 0."""
    assert request.steps is not None
    sigmas = schedule.spaced(request.steps, request.spacing)
    steps = len(sigmas) - 1
    share = request.strength if edited and request.strength is not None else 1.0
    return Levels(sigmas, steps - (max(round(share * steps), 1) if share > 0 else 0))


def any_pixel(mask: Mask, factor: int) -> Mask:
    """(H, W) in [0, 1] → (H/factor, W/factor): a latent is drawn anew if any of its pixels is."""
    rows, columns = mask.shape[0] // factor, mask.shape[1] // factor
    cells: Mask = mask.reshape(rows, factor, columns, factor).max(axis=(1, 3))
    return cells


@dataclass(frozen=True, slots=True)
class Conventions:
    """levels: (schedule, request, whether there is a picture) → the run's. cells: (mask at the drawn size, factor) → of latents.

    posterior: a given picture is encoded to a sample of the encoder's distribution, not to its mean. paste: what a mask keeps
    is pasted back, pixel by pixel. together: all pictures of a request are drawn in one call, however many they are. noised:
    what a mask keeps is put into x before each step, with its noise, and the family's ``denoise`` leaves it alone.
    """

    levels: Callable[[NoiseSchedule, Request, bool], Levels] = usual_levels
    cells: Callable[[Mask, int], Mask] = any_pixel
    posterior: bool = False
    paste: bool = True
    together: bool = False
    noised: bool = False


USUAL = Conventions()
