"""What ``compat`` means around the loop: levels of a run, cells of a mask (docs/kandinsky.md).

Originals: ai-forever/Kandinsky-2.0 @140d16d ``kandinsky2_model.py``, ``utils.py``; ai-forever/Kandinsky-2 @aeefc1c.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from chashka.diffusion import NoiseSchedule, Table
from chashka.errors import InputError
from chashka.families.conventions import Conventions, Levels, Mask, any_pixel, usual_levels
from chashka.families.kandinsky.options import OWN_SAMPLER, Options
from chashka.request import Request

SPACINGS = {"ddim": "ddim", "plms": "ddim", OWN_SAMPLER: "even"}
"""How the original spaces the levels of its samplers, where a request says nothing else."""
SPREAD = ((-1, 0), (0, -1), (-1, -1), (1, 0), (0, 1), (1, 1))
"""Where the original's ``prepare_mask`` takes a repainted cell to: not along the second diagonal."""
TOTAL = 1000


def conventions(request: Options) -> Conventions:
    """Those of a request to a published model."""
    match request.compat:
        case "original":
            return Conventions(_levels_of_2022, _nearest_spread, posterior=True, paste=False, together=True)
        case "2023":
            return Conventions(_levels_of_2023, _nearest_spread, posterior=True, paste=False, together=True)
    return Conventions(_levels, _any_spread)


def conventions_21(request: Options) -> Conventions:
    """Those of Kandinsky 2.1. Its own code is that of 2023 with one mistake more: a picture's noise is of 2.0's schedule."""
    if request.compat is None:
        return Conventions(_levels, _any_spread)
    return Conventions(_levels_of_21, _nearest_spread, paste=False, together=True)


def conventions_22(request: Options) -> Conventions:
    """Those of Kandinsky 2.2, whose code is diffusers': t = 0, c, 2c, … for its own sampler."""
    if request.compat is None:
        return Conventions(_levels_of_22, _any_spread)
    return Conventions(_levels_of_22, _nearest_spread, paste=False)


def spaced(request: Request) -> Request:
    """The request with its sampler's own spacing, unless it names one."""
    return request.filled({"spacing": SPACINGS.get(request.sampler or "")})


def _levels(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    return usual_levels(schedule, spaced(request), edited)


def _levels_of_2022(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """int(strength · n) of the n steps. Strength as a float counts: int(50 · (1 - 0.8)) is 9, in the original too."""
    levels = usual_levels(schedule, spaced(request), False)
    if not edited or request.strength is None:
        return levels
    steps = len(levels.sigmas) - 1
    run = int(steps * request.strength)
    if run == 0:
        raise _nothing(request, steps)
    return replace(levels, first=steps - run)


def _levels_of_2023(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """The last step of DDIM and PLMS ends at σ of t = 0. A picture gets the noise of t = s - 1 and runs the steps at t ≤ s."""
    if request.sampler not in ("ddim", "plms"):
        return _levels_of_2022(schedule, request, edited)
    assert isinstance(schedule, Table) and request.steps is not None
    sigmas = schedule.spaced(request.steps, spaced(request).spacing, schedule.min_sigma)
    if not edited or request.strength is None or request.strength == 1:
        return Levels(sigmas)
    start = int(TOTAL * request.strength)
    first = sum(sigma > schedule.sigmas[min(start, TOTAL - 1)] for sigma in sigmas[:-1])
    if start == 0 or first == len(sigmas) - 1:
        raise _nothing(request, len(sigmas) - 1)
    return Levels(sigmas, first, schedule.sigmas[start - 1])


def _levels_of_21(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """As in 2023; the noise of t = s - 1 is that of the schedule of 2.0, which the code of 2.1 forgot to change."""
    levels = _levels_of_2023(schedule, request, edited)
    if not edited or levels.first == 0:
        return levels
    assert request.strength is not None
    start = int(TOTAL * request.strength) if levels.entry is not None else len(levels.run) - 1
    return replace(levels, entry=Table.linear().sigmas[start - 1])


def _levels_of_22(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """``p_sampler``: every (1000 // steps)-th timestep from 0, as many as asked; of a picture the last int(strength · n)."""
    if request.sampler != OWN_SAMPLER or request.spacing is not None or not isinstance(schedule, Table):
        return usual_levels(schedule, request, edited)
    steps = request.steps or 1
    sigmas = schedule.at([i * (TOTAL // steps) for i in range(steps)])
    share = request.strength if edited and request.strength is not None else 1.0
    run = int(steps * share) if request.model_dump()["compat"] else round(steps * share)
    return Levels(sigmas, steps - max(run, 1))


def _nothing(request: Request, steps: int) -> InputError:
    return InputError(
        f"strength: {request.strength:g} of {steps} steps leaves none to run, on which the original fails; allowed with "
        f"compat={request.model_dump()['compat']}: at least {1 / steps:.3g}"
    )


def _any_spread(mask: Mask, factor: int) -> Mask:
    return spread(any_pixel(mask, factor))


def _nearest_spread(mask: Mask, factor: int) -> Mask:
    """Every cell is what its upper left pixel is (nearest-neighbour resizing), kept or drawn anew, nothing between."""
    return spread((mask[::factor, ::factor] > 0).astype(np.float32))


def spread(cells: Mask) -> Mask:
    """(h, w) in [0, 1] with every cell at least as white as its neighbours in the six directions of ``SPREAD``."""
    rows, columns = cells.shape
    padded = np.pad(cells, 1)
    result = cells.copy()
    for down, right in SPREAD:
        np.maximum(result, padded[1 - down : 1 - down + rows, 1 - right : 1 - right + columns], out=result)
    return result
