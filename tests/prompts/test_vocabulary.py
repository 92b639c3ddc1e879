"""The vocabulary's reader: normal form, cutting, bytes, batches, speed, and the errors of damaged files."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import numpy as np
import pytest

from chashka.errors import FileError, InputError, WeightsError
from chashka.prompts import Vocabulary, normalise
from chashka.prompts.vocabulary import BOS, EOS, FIRST_BYTE, FIRST_PIECE, PAD, UNKNOWN_PENALTY


@pytest.fixture(scope="module")
def vocabulary(project: Path) -> Vocabulary:
    return Vocabulary.load(project / "src" / "chashka" / "teacup" / "vocabulary.tsv")


@pytest.fixture
def small() -> Vocabulary:
    return Vocabulary(["a", "b", "ab", "abc", "c"], [-2.0, -3.0, -4.5, -4.0, -5.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Чёрный\tКОТ \n", "черный кот"),
        ("ﬁg １２", "fig 12"),
        ("☕\ufe0f", "☕"),
        ("a\x00b\x7fc", "a b c"),
        ("co\u00adop\u200b\u2060eration", "cooperation"),
        ("می\u200cخواهم", "می خواهم"),
        ("İstanbul", "istanbul"),
        ("м’яч", "м'яч"),
        ("«чай» — „Tee“", '"чай" - "tee"'),
        ("e\u0308", "ë"),
        ("е\u0308ж", "еж"),
        ("\ud800", "\ufffd"),
        ("", ""),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_normal_form_is_stable() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(chr(rng.choice((rng.randrange(0x3000), rng.randrange(0x20000)))) for _ in range(8))
        once = normalise(text)
        assert normalise(once) == once, ascii(text)


def test_the_best_cut_wins(small: Vocabulary) -> None:
    assert small.encode("abc").ids == [BOS, FIRST_PIECE + 3, EOS]
    assert small.encode("ab").ids == [BOS, FIRST_PIECE + 2, EOS]  # -4.5 beats -2 - 3
    assert small.encode("ab c").ids == [BOS, FIRST_PIECE + 2, FIRST_PIECE + 4, EOS]  # never across a space
    assert small.decode(small.encode("ab c").ids) == "abc"


def test_characters_without_a_piece_are_bytes(small: Vocabulary) -> None:
    ids = small.encode("aжb").ids
    assert ids == [BOS, FIRST_PIECE, FIRST_BYTE + 0xD0, FIRST_BYTE + 0xB6, FIRST_PIECE + 1, EOS]
    assert small.decode(ids) == "aжb"
    assert small.decode(ids[:3]) == "a\ufffd"


def test_the_empty_text_is_bos_eos(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("").ids == vocabulary.encode(" \n").ids == [BOS, EOS]


def test_what_does_not_fit_is_counted(small: Vocabulary) -> None:
    encoded = small.encode("a " * 40)
    assert (len(encoded.ids), encoded.used, encoded.cut) == (32, 30, 10)
    assert encoded.ids[-1] == EOS
    assert small.encode("a b", max_length=2).ids == [BOS, EOS]
    with pytest.raises(InputError, match="max_length is 1"):
        small.encode("a", max_length=1)


def test_batches_are_padded_to_the_longest(small: Vocabulary) -> None:
    ids, mask = small.encode_batch(["a", "", "a b c"])
    assert ids.dtype == np.int64 and mask.dtype == np.float32
    assert ids.shape == mask.shape == (3, 5)
    assert (mask.sum(1) == [3, 2, 5]).all()
    assert (ids[mask == 0] == PAD).all()
    assert small.encode_batch([])[0].shape == (0, 0)


def test_ids_outside_are_refused(small: Vocabulary) -> None:
    with pytest.raises(InputError, match="allowed: 0 to 264"):
        small.decode([FIRST_PIECE + 5])


def test_the_teacup_vocabulary(vocabulary: Vocabulary, project: Path) -> None:
    assert len(vocabulary) == 32_768
    assert max(map(len, vocabulary.pieces)) <= 16
    assert not any(character.isspace() for piece in vocabulary.pieces for character in piece)
    assert all(normalise(piece) == piece for piece in vocabulary.pieces if piece.isalpha() and len(piece) > 1)
    assert (project / "src" / "chashka" / "teacup" / "vocabulary.tsv").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "космос внутри чайной чашки",
        "eine rote Katze unter dem Tisch",
        "گربه روی میز",
        "мысық үйдің ішінде",
        "猫 在 盒子 里",
    ],
)
def test_lost_spaces_change_little(vocabulary: Vocabulary, text: str) -> None:
    proper, joined = vocabulary.encode(text).ids, vocabulary.encode(text.replace(" ", "")).ids
    assert len(set(proper) & set(joined)) >= 0.75 * len(set(proper))


def test_common_words_are_whole(vocabulary: Vocabulary) -> None:
    words = (
        "coffee tea cat dog house inside star кофе чай "
        "кошка собака дом внутри katze hund haus chat chien gato 猫 гарбуз"
    )
    whole = [word for word in words.split() if vocabulary.encode(word).used == 1]
    assert len(whole) >= 15, whole


@pytest.mark.parametrize("text", ["a" * 10_000, "космосвнутри" * 833, "ab " * 3333, "\U0001f600" * 10_000])
def test_ten_thousand_characters_are_quick(vocabulary: Vocabulary, text: str) -> None:
    def seconds() -> float:
        start = time.process_time()
        vocabulary.encode(text)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.2


def test_loading_is_quick(project: Path) -> None:
    def seconds() -> float:
        start = time.process_time()
        Vocabulary.load(project / "src" / "chashka" / "teacup" / "vocabulary.tsv")
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.1  # about 0.02 on an idle machine


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nothing\.tsv"):
        Vocabulary.load(tmp_path / "nothing.tsv")


@pytest.mark.parametrize("content", [b"", b"a\t-1.0\na\t-2.0\n", b"a\tmuch\n", b"a\t-1.0\nb", b"\xff\xfe\t-1.0\n"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocabulary.tsv"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"vocabulary\.tsv"):
        Vocabulary.load(path)


def test_a_character_without_a_piece_costs_more_than_any_piece(small: Vocabulary) -> None:
    # The rarest piece has -5; two of them are better than one unknown character only below the penalty.
    assert math.isclose(small.log_probability("cж"), -5.0 - 5.0 - UNKNOWN_PENALTY)
