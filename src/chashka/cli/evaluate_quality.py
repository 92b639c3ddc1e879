"""``chashka evaluate teacup`` and its neighbours: what needs a judge, sets of pictures or the text encoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chashka.cli.evaluate import FILE, FOLDER, _bar, _bundle, _drawing_options, _model_options

JUDGE = click.option("--judge", type=FILE, help="average.safetensors of a run of chashka train judge (needs [torch]).")


@click.command()
@click.option(
    "--judge", type=FILE, required=True, help="average.safetensors of a run of chashka train judge (needs [torch])."
)
@click.option("--second-judge", type=FILE, help="Another judge's word beside the first one's.")
@click.option("--out", type=FOLDER, required=True, help="Folder for composition.md, composition.json and the pictures.")
@click.option(
    "--prompts", "which", type=click.Choice(["dev", "report"]), default="report", show_default=True,
    help="The 200 prompts to tune on, or the 600 others.",
)  # fmt: skip
@click.option("--languages", default="en", show_default=True, help="Languages of the grammar, such as en,ru,de.")
@click.option("-n", "n", type=click.IntRange(1, 64), default=1, show_default=True, help="Pictures of each prompt.")
@click.option("--limit", type=click.IntRange(1), help="At most so many prompts, of every task alike.")
@_drawing_options
@_model_options
def teacup(
    judge: Path,
    second_judge: Path | None,
    out: Path,
    which: Any,
    languages: str,
    n: int,
    limit: int | None,
    **given: Any,
) -> None:
    """Draw composed prompts and let a trained judge say how many are right: one object to attributes and relations.

    Pictures stay in OUT/pictures, and the same call goes on where it was stopped.
    """
    from chashka.evaluation.cached import DrawnPictures
    from chashka.evaluation.composition import check_locales, composition_report
    from chashka.evaluation.composition_pages import write_composition
    from chashka.evaluation.detector import TrainedDetector
    from chashka.evaluation.scene_prompts import scene_prompts

    locales = check_locales(languages)
    judges = [TrainedDetector(file) for file in (judge, second_judge) if file is not None]
    bundle, fields = _bundle(given)
    drawn = DrawnPictures(bundle, out / "pictures", **fields)
    with _bar(len(scene_prompts(which, limit)) * len(locales) * n) as advance:
        report = composition_report(
            drawn,
            judges[0],
            second=judges[1] if len(judges) > 1 else None,
            which=which,
            locales=locales,
            n=n,
            limit=limit,
            on_picture=advance,
        )
    click.echo(str(write_composition(report, out)))
    for table in report.tables:
        tasks = ", ".join(f"{task} {share.share:.1%}" for task, share in table.tasks.items())
        click.echo(f"{table.locale}: {table.overall} ({tasks})")


COMMANDS = (teacup,)
