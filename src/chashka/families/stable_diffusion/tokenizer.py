"""The tokenizer of a diffusers folder: CLIP's byte pairs in ``vocab.json`` and ``merges.txt``, or all in ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chashka.checkpoints.configurations import checked, read_json
from chashka.errors import WeightsError
from chashka.families.stable_diffusion.text import Words
from chashka.prompts import clip_words
from chashka.prompts.clip_words import MARKS, BytePairs

FOLDER = "tokenizer"
VOCABULARY, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
ADDED = "added_tokens.json"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """pairs: the words. added: further words, by the ids of what is typed. pad: the id behind a text's end; None: none is said."""

    pairs: BytePairs = field(default_factory=clip_words.original)
    added: Words = field(default_factory=dict)
    pad: int | None = None


def is_in(folder: Path) -> bool:
    """Whether the folder of a tokenizer has the files of one."""
    return (folder / WHOLE).is_file() or ((folder / VOCABULARY).is_file() and (folder / MERGES).is_file())


def read(folder: Path, rows: int) -> Tokenizer:
    """CLIP's own vocabulary where the folder has that one, otherwise the folder's. rows: of the text encoder's table.

    Raises WeightsError for files that are damaged, or of another text encoder.
    """
    with checked(folder):
        pairs, added = _separate(folder) if (folder / VOCABULARY).is_file() else _whole(folder / WHOLE)
    lacking = [mark for mark in MARKS if mark not in pairs.ids]
    if lacking:
        raise WeightsError(f"{folder}: its vocabulary lacks {' and '.join(lacking)}: it is not one of CLIP's kind")
    ids = [*pairs.ids.values(), *added.values()]
    wrong = next((number for number in ids if type(number) is not int or not 0 <= number < rows), None)
    if wrong is not None:
        raise WeightsError(
            f"{folder}: its vocabulary has the id {str(wrong)[:20]!r}, the text encoder's table has the rows 0 to {rows - 1}: "
            "they are of two models"
        )
    own = clip_words.original()
    if pairs.merges == own.merges and pairs.ids == own.ids:
        pairs = own
    else:
        pairs = BytePairs(pairs.merges, pairs.ids, *(pairs.ids[mark] for mark in MARKS))
    with checked(folder / ADDED):
        words = {tuple(pairs.encode(word)): (number,) for word, number in added.items() if word not in pairs.ids}
    return Tokenizer(pairs, {typed: number for typed, number in words.items() if typed}, _pad(folder, pairs.ids, added))


def _separate(folder: Path) -> tuple[BytePairs, dict[str, int]]:
    try:
        lines = (folder / MERGES).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{folder / MERGES}: cannot be read ({str(error)[:100]})") from error
    said = [line for i, line in enumerate(lines) if line.strip() and not (i == 0 and line.startswith("#"))]
    added = read_json(folder / ADDED) if (folder / ADDED).is_file() else {}
    return BytePairs(_merges(said, folder / MERGES), read_json(folder / VOCABULARY)), added


def _whole(file: Path) -> tuple[BytePairs, dict[str, int]]:
    said = read_json(file)
    model = said["model"]
    if model.get("type") != "BPE":
        raise WeightsError(f"{file}: its model is {str(model.get('type'))[:40]!r}; supported is BPE")
    added = {token["content"]: token["id"] for token in said.get("added_tokens", ())}
    return BytePairs(
        _merges(model["merges"], file), {**model["vocab"], **{m: added[m] for m in MARKS if m in added}}
    ), added


def _merges(lines: list[Any], file: Path) -> tuple[tuple[str, str], ...]:
    """Pairs, written as one text with a space between, or as two."""
    pairs = [tuple(line.split() if isinstance(line, str) else line) for line in lines]
    wrong = next((i for i, pair in enumerate(pairs) if len(pair) != 2), None)
    if wrong is not None:
        raise WeightsError(f"{file}: its merge {wrong + 1} is {str(lines[wrong])[:40]!r}; allowed: two pieces")
    return tuple((str(first), str(last)) for first, last in pairs)


def _pad(folder: Path, ids: Mapping[str, int], added: Mapping[str, int]) -> int | None:
    """What texts are padded with: the map of special tokens counts before the configuration, as in ``transformers``."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        said = read_json(folder / name).get("pad_token") if (folder / name).is_file() else None
        word = said.get("content") if isinstance(said, dict) else said
        if isinstance(word, str):
            found = ids.get(word, added.get(word))
            if found is None:
                raise WeightsError(f"{folder / name}: its pad_token {word[:40]!r} is not in the vocabulary")
            return found
    return None
