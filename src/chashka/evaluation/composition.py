"""The composition test: how often a model draws what the grammar's prompts ask for, GenEval-style, by a trained judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import chashka
from chashka.data.augment import without_spaces
from chashka.errors import InputError
from chashka.evaluation import scene_checks
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.detector import About, Detector
from chashka.evaluation.drawing import Float, left_out
from chashka.evaluation.retrieval import Share, pooled, retrieved, share
from chashka.evaluation.scene_checks import Asked, Checked
from chashka.evaluation.scene_prompts import TASKS, ScenePrompt, Which, scene_prompts
from chashka.families import Bundle

UNSPACED = 200
SPACELESS = ("zh", "ja")
"""Languages that are written without spaces anyway."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One picture: what the judge (and the second one) made of it. ``prompt`` is the prompt's number and the seed."""

    prompt: int
    task: str
    locale: str
    text: str
    picture: int
    triple: str
    composed: bool
    found: bool
    coloured: bool
    placed: bool
    second: bool | None

    @property
    def correct(self) -> bool:
        return self.found and self.coloured and self.placed


@dataclass(frozen=True, slots=True)
class Table:
    """Shares of correct pictures by task; ``overall`` is the mean of the tasks' means. ``second``: by the second judge."""

    locale: str
    tasks: dict[str, Share]
    overall: Share
    triples: dict[str, Share]
    composed: Share | None
    second: Share | None
    unspaced: Share | None


@dataclass(frozen=True, slots=True)
class CompositionReport:
    """``judge_unseen``: the model's recipe says that it never saw the drawings that the judge learnt from. ``reworded``: the
    prompts were asked in other words than the grammar's own."""

    model: str
    version: str
    engine: str
    weights: dict[str, str]
    settings: dict[str, Any]
    prompts: str
    count: int
    pictures: int
    judge: About
    second_judge: About | None
    judge_unseen: bool
    tables: tuple[Table, ...]
    outcomes: tuple[Outcome, ...]
    reworded: bool = False


def composition_report(
    drawn: DrawnPictures,
    judge: Detector,
    *,
    second: Detector | None = None,
    which: Which = "report",
    locales: Sequence[str] = ("en",),
    n: int = 1,
    limit: int | None = None,
    reworded: bool = False,
    on_picture: Callable[[], object] | None = None,
) -> CompositionReport:
    """Draw the prompts in every language, ``n`` pictures each, and judge them; reworded: asked in other words.

    Raises InputError for a language without a grammar, and what drawing raises.
    """
    bundle, prompts = drawn.bundle, scene_prompts(which, limit)
    texts = {locale: [prompt.text(locale, reworded) for prompt in prompts] for locale in locales}
    outcomes: list[Outcome] = []
    for locale in locales:
        for prompt, text in zip(prompts, texts[locale], strict=True):
            pixels = drawn(Order(text, prompt.number, n), on_picture)
            first = judged(judge, prompt.asked, pixels)
            other = [None] * n if second is None else [c.correct for c in judged(second, prompt.asked, pixels)]
            for i, (checked, also) in enumerate(zip(first, other, strict=True)):
                outcomes.append(_outcome(prompt, locale, text, i, checked, also))
    tables = []
    for locale in locales:
        rows = [o for o in outcomes if o.locale == locale]
        tables.append(table(locale, rows, unspaced(bundle, texts[locale], locale)))
    return CompositionReport(
        bundle.model,
        chashka.__version__,
        bundle.engine,
        drawn.weights,
        drawn.settings(),
        which,
        len(prompts),
        len(outcomes),
        judge.about,
        None if second is None else second.about,
        set(judge.about.sources) <= set(left_out(bundle)),
        tuple(tables),
        tuple(outcomes),
        reworded,
    )


def judged(judge: Detector, asked: Asked, pixels: Float) -> list[Checked]:
    """The judge's word on pictures (B, 4, H, W) of one prompt."""
    about = judge.about
    return [
        scene_checks.judged(asked, m, about.threshold, about.strict, picture)
        for m, picture in zip(judge.look(pixels), pixels, strict=True)
    ]


def table(locale: str, outcomes: Sequence[Outcome], without: Share | None = None) -> Table:
    """The figures of one language. Standard errors are over prompts: pictures of one prompt are no independent trials."""
    tasks = {task: rate([o for o in outcomes if o.task == task]) for task in TASKS}
    known = {task: s for task, s in tasks.items() if s is not None}
    triples = {name: rate([o for o in outcomes if o.triple == name]) for name in ("seen", "unseen")}
    second = by_second(outcomes)
    return Table(
        locale,
        known,
        mean_of(list(known.values())),
        {name: s for name, s in triples.items() if s is not None},
        rate([o for o in outcomes if o.composed]),
        mean_of(list(second.values())) if second else None,
        without,
    )


def rate(outcomes: Sequence[Outcome], good: Callable[[Outcome], bool] = lambda o: o.correct) -> Share | None:
    """The share that is good; None for no pictures."""
    prompts: dict[int, list[bool]] = {}
    for outcome in outcomes:
        prompts.setdefault(outcome.prompt, []).append(good(outcome))
    return share([sum(own) / len(own) for own in prompts.values()]) if prompts else None


def mean_of(shares: Sequence[Share]) -> Share:
    """The mean of independent shares, and its standard error."""
    count = len(shares)
    error = math.sqrt(sum(s.error**2 for s in shares)) / count
    return Share(sum(s.trials for s in shares), sum(s.share for s in shares) / count, error)


def by_second(outcomes: Sequence[Outcome]) -> dict[str, Share]:
    """Task → the share of what the second judge saw that it calls right; empty without one."""
    seen = [o for o in outcomes if o.second is not None]
    shares = {task: rate([o for o in seen if o.task == task], lambda o: bool(o.second)) for task in TASKS}
    return {task: s for task, s in shares.items() if s is not None}


def unspaced(bundle: Bundle, texts: Sequence[str], locale: str) -> Share | None:
    """How often a prompt without spaces is nearest, of all prompts, to itself with spaces, by the pooled text.

    None where the language has no spaces or the model no pooled text.
    """
    if locale in SPACELESS or not hasattr(bundle.text, "pooled"):
        return None
    step = max(len(texts) // UNSPACED, 1)
    return found_joined(bundle, texts, list(range(0, len(texts), step))[:UNSPACED])


def found_joined(bundle: Bundle, texts: Sequence[str], rows: Sequence[int]) -> Share:
    """How often these ``rows`` of ``texts``, without spaces, are nearest, of all texts, to themselves with spaces."""
    queries = pooled(bundle.text, [without_spaces(texts[row]) for row in rows])
    return share([float(hit) for hit in retrieved(queries, pooled(bundle.text, texts), rows)])


def _outcome(prompt: ScenePrompt, locale: str, text: str, i: int, checked: Checked, second: bool | None) -> Outcome:
    return Outcome(
        prompt.number,
        prompt.task,
        locale,
        text,
        i,
        prompt.triple,
        prompt.composed,
        checked.found,
        checked.coloured,
        checked.placed,
        second,
    )


def check_locales(given: str) -> list[str]:
    """'en,ru' → ['en', 'ru']. Raises InputError for a language without a grammar."""
    from chashka.data.words import MAIN_LOCALES

    locales = list(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    wrong = [locale for locale in locales if locale not in MAIN_LOCALES]
    if wrong or not locales:
        raise InputError(f"languages: {', '.join(wrong) or 'none given'}; the grammar knows {', '.join(MAIN_LOCALES)}")
    return locales
