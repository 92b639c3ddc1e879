"""Composed captions are correct in every language that has a grammar."""

from __future__ import annotations

import pytest

from chashka.data.composed_words import AND, COLOURS, EMOJI, GROUNDS, NOUNS, NUMBERS, RELATIONS, SIZES
from chashka.data.grammar import Thing, language
from chashka.data.wordings import WORDINGS
from chashka.data.words import MAIN_LOCALES
from chashka.errors import InputError

pytestmark = pytest.mark.extra

CUP, HOUSE, CAT, BALL, APPLE, SPACE, HEART, TABLE, HAT = 0, 2, 4, 9, 10, 11, 15, 16, 18
COW, PIG, RABBIT, FOX, ELEPHANT, MONKEY = 25, 26, 27, 30, 33, 34
RED, ORANGE, GREEN, BLUE, GREY = 0, 1, 3, 4, 10
INSIDE, ON, UNDER, LEFT, BEHIND, WEARING = 0, 1, 2, 3, 6, 8


def test_every_language_has_every_word() -> None:
    assert len(EMOJI) == len(set(EMOJI)) == 99
    for locale in MAIN_LOCALES:
        assert len(NOUNS[locale]) == 99, locale
        assert len(COLOURS[locale]) == 11, locale
        assert len(NUMBERS[locale]) == 5, locale
        assert len(RELATIONS[locale]) == 9, locale
        assert len(GROUNDS[locale]) == 8 and len(SIZES[locale]) == 2 and AND[locale], locale
        assert not any(not part for row in NOUNS[locale] for part in row), locale
        lengths = {len(row) for row in NOUNS[locale]}
        assert lengths == ({3, 4} if locale == "de" else {len(NOUNS[locale][0])}), locale
    assert all(colour.count("|") == 2 for colour in COLOURS["uk"])
    assert all(row[1] in ("m", "f", "n") for locale in ("de", "fr", "es") for row in NOUNS[locale])
    assert all(row[0] in ("m", "f", "n") for row in NOUNS["uk"])


@pytest.mark.parametrize("locale", MAIN_LOCALES)
def test_whatever_is_said_is_whole(locale: str) -> None:
    say = language(locale)
    for noun in range(len(EMOJI)):
        thing, other = Thing(noun, noun % 11, noun % 2), Thing((noun + 7) % len(EMOJI), (noun + 3) % 11, noun % 2)
        texts = [say.relation(index, thing, other) for index in range(9)] + [
            say.on_ground(say.thing(thing), 0, noun % 11)
        ]
        texts += [say.thing(Thing(noun, noun % 11, noun % 2, count)) for count in range(1, 6)]
        for text in texts:
            assert not set("|{}") & set(text) and "  " not in text and text == text.strip(), text
        assert len(set(texts)) == len(texts), locale


@pytest.mark.parametrize(
    ("locale", "index", "a", "b", "expected"),
    [
        ("ru", INSIDE, Thing(SPACE), Thing(CUP), "космос внутри чайной чашки"),
        ("ru", ON, Thing(CAT, GREY), Thing(TABLE), "серая кошка на столе"),
        ("ru", UNDER, Thing(BALL, ORANGE), Thing(HOUSE), "оранжевый мяч под домом"),
        ("ru", LEFT, Thing(HEART), Thing(3), "сердце слева от дерева"),
        ("ru", BEHIND, Thing(FOX, RED, 0), Thing(RABBIT, BLUE, 1), "большая красная лиса за маленьким синим кроликом"),
        ("ru", WEARING, Thing(ELEPHANT), Thing(HAT, GREEN), "слон в зелёной шляпе"),
        ("uk", BEHIND, Thing(FOX, RED, 0), Thing(RABBIT, BLUE, 1), "велика червона лисиця за маленьким синім кроликом"),
        ("uk", INSIDE, Thing(SPACE), Thing(CUP), "космос всередині чашки"),
        ("de", BEHIND, Thing(FOX, RED, 0), Thing(RABBIT, BLUE), "ein großer roter Fuchs hinter einem blauen Kaninchen"),
        ("de", ON, Thing(CAT), Thing(ELEPHANT), "eine Katze auf einem Elefanten"),
        (
            "fr",
            BEHIND,
            Thing(FOX, RED, 0),
            Thing(RABBIT, BLUE, 1),
            "un grand renard rouge derrière un petit lapin bleu",
        ),
        ("es", ON, Thing(CAT, RED), Thing(TABLE, -1, 1), "un gato rojo sobre una mesa pequeña"),
        ("en", WEARING, Thing(ELEPHANT), Thing(HAT, GREEN), "an elephant wearing a green hat"),
        ("zh", WEARING, Thing(ELEPHANT), Thing(HAT, GREEN), "戴着绿色的帽子的大象"),
        ("kk", WEARING, Thing(ELEPHANT), Thing(HAT, GREEN), "жасыл қалпақ киген піл"),
        ("kk", INSIDE, Thing(SPACE), Thing(CUP), "кесенің ішіндегі ғарыш"),
        ("mn", INSIDE, Thing(SPACE), Thing(CUP), "аяганы доторх сансар"),
        ("fa", INSIDE, Thing(SPACE), Thing(CUP), "فضا داخل فنجان"),
    ],
)
def test_relations(locale: str, index: int, a: Thing, b: Thing, expected: str) -> None:
    assert language(locale).relation(index, a, b) == expected


@pytest.mark.parametrize(
    ("locale", "thing", "expected"),
    [
        ("ru", Thing(CUP, count=2), "две чайные чашки"),
        ("ru", Thing(TABLE, count=2), "два стола"),
        ("ru", Thing(APPLE, count=5), "пять яблок"),
        ("ru", Thing(APPLE, GREEN), "зелёное яблоко"),
        ("ru", Thing(PIG, BLUE, 1, 3), "три маленькие синие свиньи"),
        ("uk", Thing(MONKEY, ORANGE, 0, 5), "п'ять великих помаранчевих мавп"),
        ("uk", Thing(PIG, BLUE, 1, 3), "три маленькі сині свині"),
        ("de", Thing(CAT, RED, 0, 3), "drei große rote Katzen"),
        ("fr", Thing(MONKEY, ORANGE, 0, 5), "cinq grands singes orange"),
        ("fr", Thing(COW, 9, -1, 2), "deux vaches blanches"),
        ("es", Thing(PIG, BLUE, -1, 2), "dos cerdos azules"),
        ("es", Thing(PIG, 7, -1, 2), "dos cerdos marrones"),
        ("en", Thing(APPLE, RED, -1, 3), "three red apples"),
        ("zh", Thing(PIG, count=3), "三头猪"),
    ],
)
def test_counts_and_adjectives(locale: str, thing: Thing, expected: str) -> None:
    assert language(locale).thing(thing) == expected


@pytest.mark.parametrize("locale", MAIN_LOCALES)
def test_other_words_are_whole(locale: str) -> None:
    say, rows = language(locale), WORDINGS[locale]
    assert len(rows) == len(RELATIONS[locale]) + 1
    for noun in range(0, len(EMOJI), 3):
        thing, other = Thing(noun, noun % 11, noun % 2), Thing((noun + 7) % len(EMOJI), (noun + 3) % 11, noun % 2)
        own = {say.relation(index, thing, other) for index in range(9)} | {say.together([thing, other])}
        texts = [say.phrased(phrase, thing, other) for row in rows for phrase in row]
        for text in texts:
            assert not set("|{}") & set(text) and "  " not in text and text == text.strip(), text
        # "in" and "with" say both where something is and what is worn: of these the things decide
        assert len(set(texts)) >= len(texts) - 3 and not own & (set(texts) - {say.relation(8, thing, other)}), locale


@pytest.mark.parametrize(
    ("locale", "phrase", "a", "b", "expected"),
    [
        ("en", "{B} with {a} inside", Thing(CAT), Thing(CUP, RED), "a red teacup with a cat inside"),
        ("ru", "{B} перед {Aunder}", Thing(CAT, GREY), Thing(HOUSE), "дом перед серой кошкой"),
        ("ru", "{a} с {under}", Thing(CAT), Thing(ELEPHANT), "кошка со слоном"),
        ("ru", "{a} с {under}", Thing(CAT), Thing(ELEPHANT, RED), "кошка с красным слоном"),
        ("uk", "{a} разом із {under}", Thing(CAT), Thing(TABLE), "кіт разом зі столом"),
        ("de", "{B} vor {Ab}", Thing(CAT, RED), Thing(ELEPHANT), "ein Elefant vor einer roten Katze"),
        ("kk", "{a} мен {B}", Thing(CAT), Thing(ELEPHANT), "мысық мен піл"),
    ],
)
def test_phrases_put_either_thing_into_its_form(locale: str, phrase: str, a: Thing, b: Thing, expected: str) -> None:
    assert language(locale).phrased(phrase, a, b) == expected


def test_several_things_on_a_ground() -> None:
    things = [Thing(CAT), Thing(COW, RED), Thing(APPLE, count=2)]
    assert language("ru").on_ground(language("ru").together(things), 0, BLUE) == (
        "кошка, красная корова и два яблока на синем фоне"
    )
    assert language("de").on_ground(language("de").thing(Thing(CAT)), 0, ORANGE) == (
        "eine Katze auf orangefarbenem Hintergrund"
    )
    assert language("zh").together(things[:2]) == "猫和红色的奶牛"


def test_other_languages_have_no_grammar() -> None:
    with pytest.raises(InputError, match="no grammar of 'sw'"):
        language("sw")
