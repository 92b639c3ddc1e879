"""The one place where openvino, and its quantiser nncf, are imported: quickly, and without anything that could talk to the network.

``openvino/__init__`` ends with ``try: from openvino.tools.ovc import convert_model / except ImportError: pass``. That
converter costs half of the import's time and sends usage events through ``openvino_telemetry``. A None in
``sys.modules`` makes the import raise ImportError, which the package itself expects; the converter can still be
imported later, by its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from chashka.errors import EngineError, MissingExtraError

CONVERTER = "openvino.tools.ovc"
TELEMETRY = "openvino_telemetry"


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Importing ``names`` raises ImportError inside this block; what was there comes back after it."""
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign for "not to be had"
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def openvino() -> ModuleType:
    """The module ``openvino``, without its converter and telemetry. Raises EngineError if it cannot be loaded."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    with hidden(CONVERTER, TELEMETRY):
        try:
            return importlib.import_module("openvino")
        except (ImportError, OSError) as error:
            reason = " ".join(str(error).split())
            raise EngineError(f"openvino cannot be loaded ({reason}); install it, or use the torch engine") from error


def convert_model(model: Any, **options: Any) -> Any:
    """openvino's own converter with a stub in place of its telemetry."""
    openvino()
    with hidden(TELEMETRY):
        return importlib.import_module(CONVERTER).convert_model(model, **options)


def nncf() -> Any:
    """The module ``nncf`` without its telemetry. Raises MissingExtraError, EngineError if it cannot be loaded."""
    openvino()
    if importlib.util.find_spec("nncf") is None:
        raise MissingExtraError("quantise", "int8 for activations")
    with hidden(TELEMETRY):
        try:
            return importlib.import_module("nncf")
        except (ImportError, OSError) as error:
            raise EngineError(f"nncf cannot be loaded ({' '.join(str(error).split())}); install it again") from error
