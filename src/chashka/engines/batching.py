"""Jobs that run at the same time on one network share its calls: a Network around a Network.

Samplers, guidance and families do not know of it. Each job has its own thread, its own step and its own settings; a call's rows
of x, t and conditioning are laid beside those of other jobs where their shapes agree. Whoever comes first leads: it waits until
every job that is sampling waits too, but never longer than ``linger`` of the last call's time, and computes for all (vLLM-Omni
and SGLang-Diffusion batch by step as well; there one loop drives all requests).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from chashka.errors import ChashkaError

Array: TypeAlias = Any
Key: TypeAlias = tuple[Any, ...]
FASTER = 0.6
"""Twice the rows in a call are worth it if a row then takes at most this much of its time: a job that is alone pays for the empty
places, a fifth more time at this limit."""


@dataclass(eq=False, slots=True)
class _Call:
    """One job's call: waiting, or answered with ``out`` or ``error``."""

    key: Key
    x: Array
    t: Array
    cond: Mapping[str, Array]
    out: Array = None
    error: BaseException | None = None
    ended: bool = False


@dataclass(eq=False)
class StepBatcher:
    """network: ``(x (B, …), t (B,), cond) → (B, …)`` on numpy arrays, any number of rows. rows: of one shared call, at most.

    strict: the network always gets exactly ``rows`` rows, empty places filled with copies, so that a picture is the same to the
    last bit whatever is drawn beside it (engines choose their arithmetic by the number of rows). Otherwise the next power of two,
    which is quicker for few jobs and equal but for rounding. linger: how long the leader waits for others, as a share of the last
    call. Arrays that are not numpy's go to the network as they are: gradients belong to one job.
    """

    network: Callable[[Array, Array, dict[str, Array]], Array]
    rows: int
    strict: bool = True
    linger: float = 0.05
    calls: int = field(default=0, init=False)
    _active: int = field(default=0, init=False, repr=False)
    _busy: bool = field(default=False, init=False, repr=False)
    _last: float = field(default=0.0, init=False, repr=False)
    _waiting: list[_Call] = field(default_factory=list, init=False, repr=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)
    _others: dict[str, StepBatcher] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; allowed are 1 and more")

    @contextmanager
    def job(self) -> Iterator[StepBatcher]:
        """Around a job's sampling: as long as it lasts, others wait for its calls a moment."""
        with self._changed:
            self._active += 1
        try:
            yield self
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    @property
    def tiled(self) -> Callable[[str], StepBatcher]:
        """Makes the same around the network whose pictures continue at their edges, shared by all jobs that ask for these axes.

        A batcher has it if its network does.
        """
        network: Any = self.network
        make = network.tiled

        def shared(axes: str) -> StepBatcher:
            return self._shared(f"tiled {axes}", lambda: make(axes))

        return shared

    @property
    def quick(self) -> StepBatcher | None:
        """The same around the network for drafts, shared by all jobs that draw some; None if the network has none."""
        network: Any = getattr(self.network, "quick", None)
        return None if network is None else self._shared("quick", lambda: network)

    def _shared(self, name: str, make: Callable[[], Any]) -> StepBatcher:
        with self._changed:
            if name not in self._others:
                self._others[name] = StepBatcher(make(), self.rows, self.strict, self.linger)
            return self._others[name]

    def __call__(self, x: Array, t: Array, cond: dict[str, Array], /) -> Array:
        if not isinstance(x, np.ndarray):
            return self.network(x, t, cond)
        shapes = tuple((name, value.shape[1:]) for name, value in sorted(cond.items()))
        call = _Call((x.shape[1:], shapes), x, t, cond)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: call.ended or not self._busy)
                if call.ended:
                    break
                self._busy = True
                self._changed.wait_for(lambda: len(self._waiting) >= self._active, self.linger * self._last)
                group = self._next_group()
            self._lead(group)
        if call.error is not None:
            raise call.error
        return call.out

    def _next_group(self) -> list[_Call]:
        """The call that waits longest, and what fits beside it."""
        first, *others = self._waiting
        group, rows = [first], len(first.x)
        for call in others:
            if call.key == first.key and rows + len(call.x) <= self.rows:
                group.append(call)
                rows += len(call.x)
        self._waiting = [call for call in self._waiting if call not in group]
        return group

    def _lead(self, group: list[_Call]) -> None:
        """Compute a group's calls; whatever happens, each of them ends."""
        started = time.perf_counter()
        try:
            self._answer(group)
        except BaseException as error:
            if len(group) == 1 or not isinstance(error, Exception):
                for call in group:
                    call.error = error
            else:  # one job's fault is not another's: each gets its own answer
                for call in group:
                    self._alone(call)
        finally:
            with self._changed:
                self._last = time.perf_counter() - started
                self._busy = False
                for call in group:
                    call.ended = True
                self._changed.notify_all()

    def _alone(self, call: _Call) -> None:
        try:
            self._answer([call])
        except Exception as error:
            call.error = error

    def _answer(self, group: Sequence[_Call]) -> None:
        """The network's answers, in pieces of at most ``rows`` rows."""
        x, t = _stacked([call.x for call in group]), _stacked([call.t for call in group])
        cond = {name: _stacked([call.cond[name] for call in group]) for name in group[0].cond}
        pieces = []
        for begin in range(0, len(x), self.rows):
            part = slice(begin, min(begin + self.rows, len(x)))
            pieces.append(self._padded(x[part], t[part], {name: value[part] for name, value in cond.items()}))
        out, at = _stacked(pieces), 0
        for call in group:
            call.out = np.ascontiguousarray(out[at : at + len(call.x)])
            at += len(call.x)

    def _padded(self, x: Array, t: Array, cond: Mapping[str, Array]) -> Array:
        """One call of the network; copies of the first row fill the empty places."""
        rows = len(x)
        missing = (self.rows if self.strict else _power_of_two(rows)) - rows
        self.calls += 1
        filled = {name: _filled(value, missing) for name, value in cond.items()}
        return self.network(_filled(x, missing), _filled(t, missing), filled)[:rows]


def best_rows(network: Callable[..., Array], x: Array, t: Array, cond: dict[str, Array], most: int) -> int:
    """How many rows a call should have on this machine, doubled from ``x``'s own as long as a row gets quicker (``FASTER``).

    x, t, cond: one job's call. On two processor cores that is usually the job's own number; it is for GPUs. A number of rows
    that the engine cannot do, for want of memory say, is too large.
    """

    def calling(rows: int) -> Callable[[], Array]:
        again = rows // len(x)
        given = np.concatenate([x] * again), np.concatenate([t] * again)
        wide = {name: np.concatenate([value] * again) for name, value in cond.items()}
        return lambda: network(*given, wide)

    rows = len(x)
    while rows * 2 <= most:
        try:
            narrow, wide = _seconds(calling(rows), calling(2 * rows))
        except (ChashkaError, MemoryError, RuntimeError):
            break
        if wide / 2 > FASTER * narrow:
            break
        rows *= 2
    return rows


def _seconds(*calls: Callable[[], Array]) -> list[float]:
    """The quickest of five of each, in turns, after one that compiles: what else the machine does then slows all of them."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(5):
        for call, took in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            took.append(time.perf_counter() - started)
    return [min(took) for took in times]


def _stacked(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _filled(value: Array, missing: int) -> Array:
    return np.concatenate([value, np.repeat(value[:1], missing, axis=0)]) if missing else value


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
