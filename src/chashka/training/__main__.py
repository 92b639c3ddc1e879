"""``python -m chashka.training STAGE …``: the training command without the rest of the command line (bare machines).

``chashka train`` offers the same options and calls the same function.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chashka.errors import ChashkaError, TrainingError
from chashka.training import catalogue
from chashka.training.stages import train

STOPPED = 130
"""Exit code of a run that was stopped before its end; everything is saved."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="chashka.training", description=__doc__)
    made.add_argument("stage", choices=sorted(catalogue.STAGES))
    made.add_argument("--recipe", default=None, help="a name or a JSON file; default: the stage's own recipe")
    made.add_argument("--shards", type=Path, required=True, help="folder made by chashka data build")
    made.add_argument("--run", type=Path, required=True, help="folder of the run; call again to go on")
    made.add_argument("--minutes", type=float, default=None, help="stop this slice cleanly after so many minutes")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--start", type=Path, default=None, help="weights to begin with")
    made.add_argument(
        "--frozen",
        action="append",
        default=[],
        metavar="STAGE=WEIGHTS",
        help="weights of earlier stages (clip, picture, upscale, unet, distil, judge)",
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        recipe = catalogue.load(given.recipe or given.stage, given.stage)
        ended = train(
            recipe,
            given.shards,
            given.run,
            minutes=given.minutes,
            device=given.device,
            start=given.start,
            frozen=frozen_files(given.frozen),
        )
    except ChashkaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if ended else STOPPED


def frozen_files(pairs: list[str]) -> dict[str, Path]:
    """['clip=a.safetensors', …] → {'clip': Path('a.safetensors'), …}"""
    files = {}
    for pair in pairs:
        stage, _, name = pair.partition("=")
        if stage not in catalogue.STAGES or not name:
            raise TrainingError(
                f"--frozen {pair!r}: expected STAGE=WEIGHTS with STAGE one of {', '.join(catalogue.STAGES)}"
            )
        files[stage] = Path(name)
    return files


if __name__ == "__main__":
    sys.exit(main())
