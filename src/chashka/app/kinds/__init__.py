"""What jobs do: the one table of kinds, each with what it checks and what it does with the library.

``check`` is called where jobs are accepted and is quick; ``run`` where they are computed. Both know kinds by their names alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from chashka.app.compute.runner import DiedError, Event, Stop, Task, TaskError
from chashka.app.jobs import Problem
from chashka.app.kinds import drawing, remaking, training
from chashka.app.kinds.kind import Kind, NewFields, Sizes, check_uses
from chashka.app.settings import Settings
from chashka.errors import (
    ChashkaError,
    EngineError,
    FileError,
    InputError,
    MissingExtraError,
    TrainingError,
    WeightsError,
)
from chashka.request import shown

if TYPE_CHECKING:
    from chashka.app.compute.models import Models

__all__ = ["KINDS", "Kind", "NewFields", "Sizes", "check", "run"]

PICTURES = ("init", "mask", "picture")
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("draw", "draw", drawing.check_draw, drawing.run_draw, may=PICTURES, own=drawing.OWN),
        Kind("edit", "draw", drawing.check_draw, drawing.run_draw, ("init",), ("mask", "picture"), drawing.OWN),
        Kind("vary", "vary", drawing.check_vary, drawing.run_vary, ("init",), own=drawing.ADAPTED),
        Kind("mix", "mix", drawing.check_mix, drawing.run_draw, may=("picture",), own=drawing.ADAPTED),
        Kind("extend", "extend", drawing.check_extend, drawing.run_extend, ("init",), own=drawing.EXTENDED),
        Kind("upscale", "upscale", remaking.check_upscale, remaking.run_upscale, ("init",), own=("by",)),
        Kind("svg", "draw --svg", remaking.check_svg, remaking.run_svg, ("init",)),
        Kind("train", "train", training.check, training.run, own=training.FIELDS, scope="train"),
    )
}
"""By name; the names are those of the commands of the command line, but for edit (draw --init) and svg (draw --svg)."""
CODES: tuple[tuple[type[ChashkaError], str], ...] = (
    (InputError, "input"),
    (MissingExtraError, "missing_extra"),
    (WeightsError, "weights"),
    (FileError, "file"),
    (EngineError, "engine"),
    (TrainingError, "training"),
)
"""Codes of problems by the error's class."""
MEMORY = ("bad_alloc", "out of memory", "can't allocate memory", "cannot allocate memory")
"""How engines say that memory ran out, besides MemoryError."""


def check(kind: str, said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """What a client said for a job, complete and within this server's limits. Raises InputError in one line.

    said: the fields of the job, without its kind and its inputs. inputs: (width, height) of the given pictures by their use.
    """
    if kind not in KINDS:
        raise InputError(f"kind: {shown(kind)} is not possible; allowed: {', '.join(KINDS)}")
    check_uses(KINDS[kind], inputs)
    return KINDS[kind].check(said, inputs, settings)


def run(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """Do a task; see ``runner.Runner.run``. Raises TaskError, and DiedError where memory ran out."""
    try:
        yield from KINDS[task.kind].run(task, models, stop)
    except MemoryError as error:
        models.close()
        raise ran_out(error) from error
    except ChashkaError as error:
        if isinstance(error, EngineError) and any(words in str(error).lower() for words in MEMORY):
            models.close()
            raise ran_out(error) from error
        code = next((code for known, code in CODES if isinstance(error, known)), "failed")
        raise TaskError(Problem(code, " ".join(str(error).split()))) from error
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in MEMORY):
            raise
        models.close()
        raise ran_out(error) from error


def ran_out(error: BaseException) -> DiedError:
    """Memory ran out, with what this process held at most."""
    from chashka.app.compute.processes import peak

    reason = " ".join(str(error).split())[:200]
    held = peak() / 1e6
    return DiedError(
        Problem("out_of_memory", f"memory ran out at {held:,.0f} MB{f': {reason}' if reason else ''}; ask for less")
    )
