"""How many jobs drawn at the same time are worth it on this machine: measured with the first model that is opened (``slots`` 0).

On a few processor cores that is one, on a GPU several: there a call of few rows takes as long as one of many. What was found is
kept in the cache folder, because with another number of rows a picture is not the same to the last bit.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chashka.engines.batching import best_rows
from chashka.engines.machine import processor
from chashka.engines.remembered import recall, remember

if TYPE_CHECKING:
    from chashka.families import Bundle

FILE = "sharing.json"
MOST = 8
"""Jobs at a time, at most: more of them would each wait too long for its picture."""
Call: TypeAlias = tuple[Any, Any, dict[str, Any]]


class _CaughtError(Exception):
    """Ends a drawing at its first call of the network."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call


def jobs_worth(bundle: Bundle, device: str, cache: Path | None) -> int:
    """From 1 to ``MOST``. device: as in the settings. cache: where it was kept, or will be."""
    key = f"{bundle.model} on {bundle.engine} {version('chashka')}, {device or processor()}"
    path = None if cache is None else cache / FILE
    known = {name: jobs for name, jobs in recall(path).items() if type(jobs) is int and 1 <= jobs <= MOST}
    if key not in known:
        known[key] = _measured(bundle)
        remember(path, known)
    return known[key]


def first_call(bundle: Bundle) -> Call:
    """What the network is called with for one picture: x (B, C, h, w), t (B,), cond; B is 2 where guidance is one call."""
    from chashka.generate import draw

    def catch(x: Any, t: Any, cond: dict[str, Any], /) -> Any:
        raise _CaughtError((x, t, cond))

    denoiser: Any = bundle.denoiser
    caught = replace(bundle, denoiser=replace(denoiser, network=catch))
    try:
        draw(caught, caught.request(prompt="чашка", steps=1, seed=0))
    except _CaughtError as found:
        return found.call
    raise AssertionError(f"{bundle.model} drew without its network")


def _measured(bundle: Bundle) -> int:
    x, t, cond = first_call(bundle)
    if not isinstance(x, np.ndarray):  # only numpy's arrays are shared
        return 1
    denoiser: Any = bundle.denoiser
    return best_rows(denoiser.network, x, t, cond, MOST * len(x)) // len(x)
