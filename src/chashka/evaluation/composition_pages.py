"""The composition test on paper: its report as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from chashka.errors import FileError
from chashka.evaluation.composition import CompositionReport, Table, by_second, mean_of
from chashka.evaluation.detector import About
from chashka.evaluation.retrieval import Share
from chashka.evaluation.scene_prompts import TASKS

OUTCOME = ("prompt", "task", "locale", "picture", "found", "coloured", "placed", "second")
SHEET = "composition.webp"
SEEN = "The model's recipe left the judge's drawings out: it never saw them."
REWORDED = " in other words than the grammar's own"
NOT_LEFT_OUT = (
    "**The model was trained on the drawings that the judge learnt from too** (its recipe leaves none of them out), so that "
    "repeated drawings score: read these figures as an upper bound."
)


def write_composition(report: CompositionReport, out: Path) -> Path:
    """Write composition.json and composition.md into ``out``; the page's path. Raises FileError."""
    page = out / "composition.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "composition.json").write_text(as_json(report), encoding="utf-8")
        page.write_text(as_markdown(report), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the report into {str(out)!r}: {error.strerror or error}") from error
    return page


def as_json(report: CompositionReport) -> str:
    """The report; its outcomes as lines of a table, without the texts, which the prompts' numbers tell."""
    said = asdict(report)
    said["outcomes"] = {"columns": OUTCOME, "rows": "@"}
    rows = [json.dumps([getattr(o, name) for name in OUTCOME]) for o in report.outcomes]
    text = json.dumps(said, ensure_ascii=False, indent=1) + "\n"
    return text.replace('"@"', "[\n" + ",\n".join(rows) + "\n]")


def as_markdown(report: CompositionReport) -> str:
    """The judge's own accuracy first, then one row for each language."""
    drawn_with = ", ".join(f"{name} {value}" for name, value in report.settings.items() if value != "")
    lines = [
        f"# Composition test of {report.model}",
        "",
        f"GenEval-style, emoji domain: its own prompts and its own judge, not comparable with GenEval's figures. {report.count} "
        f"{'report' if report.prompts == 'report' else 'tuning'} prompts{REWORDED if report.reworded else ''}, {report.pictures} "
        f"pictures, drawn by chashka "
        f"{report.version} ({report.engine}): {drawn_with}. ± is one standard error over prompts.",
        "",
        *_judge("Judge", report.judge),
        *(_judge("Second judge", report.second_judge) if report.second_judge else []),
        SEEN if report.judge_unseen else NOT_LEFT_OUT,
        "",
        f"| language | overall | {' | '.join(TASKS)} |",
        "|" + "---|" * (len(TASKS) + 2),
    ]
    lines += _perfect(report.judge)
    lines += [_row(table.locale, table.overall, table.tasks) for table in report.tables]
    if report.second_judge is not None:
        lines += ["", f"By the second judge, `{report.second_judge.name}`:", ""]
        lines += [f"| language | overall | {' | '.join(TASKS)} |", "|" + "---|" * (len(TASKS) + 2)]
        lines += _perfect(report.second_judge)
        for table in report.tables:
            tasks = by_second([outcome for outcome in report.outcomes if outcome.locale == table.locale])
            lines.append(_row(table.locale, mean_of(list(tasks.values())), tasks))
    head = ["language", "seen triples", "unseen triples", "things kept for compositions", "without spaces, retrieved"]
    head += ["second judge"] * (report.second_judge is not None)
    lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_apart(table, report.second_judge is not None))} |" for table in report.tables]
    lines += ["", f"![the first prompts of every task, in {report.tables[0].locale}]({SHEET})", ""]
    lines += [
        "Green frames: the judge found all that was asked for. Nothing is picked: the first prompts of every task."
    ]
    lines += ["", "Weights (sha256):", "", *(f"- `{name}` `{digest}`" for name, digest in report.weights.items())]
    return "\n".join(lines if report.weights else lines[:-3]) + "\n"


def _row(locale: str, overall: Share, tasks: Mapping[str, Share]) -> str:
    return f"| {locale} | **{overall}** | {' | '.join(_cell(tasks.get(task)) for task in TASKS)} |"


def _apart(table: Table, second: bool) -> list[str]:
    shares = [table.triples.get("seen"), table.triples.get("unseen"), table.composed, table.unspaced]
    return [table.locale, *map(_cell, [*shares, table.second] if second else shares)]


def _perfect(judge: About) -> list[str]:
    """What the judge itself gets right of the same prompts, where it says so."""
    rows = []
    for name, shares in (("perfect pictures", judge.perfect), ("perfect, of another prompt", judge.other)):
        if shares:
            cells = [f"{shares[task]:.1%}" if task in shares else "" for task in TASKS]
            rows.append(f"| *{name}* | *{sum(shares.values()) / len(shares):.1%}* | {' | '.join(cells)} |")
    return rows


def _cell(share: Share | None) -> str:
    return "" if share is None else str(share)


def _judge(name: str, about: About) -> list[str]:
    first = (
        " What it says of perfect pictures of the same prompts, made of such drawings, stands first in the table. That is how "
        "strict it is, and no bound: a model that draws plainly may be recognised more often than these vendors' drawings."
    )
    return [
        f"{name}: `{about.name}`, trained on drawings of {', '.join(about.sources)}. At the end of its training it found "
        f"{about.recall:.1%} of the things in {about.tested} scenes of other sources' drawings (precision "
        f"{about.precision:.1%}).{first if name == 'Judge' and about.perfect else ''}",
        "",
    ]
