"""Opened models, kept for the next job: the least recently used ones are closed when they would hold too much memory.

How much they hold is known in two ways: by their files, before they are opened, and by how much the process grew with the ones
before, for every byte of theirs; and by how much it has grown since it held none. Whichever is more counts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from chashka.app.compute.processes import available, held
from chashka.app.settings import Settings

if TYPE_CHECKING:
    from chashka.engines.batching import StepBatcher
    from chashka.families import Bundle, Weight

Key: TypeAlias = "tuple[str, tuple[tuple[Path, Weight], ...], tuple[Path, ...], Path | None, str | None]"
Open: TypeAlias = "Callable[..., Bundle]"


@dataclass(slots=True)
class _Opened:
    """bytes: of its files. before: what this process held before it was opened; None once its growth is known. users: jobs that
    draw with it now; it is not closed under them."""

    bundle: Bundle
    bytes: int
    before: int | None
    batcher: StepBatcher | None = None
    users: int = 0


class Models:
    """Thread safe; one model is opened at a time. open: ``families.load``, for tests."""

    def __init__(self, settings: Settings, open: Open | None = None) -> None:
        self.settings = settings
        self.slots = settings.slots or 1
        """Jobs that draw at the same time; where the settings leave it open, it is found with the first model."""
        self._found = bool(settings.slots)
        self.cap = settings.model_memory or available(settings.memory) // 2
        self._open = open
        self._base = held(os.getpid())
        self._growth = 1.0
        self._lock = threading.RLock()
        self._opened: OrderedDict[Key, _Opened] = OrderedDict()

    @contextlib.contextmanager
    def use(
        self,
        model: str,
        loras: Sequence[tuple[Path, Weight]] = (),
        embeddings: Sequence[Path] = (),
        vae: Path | None = None,
        precision: str | None = None,
    ) -> Iterator[Bundle]:
        """The model, opened if it is not; it stays open as long as it fits. Raises as ``families.load``.

        Where jobs share a network's calls (``slots`` above 1) this is the time in which they wait for one another.
        """
        key: Key = (model, tuple(loras), tuple(embeddings), vae, precision)
        with self._lock:
            opened = self._opened.get(key) or self._added(key)
            self._opened.move_to_end(key)
            opened.users += 1
        try:
            with opened.batcher.job() if opened.batcher is not None else contextlib.nullcontext():
                yield opened.bundle
        finally:
            with self._lock:
                opened.users -= 1
                self._learn(opened)
                self._make_room(0, keep=1)

    def close(self) -> None:
        """Close every model that nobody uses."""
        with self._lock:
            for key in [key for key, one in self._opened.items() if not one.users]:
                del self._opened[key]
            _give_back()

    @property
    def names(self) -> list[str]:
        """The models that are open, the least recently used first."""
        with self._lock:
            return [key[0] for key in self._opened]

    def _added(self, key: Key) -> _Opened:
        from chashka import families
        from chashka.families.files import weights_below

        model, loras, embeddings, vae, precision = key
        settings = self.settings
        expected = _on_disk(model, settings.models) + sum(file.stat().st_size for file, _ in loras)
        expected += 0 if vae is None else sum(file.stat().st_size for file in weights_below(vae))
        self._make_room(round(expected * self._growth))
        before = held(os.getpid())
        bundle = (self._open or families.load)(
            model,
            engine=settings.engine,
            device=settings.device or None,
            precision=precision,
            cache_dir=settings.cache,
            models=settings.models,
            loras=loras,
            embeddings=embeddings,
            vae=vae,
        )
        opened = _Opened(bundle, expected, before)
        if not self._found:
            from chashka.app.compute.sharing import jobs_worth

            self.slots, self._found = jobs_worth(bundle, settings.device, settings.cache), True
        if self.slots > 1:
            self._share(opened)
        self._opened[key] = opened
        return opened

    def _share(self, opened: _Opened) -> None:
        """Let jobs share the calls of the model's network: so many rows that every job has a picture with its guidance in it."""
        from chashka.engines.batching import StepBatcher

        denoiser: Any = opened.bundle.denoiser
        opened.batcher = StepBatcher(denoiser.network, 2 * self.slots, self.settings.strict)
        opened.bundle = replace(opened.bundle, denoiser=replace(denoiser, network=opened.batcher))

    def _learn(self, opened: _Opened) -> None:
        """How much the process grew with a model's first use, for every byte of its files; only if nothing else went on."""
        if opened.before is not None and opened.bytes and not any(one.users for one in self._opened.values()):
            self._growth = max(self._growth, (held(os.getpid()) - opened.before) / opened.bytes)
        opened.before = None

    def _make_room(self, needed: int, keep: int = 0) -> None:
        """Close what was not used for longest until ``needed`` bytes more fit, or no more than the newest ``keep`` are left."""
        for key in list(self._opened)[: max(len(self._opened) - keep, 0)]:
            known = self._growth * sum(one.bytes for one in self._opened.values())
            if max(known, held(os.getpid()) - self._base) + needed <= self.cap:
                break
            if not self._opened[key].users:
                del self._opened[key]
                _give_back()


def _on_disk(model: str, folder: Path | None) -> int:
    """Bytes of a model's files. Raises as ``families.find`` and ``located``."""
    from chashka import families
    from chashka.families.files import weight_files

    preset = families.located(model, families.find(model, folder)[1], folder)
    return sum(file.stat().st_size for file in weight_files(preset))


def _give_back() -> None:
    """Give freed memory back to the system: what was closed is full of cycles."""
    from chashka.engines.machine import trim

    gc.collect()
    trim()
