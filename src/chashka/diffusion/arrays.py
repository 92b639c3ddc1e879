"""Arrays without a favourite library: the same lines run on numpy arrays and on torch tensors.

Samplers touch arrays with ``+ - * /`` only. Casting and joining have functions here; wrappers that need more ask
:func:`namespace`. Nothing here imports torch.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
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
    _torch(x)
    import array_api_compat.torch as torch_namespace

    return torch_namespace


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
    return asarray(value, x, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))


def asarray(values: Any, like: Array, dtype: Any) -> Array:
    """A sequence, array or tensor as the kind of ``like``, on its device. dtype: a name, or one of like's library."""
    if isinstance(like, np.ndarray):
        return np.asarray(values, dtype=dtype)
    torch = _torch(like)
    return torch.as_tensor(values, dtype=_torch_dtype(torch, dtype), device=like.device)


def cast(x: Array, dtype: Any) -> Array:
    """``x`` in another dtype: a name such as "float32", or a dtype of its own library."""
    if isinstance(x, np.ndarray):
        return x.astype(dtype, copy=False)
    return x.to(_torch_dtype(_torch(x), dtype))


def concat(arrays: Sequence[Array], axis: int) -> Array:
    """Arrays of one kind joined along ``axis``."""
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays, axis=axis)
    return _torch(arrays[0]).cat(list(arrays), dim=axis)


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


def _torch(x: Array) -> Any:
    """The torch that made the tensor ``x``: already imported, so that nothing is imported here.

    The functions above serve training as well, which runs where array_api_compat is not installed.
    """
    if type(x).__module__.partition(".")[0] != "torch":
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(x).__name__}")
    return sys.modules["torch"]


def _torch_dtype(torch: Any, dtype: Any) -> Any:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype
