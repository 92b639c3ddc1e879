"""Everything chashka raises on purpose, as one tree.

    ChashkaError                what a person can act on; the command line prints it in one line
    ├─ InputError               a request is wrong: what was given, what is allowed          exit 2
    ├─ MissingExtraError        an optional dependency is not installed: which one           exit 3
    ├─ WeightsError             a weight file is missing, damaged or of another layout       exit 4
    │  └─ OtherKindError        it is sound, and something else than what it was given for
    ├─ FileError                a file or folder cannot be read or written                   exit 5
    ├─ EngineError              an inference engine failed or cannot run here                exit 6
    │  ├─ NotFiniteError        what it computed is infinite or not a number
    │  └─ UncalibratedError     int8 activations are asked for, and nobody measured them here
    ├─ TrainingError            a recipe, a shard or a checkpoint does not fit               exit 7
    └─ RefusedError             what is asked for is never drawn                             exit 8

Anything else that escapes is a bug of ours and exits with 1 and a traceback. Ctrl-C exits with 130.
"""

from __future__ import annotations


class ChashkaError(Exception):
    """Base of all errors meant for people; ``str(error)`` is one line."""

    exit_code = 1


class InputError(ChashkaError, ValueError):
    """A value in a request is wrong. The message names the field, the value and the allowed range."""

    exit_code = 2


class MissingExtraError(ChashkaError, ImportError):
    """An optional package is needed; the message says ``pip install 'chashka[extra]'``."""

    exit_code = 3

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the extra '{extra}': pip install 'chashka[{extra}]'")
        self.extra = extra


class WeightsError(ChashkaError):
    """A weight file is missing, damaged (sha256) or does not have the expected keys and shapes."""

    exit_code = 4


class OtherKindError(WeightsError):
    """What is in a file is not what it was read as; it may be sound, and another kind of thing."""


class FileError(ChashkaError, OSError):
    """A file or folder cannot be read or written; the message names it and the reason."""

    exit_code = 5


class EngineError(ChashkaError, RuntimeError):
    """An inference engine failed or cannot run on this machine."""

    exit_code = 6


class NotFiniteError(EngineError):
    """A network gave numbers that are infinite or none at all; in float32 it may not."""


class UncalibratedError(EngineError):
    """Precision w8a8 for weights whose drift was not measured on this machine; says what does it. reason: one clause."""

    def __init__(self, reason: str, model: str | None = None) -> None:
        super().__init__(
            f"precision w8a8: {reason}; run this first: chashka export --int8 --calibrate --model {model or 'MODEL'}"
        )
        self.reason = reason


class TrainingError(ChashkaError):
    """A recipe, a shard or a training checkpoint does not fit."""

    exit_code = 7


class RefusedError(ChashkaError):
    """What is asked for is never drawn. rule: which rule says so. sha256: of the texts that were asked for, for an audit."""

    exit_code = 8

    def __init__(self, rule: str, message: str, sha256: str = "") -> None:
        super().__init__(message)
        self.rule, self.sha256 = rule, sha256
