"""The reader against the unigram model of ``tokenizers``: the same score on every text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from chashka.prompts import Vocabulary

pytestmark = pytest.mark.extra


def test_scores_equal_those_of_tokenizers(project: Path) -> None:
    vocabulary = Vocabulary.load(project / "src" / "chashka" / "teacup" / "vocabulary.tsv")
    scores = dict(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    reference = Tokenizer(models.Unigram([("<unk>", 0.0), *scores.items()], unk_id=0, byte_fallback=False))
    rng = random.Random(0)
    equal = 0
    for _ in range(3000):
        word = "".join(rng.choice(vocabulary.pieces) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.5:  # letters at random, so that many cuts compete
            word = "".join(rng.sample(word, len(word)))
        theirs = reference.encode(word).tokens
        assert "".join(theirs) == word
        assert vocabulary.log_probability(word) == pytest.approx(sum(scores[piece] for piece in theirs), abs=1e-4)
        equal += [vocabulary.id_of(piece) for piece in theirs] == vocabulary.word(word)
    assert equal > 2990  # ties may be cut either way
