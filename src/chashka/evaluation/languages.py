"""Whether a sentence means the same in every language: its English twin among 200, by the text encoder's pooled vectors.

The sentences are ``sentences.tsv``: a thing, a colour, a count, a relation and another thing in English words, then the sentence
written out in the languages that the grammar does not speak. The grammar says the rest, and the English twins.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

import chashka
from chashka.data.augment import without_spaces
from chashka.data.composed_words import COLOURS, NOUNS
from chashka.data.grammar import Thing
from chashka.data.scenes import LEFT, ON, RIGHT, UNDER, Scene, say
from chashka.errors import FileError, InputError
from chashka.evaluation.composition import SPACELESS, UNSPACED, found_joined
from chashka.evaluation.drawing import Float, weights_of
from chashka.evaluation.retrieval import Share, pooled, retrieved, share
from chashka.evaluation.scene_prompts import scene_prompts
from chashka.evaluation.seen import SeenScenes
from chashka.families import Bundle

PAPER = ("ru", "en", "de", "fr", "mn", "fa")
"""The six languages of the paper."""
SPOKEN = (*PAPER, "zh", "es", "uk")
"""Those of the sixteen that the grammar speaks; the file has the others."""
WRITTEN = ("it", "pt", "pl", "tr", "ar", "ja", "hi")
LANGUAGES = (*PAPER, "zh", "es", "it", "pt", "uk", "pl", "tr", "ar", "ja", "hi")
_RELATIONS = {"on": ON, "under": UNDER, "left": LEFT, "right": RIGHT, "": -1}


@dataclass(frozen=True, slots=True)
class Row:
    """One language: ``found`` is how often the nearest of the English sentences is the right one; ``unspaced`` the same of
    the sentences without spaces (None where they have none anyway). ``found_unseen``, ``unspaced_unseen``: over those sentences
    alone whose scene no training showed. ``prompts_unseen``: how often such a prompt of the composition test, without spaces, is
    nearest of all its prompts to itself with spaces. None where nobody said what was shown."""

    locale: str
    found: Share
    unspaced: Share | None
    found_unseen: Share | None = None
    unspaced_unseen: Share | None = None
    prompts_unseen: Share | None = None


@dataclass(frozen=True, slots=True)
class LanguagesReport:
    """What was found with which text encoder, over ``sentences`` sentences, ``unseen`` of which no scene of ``tables`` says.

    tables: sha256 of the tables of scenes that the training used, by name.
    """

    model: str
    version: str
    weights: dict[str, str]
    sentences: int
    rows: tuple[Row, ...]
    unseen: int | None = None
    tables: dict[str, str] | None = None


@cache
def _table() -> list[dict[str, str]]:
    lines = Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines()
    head, *rows = [line.split("\t") for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def scene_of(row: dict[str, str]) -> Scene:
    """A line of the file as a scene of the grammar."""
    nouns = [forms[0] for forms in NOUNS["en"]]
    colour = COLOURS["en"].index(row["colour"]) if row["colour"] else -1
    things = [Thing(nouns.index(row["thing"]), colour, count=int(row["count"]))]
    things += [Thing(nouns.index(row["other"]))] if row["other"] else []
    return Scene("pair" if row["other"] else "single", tuple(things), _RELATIONS[row["relation"]])


def sentences(locale: str) -> list[str]:
    """The 200 sentences in a language. Raises InputError for one that there are none in."""
    if locale in WRITTEN:
        return [row[locale] for row in _table()]
    if locale not in SPOKEN:
        raise InputError(f"languages: there are no sentences in {locale!r}; there are in {', '.join(LANGUAGES)}")
    return [say(scene_of(row), locale, (), random.Random(0)) for row in _table()]


def languages_report(
    bundle: Bundle, locales: Sequence[str] | None = None, seen: SeenScenes | None = None
) -> LanguagesReport:
    """Retrieval@1 of English twins in ``locales`` (all sixteen for None). Raises InputError.

    seen: what the training showed, for the figures of sentences that it did not.
    """
    texts = {locale: sentences(locale) for locale in (LANGUAGES if locales is None else locales)}
    keys = pooled(bundle.text, sentences("en"))
    new = None if seen is None else seen.unseen([scene_of(row) for row in _table()])
    rows = []
    for locale, said in texts.items():
        joined = None if locale in SPACELESS else [without_spaces(text) for text in said]
        found = _hits(bundle, said, keys)
        unspaced = None if joined is None else _hits(bundle, joined, keys)
        rows.append(
            Row(
                locale,
                share(found),
                None if unspaced is None else share(unspaced),
                None if new is None else _of(found, new),
                None if new is None or unspaced is None else _of(unspaced, new),
                None if seen is None or unspaced is None or locale in WRITTEN else unseen_prompts(bundle, locale, seen),
            )
        )
    told = (None, None) if seen is None or new is None else (len(new), seen.tables)
    return LanguagesReport(bundle.model, chashka.__version__, weights_of(bundle), len(keys), tuple(rows), *told)


def unseen_prompts(bundle: Bundle, locale: str, seen: SeenScenes) -> Share | None:
    """How often a prompt of the composition test, without spaces, is the nearest of all to itself with spaces.

    Of those that no training said, at most 200, evenly spread. None where all were said.
    """
    prompts = scene_prompts("report")
    texts = [prompt.text(locale) for prompt in prompts]
    new = seen.unseen([prompt.scene for prompt in prompts])
    rows = [new[i] for i in np.linspace(0, len(new) - 1, min(len(new), UNSPACED)).astype(int)]
    return found_joined(bundle, texts, rows) if rows else None


def _hits(bundle: Bundle, said: Sequence[str], keys: Float) -> list[float]:
    return [float(hit) for hit in retrieved(pooled(bundle.text, said), keys, range(len(keys)))]


def _of(hits: Sequence[float], rows: Sequence[int]) -> Share | None:
    return share([hits[row] for row in rows]) if rows else None


def write_languages(report: LanguagesReport, out: Path) -> Path:
    """Write languages.json, languages.md and languages.svg into ``out``; the page's path. Raises FileError."""
    page = out / "languages.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n"
        (out / "languages.json").write_text(text, encoding="utf-8")
        (out / "languages.svg").write_text(as_svg(report), encoding="utf-8")
        page.write_text(as_markdown(report), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the report into {str(out)!r}: {error.strerror or error}") from error
    return page


def as_markdown(report: LanguagesReport) -> str:
    """The table and the plot; the paper's languages first."""
    lines = [
        f"# Languages of {report.model}",
        "",
        f"How often a sentence's English twin is the nearest of {report.sentences} (cosine of the pooled texts), chashka "
        f"{report.version}. ± is one standard error.",
        "",
        "![the same as bars](languages.svg)",
        "",
        "| language | found | without spaces |",
        "|---|---|---|",
        *(f"| {row.locale} | {row.found} | {row.unspaced or ''} |" for row in report.rows),
        *_unseen(report),
    ]
    return "\n".join(lines) + "\n"


def _unseen(report: LanguagesReport) -> list[str]:
    """The figures of what the training did not say, where somebody told what it did."""
    if report.tables is None:
        return []
    tables = ", ".join(f"`{name}` (sha256 `{digest[:16]}…`)" for name, digest in report.tables.items())
    cells = ((row.found_unseen, row.unspaced_unseen, row.prompts_unseen) for row in report.rows)
    return [
        "",
        "## Sentences that no training scene says",
        "",
        f"{report.unseen} of the {report.sentences} sentences are of scenes that no training showed, in any language, by {tables}; "
        "the nearest is looked for among all of them. The last column: prompts of the composition test that are of no "
        "training scene either, without spaces, and how often the nearest of its 600 prompts is the same with spaces.",
        "",
        "| language | found | without spaces | prompts without spaces |",
        "|---|---|---|---|",
        *(
            f"| {row.locale} | {' | '.join(str(cell or '') for cell in three)} |"
            for row, three in zip(report.rows, cells, strict=True)
        ),
    ]


def as_svg(report: LanguagesReport) -> str:
    """Bars of both shares with their standard errors, one group for each language."""
    step, left, height, foot = 44, 48, 220, 30
    width = left + step * len(report.rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + foot + 26}" font-family="sans-serif" '
        'font-size="12">',
        f"<title>Retrieval of English twins, {report.model}</title>",
        f'<rect width="{width}" height="{height + foot + 26}" fill="#fff"/>',
    ]
    for tick in range(0, 101, 20):
        y = 10 + height * (1 - tick / 100)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 10}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick} %</text>')
    for i, row in enumerate(report.rows):
        x = left + step * i
        for place, (value, colour) in enumerate(((row.found, "#2b6cb0"), (row.unspaced, "#d69e2e"))):
            if value is not None:
                parts += _bar(x + 6 + 17 * place, value, colour, height)
        parts.append(f'<text x="{x + 22}" y="{height + 26}" text-anchor="middle">{row.locale}</text>')
    y = height + foot + 14
    for x, colour, name in ((left, "#2b6cb0", "as written"), (left + 110, "#d69e2e", "without spaces")):
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(x: float, value: Share, colour: str, height: int) -> list[str]:
    high, error = height * value.share, height * value.error
    top = 10 + height - high
    return [
        f'<rect x="{x}" y="{top:.1f}" width="15" height="{high:.1f}" fill="{colour}"/>',
        f'<path d="M{x + 7.5} {top - error:.1f}V{top + error:.1f}" stroke="#222"/>',
    ]
