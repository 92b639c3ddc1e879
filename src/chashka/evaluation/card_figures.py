"""The measured figures of a model's card: read from the reports of ``chashka evaluate`` that lie beside the registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
SOURCES = "docs/models"


def figures(name: str, reports: Path | None, weights: Mapping[str, str]) -> list[str]:
    """Paragraphs. reports: a folder with one of reports for each model, None where there is none.

    weights: sha256 of the model's files by name; a report of other weights says so.
    """
    folder = _folder(name, reports)
    where = f"How they are defined: `{SOURCES}/README.md` in the sources."
    if folder is None:
        return [
            f"The reports are not beside this model; those of released weights are in `{SOURCES}` of the sources. {where}"
        ]
    rows = []
    for file, told in REPORTS.items():
        path = folder / file
        if path.is_file():
            report = json.loads(path.read_text(encoding="utf-8"))
            other = "" if _same(report.get("weights", {}), weights) else " (of other weights than these)"
            rows += [f"- {line}{other}: `{path.name}`" for line in told(report)]
    if not rows:
        return [f"No report of it is in `{folder.name}`. {where}"]
    return [
        "\n".join(rows),
        f"The reports, with everything else that was measured, are in `{SOURCES}/{folder.name}`. {where}",
    ]


def _folder(name: str, reports: Path | None) -> Path | None:
    if reports is None or "/" in name:  # a folder of somebody's own has none there
        return None
    return next((reports / word for word in (name, name.replace("_", "-")) if (reports / word).is_dir()), None)


def _same(measured: Mapping[str, str], weights: Mapping[str, str]) -> bool:
    """Whether every file that was measured is the model's own; those that it shares with another are named by their path."""
    own = {Path(name).name: digest for name, digest in measured.items()}
    return all(weights.get(name) == digest for name, digest in own.items())


def _share(told: Mapping[str, float]) -> str:
    return f"{told['share']:.1%} ± {told['error']:.1%}"


def _recognition(report: Report) -> list[str]:
    drawn, held_out = report["drawn"], report["held_out"]
    return [
        f"recognised by the judge '{report['judge']}': {drawn['top1']:.1%} at once, {drawn['top5']:.1%} among five, of "
        f"{drawn['pictures']} drawings (of held-out pictures {held_out['top1']:.1%}, {held_out['top5']:.1%})"
    ]


def _composition(report: Report) -> list[str]:
    lines = []
    perfect = report["judge"].get("perfect")
    if perfect:
        mean = sum(perfect.values()) / len(perfect)
        lines.append(f"composition, what the judge gets right of perfect pictures: {mean:.1%}")
    for table in report["tables"]:
        tasks = ", ".join(f"{task} {told['share']:.1%}" for task, told in table["tasks"].items())
        lines.append(f"composition, {table['locale']}: {_share(table['overall'])} ({tasks})")
    return lines


def _distribution(report: Report) -> list[str]:
    lines = [
        f"against {report['held_out']} held-out pictures, by {row['features']}: FID {row['fid']:.2f}, "
        f"KID × 1000 {row['kid']:.1f} ± {row['kid_error']:.1f}"
        for row in report["drawn"]
    ]
    if report.get("clip_score") is not None:
        lines.append(
            f"CLIP score {report['clip_score']:.3f} with the own text, {report['clip_others']:.3f} with others"
        )
    return lines


def _autoencoder(report: Report) -> list[str]:
    return [
        f"autoencoder, {report['pictures']} held-out pictures: PSNR {report['psnr']:.1f} dB on white, alpha IoU "
        f"{report['alpha_iou']:.3f}"
    ]


def _languages(report: Report) -> list[str]:
    told = ", ".join(f"{row['locale']} {row['found']['share']:.1%}" for row in report["rows"])
    lines = [f"English twin of a sentence the nearest of {report['sentences']}: {told}"]
    unseen = {row["locale"]: row["found_unseen"] for row in report["rows"] if row.get("found_unseen")}
    if unseen:
        apart = ", ".join(f"{locale} {found['share']:.1%}" for locale, found in unseen.items())
        lines.append(f"the same of the {report['unseen']} that no training scene says: {apart}")
    return lines


def _memory(report: Report) -> list[str]:
    return [
        f"drawings whose nearest training picture stands out, by {row['space']}: {row['drawn']['copied']:.1%} of "
        f"{row['drawn']['pictures']} (of held-out pictures {row['held_out']['copied']:.1%})"
        for row in report["spaces"]
    ]


REPORTS: dict[str, Callable[[Report], list[str]]] = {
    "recognition.json": _recognition,
    "composition/composition.json": _composition,
    "languages.json": _languages,
    "distribution.json": _distribution,
    "memory.json": _memory,
    "autoencoder.json": _autoencoder,
}
"""Report → lines about it, in this order."""
