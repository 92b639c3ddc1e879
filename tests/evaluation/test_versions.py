"""The sheets of versions stand beside each other, and a version drawn again replaces itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from chashka.errors import FileError, InputError
from chashka.evaluation.versions import CELL, LANGUAGES, TEXTS, add_version, fixed_prompts, read_versions
from toy_model import toy_bundle


def test_the_list_is_six_things_in_six_languages() -> None:
    prompts = fixed_prompts()
    assert len(prompts) == 36 and {prompt.language for prompt in prompts} == set(LANGUAGES)
    assert [prompt.seed for prompt in prompts[:7]] == [0] * 6 + [1]
    assert len({prompt.text for prompt in prompts}) == 36
    assert prompts[31].text == "космос внутри чайной чашки" and prompts[31].english == "space inside a teacup"


def test_old_stands_beside_new(tmp_path: Path) -> None:
    drawn: list[None] = []
    add_version(toy_bundle(), "first", tmp_path, on_picture=lambda: drawn.append(None))
    add_version(toy_bundle(), "0.2", tmp_path)
    again = add_version(toy_bundle(), "first", tmp_path)
    assert (
        len(drawn) == 36
        and [version.name for version in again] == ["first", "0.2"]
        and again == read_versions(tmp_path)
    )
    with Image.open(tmp_path / "first.webp") as sheet:
        assert sheet.size == (len(LANGUAGES) * CELL, len(TEXTS) * CELL)
        # a line has one seed, and every text its own colour
        colours = {sheet.convert("RGB").getpixel((x * CELL + CELL // 2, CELL // 2)) for x in range(6)}
        assert len(colours) == 6
    page = (tmp_path / "versions.md").read_text(encoding="utf-8")
    assert page.index("0.2.webp") < page.index("first.webp") and "Columns: en, ru, de, fr, mn, fa" in page
    assert json.loads((tmp_path / "versions.json").read_text(encoding="utf-8"))[0]["settings"]["steps"] == 8


@pytest.mark.parametrize("name", ["", "../up", "Big", "a b", "x" * 41])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        add_version(toy_bundle(), name, tmp_path)


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "versions.json").write_text('[{"name": "a"}]')
    with pytest.raises(FileError, match="table of versions"):
        read_versions(tmp_path)
