"""Words of CLDR, the composed captions, and the caption table that training reads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chashka.data.captions import KEYWORD, NAME, STYLED, VARIANT, CaptionTable, build_captions
from chashka.data.styles import PLAIN_FRAMES, STYLE_WORDS, STYLED_FRAMES, STYLES
from chashka.data.words import MAIN_LOCALES, Words, base_locale, concept_id, emoji_of
from chashka.errors import FileError, InputError
from chashka.prompts import Vocabulary, normalise

CUP, CAT, CAT_FACE, COOK = "emoji:2615", "emoji:1f408", "emoji:1f431", "emoji:1f468-200d-1f373"


def entry(name: str, *keywords: str) -> dict[str, list[str]]:
    return {"default": list(keywords), "tts": [name]}


ANNOTATIONS: dict[str, dict[str, Any]] = {
    "en": {
        "☕": entry("hot beverage", "coffee", "hot beverage", "tea", "of"),
        "🐈": entry("cat", "pet", "kitty"),
        "🐱": entry("cat face", "cat", "face", "pet"),
        "🐈🏻": entry("pale cat"),
    },
    "en-GB": {"☕": entry("hot drink", "cuppa", "↑↑↑")},
    "es-MX": {"☕": entry("bebida")},
    "ru": {"☕": entry("горячий напиток", "кофе", "чай"), "🐈": entry("кошка", "E13-001")},
    "xx": {"🐈": entry("E13-001")},
    "und": {},
}
DERIVED = {"en": {"👨‍🍳": entry("man cook", "chef"), "👨🏻‍🍳": entry("man cook: light skin tone")}}


def package(path: Path, root: str, content: dict[str, dict[str, Any]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for locale, entries in content.items():
            inner: dict[str, Any] = {"identity": {}} | ({"annotations": entries} if entries else {})
            data = json.dumps({root: inner}, ensure_ascii=False).encode()
            info = tarfile.TarInfo(f"package/{root}/{locale}/annotations.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def words(tmp_path: Path) -> Words:
    return Words.read(
        [
            package(tmp_path / "full.tgz", "annotations", ANNOTATIONS),
            package(tmp_path / "derived.tgz", "annotationsDerived", DERIVED),
        ]
    )


@pytest.fixture(scope="module")
def vocabulary(project: Path) -> Vocabulary:
    return Vocabulary.load(project / "src" / "chashka" / "teacup" / "vocabulary.tsv")


def test_concept_ids() -> None:
    assert concept_id("☕\ufe0f") == concept_id("☕") == CUP
    assert concept_id("👨‍🍳") == COOK
    assert emoji_of(COOK) == "👨‍🍳"


@pytest.mark.parametrize(
    ("locale", "base"),
    [
        ("en-GB", "en"),
        ("es-419", "es"),
        ("zh-Hant-HK", "zh-Hant"),
        ("sr-Cyrl-BA", "sr"),
        ("sr-Latn", "sr-Latn"),
        ("de", "de"),
    ],
)
def test_regions_join_their_language_and_scripts_do_not(locale: str, base: str) -> None:
    assert base_locale(locale) == base


def test_names_come_first_and_regions_add_theirs(words: Words) -> None:
    names = words.names(CUP)
    assert names["en"] == ["hot beverage", "hot drink", "coffee", "tea", "of", "cuppa"]
    assert names["es"] == ["bebida"]
    assert names["ru"] == ["горячий напиток", "кофе", "чай"]


def test_placeholders_and_skin_tones_are_left_out(words: Words) -> None:
    assert words.locales == ["en", "es", "ru"]  # xx has only placeholders, und nothing
    assert words.concepts == sorted([CUP, CAT, CAT_FACE, COOK])
    assert words.names(CAT)["ru"] == ["кошка"]
    assert words.names("emoji:1") == {}


def test_entries_are_normalised_and_sorted(words: Words) -> None:
    assert words.entries("ru") == ["горячий напиток", "кофе", "кошка", "чай"]


def test_broken_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.tgz"):
        Words.read([tmp_path / "none.tgz"])
    (tmp_path / "text.tgz").write_text("not a package")
    with pytest.raises(FileError, match=r"text\.tgz"):
        Words.read([tmp_path / "text.tgz"])
    with pytest.raises(FileError, match="no annotations inside"):
        Words.read([package(tmp_path / "empty.tgz", "annotations", {})])


def test_style_words_fit_their_frames() -> None:
    assert set(MAIN_LOCALES) <= set(STYLE_WORDS) and len(STYLE_WORDS) >= 16
    for locale, table in STYLE_WORDS.items():
        assert tuple(table) == STYLES, locale
        assert all(normalise(word) for said in table.values() for word in said), locale
    assert set(PLAIN_FRAMES) == set(STYLE_WORDS)
    for frame in (f for frames in PLAIN_FRAMES.values() for f in frames):
        assert frame.count("{name}") == 1 and "{style}" not in frame
    assert all(f.count("{name}") == f.count("{style}") == 1 for f in STYLED_FRAMES)


def texts(table: CaptionTable, vocabulary: Vocabulary, locale: str, kind: int, concept: str) -> list[str]:
    wanted = (table.locale == table.locales.index(locale)) & (table.kind == kind)
    wanted &= table.concept == table.concepts.index(concept)
    return [vocabulary.decode(table.row(int(row))) for row in np.flatnonzero(wanted)]


def test_caption_rows(words: Words, vocabulary: Vocabulary) -> None:
    concepts = [CAT_FACE, CAT, CUP, "stamp:kangaroo"]
    extra = {"stamp:kangaroo": {"en": ["red kangaroo"]}, CAT: {"ru": ["киса"]}}
    table = build_captions(words, vocabulary, concepts, [*STYLES, "photo"], 0, extra)
    assert texts(table, vocabulary, "en", NAME, CAT) == ["cat"]
    assert texts(table, vocabulary, "en", NAME, "stamp:kangaroo") == ["redkangaroo"]
    assert texts(table, vocabulary, "ru", KEYWORD, CAT) == ["киса"]
    # "cat" is the other cat's name; "of" is too short; regional names are keywords.
    assert texts(table, vocabulary, "en", KEYWORD, CAT_FACE) == ["face", "pet"]
    assert set(texts(table, vocabulary, "en", KEYWORD, CUP)) == {"hotdrink", "coffee", "tea", "cuppa"}
    assert texts(table, vocabulary, "und", KEYWORD, CUP) == ["☕"]
    assert any(
        "рисунок:" in t or "картинка:" in t or "нарисуй:" in t for t in texts(table, vocabulary, "ru", VARIANT, CAT)
    )
    styled = texts(table, vocabulary, "en", STYLED, CAT)
    assert len(styled) == len(STYLES)  # "photo" has no words
    assert set(table.style[table.kind == STYLED]) == set(range(len(STYLES)))
    assert (table.style[table.kind != STYLED] == -1).all()
    assert table.offsets[-1] == len(table.ids)
    assert (np.diff(table.offsets) >= 3).all() and (np.diff(table.offsets) <= 32).all()


def test_language_weights(words: Words, vocabulary: Vocabulary) -> None:
    table = build_captions(words, vocabulary, [CUP, CAT], list(STYLES), 0)
    english, russian = (table.locale == table.locales.index(code) for code in ("en", "ru"))
    for locale in (english, russian):
        for kind in (NAME, VARIANT, STYLED):
            rows = locale & (table.kind == kind) & (table.concept == 0)
            assert table.language_weight[rows].sum() == pytest.approx(4.0)


def test_the_table_is_written_the_same_twice(tmp_path: Path, words: Words, vocabulary: Vocabulary) -> None:
    tables = [build_captions(words, vocabulary, [CUP, CAT], list(STYLES), seed) for seed in (3, 3, 4)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for table, path in zip(tables, paths, strict=True):
        table.write(path)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    again = CaptionTable.read(paths[0])
    assert again.concepts == [CUP, CAT] and again.locales == tables[0].locales and again.styles == list(STYLES)
    assert (again.ids == tables[0].ids).all() and (again.language_weight == tables[0].language_weight).all()
    assert again.offsets.dtype == np.int64 and again.kind.dtype == np.int8
    assert not list(tmp_path.glob("*.part"))


def test_caption_errors(tmp_path: Path, words: Words, vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="repeated"):
        build_captions(words, vocabulary, [CUP, CUP], [], 0)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileError, match=r"no\.safetensors"):
        CaptionTable.read(tmp_path / "no.safetensors")
