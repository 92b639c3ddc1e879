"""The registry of weights: metadata are the source, what people knew is kept, replaced files are not forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import sha256, write
from chashka.errors import FileError
from chashka.evaluation.datasheet import datasheet
from chashka.evaluation.registry import Entry, Registry, entry_of, faults

RECIPE = {"name": "unet", "steps": 5}


def weights(root: Path, value: float = 1.0, **metadata: str) -> Path:
    path = root / "model" / "unet.safetensors"
    write(path, {"w": np.full(3, value, np.float32)}, {"licence": "MIT", "recipe": json.dumps(RECIPE)} | metadata)
    return path


def recipes(root: Path) -> list[Path]:
    for name, content in (("other", {}), ("mine", RECIPE)):
        (root / "recipes").mkdir(exist_ok=True)
        (root / "recipes" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "logs").mkdir(exist_ok=True)
    (root / "logs" / "mine.jsonl").write_text("{}\n", encoding="utf-8")
    return sorted((root / "recipes").glob("*.json"))


def entry(root: Path, value: float = 1.0, **metadata: str) -> Entry:
    return entry_of(weights(root, value, **metadata), "m", root, recipes(root))


def test_metadata_are_the_source(tmp_path: Path) -> None:
    told = {"steps": "7", "hours": "1.5", "machine": "a machine", "data": "d", "revision": "r", "precision": "int8"}
    found = entry(tmp_path, parents='["p"]', **told)
    assert (found.file, found.component, found.licence) == ("model/unet.safetensors", "unet", "MIT")
    assert (found.recipe, found.log) == ("recipes/mine.json", "logs/mine.jsonl")
    assert (found.steps, found.hours, found.parents, found.precision) == (7, 1.5, ["p"], "int8")
    assert (found.machine, found.data, found.revision, found.note) == ("a machine", "d", "r", None)
    assert found.sha256 == sha256(tmp_path / found.file)


def test_tables_and_frozen_weights_are_entered(tmp_path: Path) -> None:
    found = entry(tmp_path, captions="c", scenes="s", frozen='{"clip": "k"}')
    assert (found.captions, found.scenes, found.frozen) == ("c", "s", {"clip": "k"})
    Registry((found,)).write(tmp_path / "r.json")
    assert Registry.read(tmp_path / "r.json").weights == (found,)


def test_entries_from_before_a_field_was_recorded_are_read(tmp_path: Path) -> None:
    Registry((entry(tmp_path),)).write(tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    for name in ("captions", "scenes", "frozen"):
        assert stored["weights"][0].pop(name) is None
    (tmp_path / "r.json").write_text(json.dumps(stored), encoding="utf-8")
    assert Registry.read(tmp_path / "r.json").weights == (entry(tmp_path),)


def test_what_the_file_does_not_say_is_null(tmp_path: Path) -> None:
    found = entry(tmp_path, steps="0")
    assert (found.steps, found.hours, found.parents, found.data) == (None, None, None, None)


def test_what_people_wrote_stays_until_the_file_changes(tmp_path: Path) -> None:
    told = replace(entry(tmp_path), note="made by hand", hours=2.0)
    path = tmp_path / "registry.json"
    Registry((told,)).write(path)
    same = Registry.read(path).joined([entry(tmp_path)])
    assert (same.weights[0].note, same.weights[0].hours, same.earlier) == ("made by hand", 2.0, ())
    changed = same.joined([entry(tmp_path, 2.0)])
    assert changed.weights[0].note is None and changed.earlier == (told,)
    assert changed.of(told.sha256) == told  # parents can be looked up
    back = changed.joined([entry(tmp_path, 1.0)])
    assert back.weights == (told,) and [e.sha256 for e in back.earlier] == [changed.weights[0].sha256]


def test_faults_are_named(tmp_path: Path) -> None:
    good = Registry((entry(tmp_path),))
    path = tmp_path / "model" / "unet.safetensors"
    assert faults(good, tmp_path, [path]) == []
    assert faults(Registry(), tmp_path, [path]) == ["model/unet.safetensors has no entry"]
    weights(tmp_path, 3.0)
    assert "is another file than its entry says" in faults(good, tmp_path, [path])[0]
    (tmp_path / "logs" / "mine.jsonl").unlink()
    path.unlink()
    assert faults(good, tmp_path, []) == [
        "unet: model/unet.safetensors does not exist",
        "unet: logs/mine.jsonl does not exist",
    ]


@pytest.mark.parametrize("text", ["{}", "no json", '{"format": 2, "weights": [], "earlier": []}'])
def test_a_foreign_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match="not a readable registry"):
        Registry.read(tmp_path / "r.json")


def test_files_elsewhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="give --root"):
        entry_of(weights(tmp_path), "m", tmp_path / "other", [])


def test_weights_are_followed_to_where_they_began(tmp_path: Path) -> None:
    """Of the same component, nearest first; what nobody entered ends the line, and a circle is walked once."""
    first = entry(tmp_path)
    second = replace(first, file="x", sha256="2", data="d", parents=[first.sha256, "unknown"])
    third = replace(first, file="y", sha256="3", data="d", parents=["2"])
    registry = Registry((third,), (replace(first, parents=["3"]), second))
    assert [e.sha256 for e in registry.ancestors(third)] == ["2", first.sha256, "3"]
    assert registry.ancestors(replace(first, parents=None)) == []


def test_the_datasheet_tells_whose_weights_came_from_elsewhere(project: Path, tmp_path: Path) -> None:
    pictures = project / "docs" / "models" / "pictures.jsonl.gz"
    old = replace(entry(tmp_path), note="Older pictures.")
    new = replace(old, file="x", sha256="2", data=sha256(pictures), parents=[old.sha256], note=None)
    sheet = datasheet(pictures, "pictures", Registry((new,), (old,)))
    assert "- `unet`: began with other weights (pictures not recorded). Older pictures." in sheet
    other = replace(new, parents=[replace(old, component="decoder").sha256])
    assert "another history" not in datasheet(
        pictures, "pictures", Registry((other,), (replace(old, component="decoder"),))
    )


def test_the_datasheet_names_the_dictionary_of_weights_that_read_it(project: Path, tmp_path: Path) -> None:
    """Synonyms are in every table of captions whose sha256 the registry knows; older weights read none."""
    pictures = project / "docs" / "models" / "pictures.jsonl.gz"
    old = entry(tmp_path)
    assert "WordNet" not in datasheet(pictures, "pictures", Registry((replace(old, captions=None),), ()))
    assert "WordNet" in datasheet(pictures, "pictures", Registry((replace(old, captions="c"),), ()))
