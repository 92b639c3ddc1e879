"""Arrays without a favourite library: the same lines run on numpy arrays and on torch tensors.

Samplers touch arrays with ``+ - * /`` only. The few wrappers that need functions ask :func:`namespace`. Nothing here
imports torch unless a torch tensor is passed in.
"""

from __future__ import annotations

import numbers
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A numpy array or a torch tensor. Docstrings give shape and range."""

Level: TypeAlias = Any
"""A noise level: a Python float, or one value per row (an array, tensor or sequence of length B)."""


def namespace(x: Array) -> Any:
    """The functions that fit ``x``: numpy itself for numpy arrays, ``array_api_compat.torch`` for tensors.

    Raises TypeError for anything else, a Python list included.
    """
    if isinstance(x, np.ndarray):
        return np
    if type(x).__module__.partition(".")[0] == "torch":
        import array_api_compat.torch as torch_namespace

        return torch_namespace
    raise TypeError(f"expected a numpy array or a torch tensor, got {type(x).__name__}")


def is_scalar(value: Any) -> bool:
    """True for Python and numpy numbers, False for arrays, tensors and sequences (zero-dimensional ones included)."""
    return isinstance(value, numbers.Real)


def as_rows(value: Level, x: Array) -> Array:
    """One value per row of ``x``, or one for all, ready to be multiplied with ``x``.

    A number comes back as a Python float (np.float64 times a float32 array would promote to float64). Anything else of
    length B comes back with shape (B, 1, …, 1) in the dtype and on the device of ``x``, whose shape is (B, …).
    """
    if is_scalar(value):
        return float(value)
    xp = namespace(x)
    if hasattr(value, "dtype") and namespace(value) is xp:
        rows = xp.asarray(value, dtype=x.dtype, device=x.device)
    else:
        rows = xp.asarray(np.asarray(value), dtype=x.dtype, device=x.device)
    return rows.reshape((-1,) + (1,) * (x.ndim - 1))


def quantile(x: Array, q: float) -> Array:
    """The ``q``-quantile (0 to 1) of every sample, linear between neighbours: (B, …) → (B,).

    Equals ``numpy.percentile(x[i], 100 * q)``. Sort and lerp, because the array API standard has no quantile.
    """
    xp = namespace(x)
    flat = xp.sort(x.reshape((x.shape[0], -1)), axis=1)
    position = q * (flat.shape[1] - 1)
    below = int(position)
    above = min(below + 1, flat.shape[1] - 1)
    return flat[:, below] + (position - below) * (flat[:, above] - flat[:, below])
