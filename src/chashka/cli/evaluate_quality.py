"""``chashka evaluate teacup`` and its neighbours: what needs a judge, sets of pictures or the text encoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.evaluate import FILE, FOLDER, _bar, _bundle, _drawing_options, _model_options, _write
from chashka.cli.places import cache_dir

if TYPE_CHECKING:
    from chashka.evaluation.detector import TrainedDetector
    from chashka.evaluation.distribution import Features, PictureTower
    from chashka.families import Bundle

SHARDS = click.option("--shards", type=FOLDER, required=True, help="Folder of shards that the model was trained with.")
JUDGE = click.option(
    "--judge", type=FOLDER, help="A judge of chashka export --judge.  [default: judge A of the package]"
)
TOWER = click.option(
    "--tower",
    type=FILE,
    help="A picture tower: its average.safetensors or component (needs [torch]).  [default: the model's picture encoder]",
)


@click.command()
@JUDGE
@click.option(
    "--second-judge",
    type=FOLDER,
    help="Another judge's word beside the first one's.  [default: judge B of the package]",
)
@click.option("--out", type=FOLDER, required=True, help="Folder for composition.md, .json and .webp, and the pictures.")
@click.option(
    "--prompts", "which", type=click.Choice(["dev", "report"]), default="report", show_default=True,
    help="The 200 prompts to tune on, or the 600 others.",
)  # fmt: skip
@click.option("--languages", default="en", show_default=True, help="Languages of the grammar, such as en,ru,de.")
@click.option("-n", "n", type=click.IntRange(1, 64), default=1, show_default=True, help="Pictures of each prompt.")
@click.option("--limit", type=click.IntRange(1), help="At most so many prompts, of every task alike.")
@click.option(
    "--reworded",
    is_flag=True,
    help='Ask in other words than those of the training\'s grammar: "cat beside dog" for "a cat next to a dog".',
)
@_drawing_options
@_model_options
def teacup(
    judge: Path | None,
    second_judge: Path | None,
    out: Path,
    which: Any,
    languages: str,
    n: int,
    limit: int | None,
    reworded: bool,
    **given: Any,
) -> None:
    """Draw composed prompts and let a trained judge say how many are right: one object to attributes and relations.

    Pictures stay in OUT/pictures, and the same call goes on where it was stopped.
    """
    from chashka.evaluation.cached import DrawnPictures
    from chashka.evaluation.composition import check_locales, composition_report
    from chashka.evaluation.composition_pages import SHEET, write_composition
    from chashka.evaluation.composition_sheet import write_composition_sheet
    from chashka.evaluation.scene_prompts import scene_prompts

    locales = check_locales(languages)
    first, second = _judge(judge, "judge_a"), _judge(second_judge, "judge_b")
    bundle, fields = _bundle(given)
    drawn = DrawnPictures(bundle, out / "pictures", **fields)
    with _bar(len(scene_prompts(which, limit)) * len(locales) * n) as advance:
        report = composition_report(
            drawn,
            first,
            second=second,
            which=which,
            locales=locales,
            n=n,
            limit=limit,
            reworded=reworded,
            on_picture=advance,
        )
    click.echo(str(write_composition(report, out)))
    write_composition_sheet(drawn, report.outcomes, n, out / SHEET)
    for table in report.tables:
        tasks = ", ".join(f"{task} {share.share:.1%}" for task, share in table.tasks.items())
        click.echo(f"{table.locale}: {table.overall} ({tasks})")


@click.command()
@click.option("--name", required=True, help="What the version is called, such as 0.1.0 or twelfth.")
@click.option("--out", type=FOLDER, required=True, help="Folder for NAME.webp, versions.md and versions.json.")
@_model_options
def version(name: str, out: Path, **given: Any) -> None:
    """Draw six things in six languages, unpicked, and put them beside what earlier versions in OUT drew."""
    from chashka.evaluation.versions import PAGE, add_version, fixed_prompts

    bundle, _ = _bundle(given)
    with _bar(len(fixed_prompts())) as advance:
        versions = add_version(bundle, name, out, on_picture=advance)
    click.echo(f"{out / PAGE}: {', '.join(known.name for known in versions)}")


@click.command()
@SHARDS
@JUDGE
@TOWER
@click.option("--out", type=FOLDER, required=True, help="Folder for distribution.json and the pictures.")
@click.option("--limit", type=click.IntRange(4), help="At most so many held-out pictures, spread evenly.")
@_drawing_options
@_model_options
def distribution(
    shards: Path, judge: Path | None, tower: Path | None, out: Path, limit: int | None, **given: Any
) -> None:
    """FID and KID between held-out pictures and what is drawn by their names; with a picture tower the CLIP score too."""
    from chashka.evaluation.cached import DrawnPictures
    from chashka.evaluation.distribution import EncoderFeatures, distribution_report
    from chashka.evaluation.drawing import left_out
    from chashka.evaluation.gallery import galleries, titles

    bundle, fields = _bundle(given)
    training, held_out = galleries(shards, left_out(bundle))
    held_out = held_out if limit is None else held_out.spread(limit)
    names = titles(shards, held_out)
    opened = _tower(tower, bundle)
    spaces = [EncoderFeatures(bundle), *_spaces(_judge(judge), opened)]
    drawn = DrawnPictures(bundle, out / "pictures", **fields)
    with _bar(len(names)) as advance:
        report = distribution_report(drawn, training, held_out, names, spaces, tower=opened, on_picture=advance)
    _write(report, out / "distribution.json")
    for what in ("drawn", "training"):
        for found in getattr(report, what):
            click.echo(
                f"{what}, by {found.features}: FID {found.fid:.2f}, KID {found.kid:.2f} ± {found.kid_error:.2f} (x 1000), "
                f"{found.pictures} pictures against {report.held_out} held-out ones"
            )
    if report.clip_score is not None:
        click.echo(f"CLIP score: {report.clip_score:.4f}, with other texts {report.clip_others:.4f}")


@click.command()
@SHARDS
@JUDGE
@TOWER
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for memory.png, memory.md, memory.json and the pictures."
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="So many training pictures' names are drawn.",
)
@_drawing_options
@_model_options
def memory(shards: Path, judge: Path | None, tower: Path | None, out: Path, samples: int, **given: Any) -> None:
    """Whether the model repeats training pictures: the nearest one to each drawing, and the ten closest pairs on a sheet."""
    from chashka.evaluation.cached import DrawnPictures
    from chashka.evaluation.drawing import left_out
    from chashka.evaluation.gallery import galleries, titles
    from chashka.evaluation.memory import memory_report

    bundle, fields = _bundle(given)
    training, held_out = galleries(shards, left_out(bundle))
    asked = training.spread(samples)
    names = titles(shards, asked)
    spaces = _spaces(_judge(judge), _tower(tower, bundle))
    drawn = DrawnPictures(bundle, out / "pictures", **fields)
    with _bar(len(names)) as advance:
        report = memory_report(drawn, training, held_out, names, spaces, out, on_picture=advance)
    click.echo(str(out / "memory.png"))
    for found in report.spaces:
        click.echo(
            f"by {found.space}: {found.drawn.copied:.1%} of {found.drawn.pictures} drawings stand out (ratio below 1/3), "
            f"{found.held_out.copied:.1%} of held-out pictures: excess {found.excess:+.1%}"
        )


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for languages.svg, languages.md and languages.json.")
@click.option("--languages", "chosen", help="Some of the sixteen languages only, such as ru,de.")
@click.option(
    "--scenes",
    multiple=True,
    type=FILE,
    help="The scenes.safetensors that the model was trained with: figures of what it does not say besides; repeatable.",
)
@_model_options
def languages(out: Path, chosen: str | None, scenes: tuple[Path, ...], **given: Any) -> None:
    """How often a sentence's English twin is the nearest of 200, in sixteen languages, by the text encoder alone."""
    from chashka.evaluation.languages import languages_report, write_languages
    from chashka.evaluation.seen import SeenScenes

    seen = SeenScenes(scenes) if scenes else None
    bundle, _ = _bundle(given)
    report = languages_report(bundle, chosen.split(",") if chosen else None, seen)
    click.echo(str(write_languages(report, out)))
    for row in report.rows:
        click.echo(f"{row.locale}: {row.found} (without spaces {row.unspaced or 'not asked'})")


@click.command()
@SHARDS
@click.option(
    "--prompts", "which", type=click.Choice(["dev", "report"]), default="dev", show_default=True,
    help="Those to tune on, or the others.",
)  # fmt: skip
@click.option("--language", default="en", show_default=True, help="A language of the grammar.")
@click.option("-n", "n", type=click.IntRange(1, 64), default=2, show_default=True, help="Scenes of each prompt.")
@click.option("--out", type=FILE, help="Also write the report as JSON into this file.")
@_model_options
def hearing(shards: Path, which: Any, language: str, n: int, out: Path | None, **given: Any) -> None:
    """How much the model hears of who is where: its error when the two things of a prompt are exchanged. Needs torch."""
    from importlib.util import find_spec

    from chashka.data.composed_words import COLOURS
    from chashka.errors import InputError, MissingExtraError

    if find_spec("torch") is None:
        raise MissingExtraError("train", "chashka evaluate hearing")
    if language not in COLOURS:
        raise InputError(f"language: {language[:20]!r} is not among the grammar's; use one of {', '.join(COLOURS)}")
    from chashka.training import hearing as measure

    bundle, _ = _bundle(given)
    with _bar(measure.count(which) * n) as advance:
        report = measure.hearing(bundle, shards, which, language, n, advance)
    _write(report, out)
    for level in report.levels:
        click.echo(
            f"t = {level.t}: exchanged it costs {level.heard:.1%} of what silence costs; the right text is preferred in "
            f"{level.preferred} of {report.scenes} scenes"
        )


def _tower(file: Path | None, bundle: Bundle) -> PictureTower | None:
    """The one in a file, the model's own, or none where it has none."""
    from chashka.evaluation.tower import TrainedTower

    return bundle.picture if file is None else TrainedTower(file)


def _judge(folder: Path | None, name: str = "judge_a") -> TrainedDetector:
    """The judge in a folder, or of the package; in float32, so that its word is the same on every machine."""
    from chashka.engines import open_engine
    from chashka.evaluation.detector import JUDGES, TrainedDetector

    return TrainedDetector(folder or JUDGES[name], open_engine(precision="f32", cache_dir=cache_dir()))


def _spaces(judge: TrainedDetector, tower: PictureTower | None) -> list[Features]:
    from chashka.evaluation.distribution import TowerFeatures

    return [judge, *([] if tower is None else [TowerFeatures(tower)])]


COMMANDS = (teacup, distribution, memory, languages, version, hearing)
