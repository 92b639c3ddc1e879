"""chashka draws pictures from text with diffusion models.

    import chashka
    model = chashka.load()                                              # "kandinsky-teacup", inside the package
    pictures = chashka.draw(model, chashka.Request(prompt="чашка на столе", n=4, seed=7))
    chashka.save(pictures[0], "cup.png")

Names load when they are first used: ``import chashka`` itself imports none of numpy, pydantic, openvino or torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know this name; importing typing would take longer than everything else here
if TYPE_CHECKING:
    from chashka.enlarge import upscale
    from chashka.errors import (
        ChashkaError,
        EngineError,
        FileError,
        InputError,
        MissingExtraError,
        RefusedError,
        TrainingError,
        WeightsError,
    )
    from chashka.families import load
    from chashka.generate import draw
    from chashka.images import extend, read, read_mask, read_metadata, save
    from chashka.request import Inputs, Picture, Request

__version__ = "0.1.0"

__all__ = [
    "ChashkaError",
    "EngineError",
    "FileError",
    "InputError",
    "Inputs",
    "MissingExtraError",
    "Picture",
    "RefusedError",
    "Request",
    "TrainingError",
    "WeightsError",
    "__version__",
    "draw",
    "extend",
    "load",
    "read",
    "read_mask",
    "read_metadata",
    "save",
    "upscale",
]

_WHERE = {
    **dict.fromkeys(
        [
            "ChashkaError",
            "EngineError",
            "FileError",
            "InputError",
            "MissingExtraError",
            "RefusedError",
            "TrainingError",
            "WeightsError",
        ],
        "chashka.errors",
    ),
    **dict.fromkeys(["Inputs", "Picture", "Request"], "chashka.request"),
    **dict.fromkeys(["extend", "read", "read_mask", "read_metadata", "save"], "chashka.images"),
    "draw": "chashka.generate",
    "load": "chashka.families",
    "upscale": "chashka.enlarge",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'chashka' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
