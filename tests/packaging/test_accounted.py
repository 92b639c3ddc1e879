"""Everything shipped is accounted for: registry, attribution and ledger agree with the files, and the files fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chashka.evaluation.datasheet import datasheet
from chashka.evaluation.ledger import EMBEDDED, LIMIT, embedded, ledger, read_plans
from chashka.evaluation.registry import Registry, faults

REGISTRY = Path("docs/models/registry.json")
PICTURES = "docs/models/pictures.jsonl.gz"
AGAIN = "weights changed? Run: chashka models register, chashka models datasheet, make ledger (docs/guides/train.md)"


@pytest.fixture(scope="module")
def registry(project: Path) -> Registry:
    return Registry.read(project / REGISTRY)


def test_every_shipped_weight_file_is_in_the_registry(project: Path, registry: Registry) -> None:
    weights = sorted((project / "src").rglob("*.safetensors"))
    assert weights
    assert faults(registry, project, weights) == [], AGAIN
    assert {entry.file for entry in registry.weights} == {path.relative_to(project).as_posix() for path in weights}


def test_what_is_not_known_is_explained(registry: Registry) -> None:
    for entry in registry.weights:
        known = (entry.recipe, entry.log, entry.revision, entry.data, entry.hours, entry.machine, entry.parents)
        assert None not in known or entry.note, entry.file


def test_the_shipped_attribution_is_what_the_manifest_gives(
    project: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    text = (EMBEDDED / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert text == datasheet(Path(PICTURES), PICTURES, registry), AGAIN


def test_what_is_embedded_fits() -> None:
    """Everything inside the package together; the wheel's own size is promised in test_wheel.py."""
    total = sum(embedded().values())
    assert total <= LIMIT, (
        f"{total:,} bytes are embedded, {LIMIT:,} are allowed: store weights as int8, or leave some out"
    )


def test_what_is_planned_fits_beside_it(project: Path) -> None:
    """Expected sizes, not measured ones: a plan that does not fit is to be made smaller before it is begun."""
    here, later = sum(embedded().values()), sum(plan.bytes for plan in read_plans(project / "docs/models/planned.toml"))
    assert here + later <= LIMIT, (
        f"{here:,} bytes are embedded and {later:,} planned: {here + later - LIMIT:,} too many"
    )


def test_the_ledger_is_that_of_these_files(project: Path) -> None:
    page = (project / "docs/models/ledger.md").read_text(encoding="utf-8")
    wheel = re.search(r"^## The wheel\n\n([\d,]+) bytes", page, re.MULTILINE)
    assert wheel is not None
    plans = read_plans(project / "docs/models/planned.toml")
    assert page == ledger(embedded(), plans, int(wheel[1].replace(",", ""))), AGAIN
