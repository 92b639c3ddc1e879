"""CLIP's words: known ids, the reader of ``transformers`` on many texts, cutting and padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chashka.prompts import clip_words

# ids that openai/CLIP's own reader gives
KNOWN = {
    "a photograph of an astronaut riding a horse": [320, 8853, 539, 550, 18376, 6765, 320, 4558],
    "": [],
    "Hello, World!": [3306, 267, 1002, 256],
}
TEXTS = [
    "a cup of tea, 4k, trending on artstation",
    "don't you're I'll WE'VE they'd i'm it's",
    "космос внутри чайной чашки",
    "日本語のテキスト 123 ½ ² ٣",
    "mixed—dashes…and «quotes» 'single' \"double\"",
    "emoji 🦊🚀 and e\u0301 combining",
    "tabs\tand\nlines   and  spaces ",
    "&amp;lt;b&amp;gt; &eacute;",
    "x" * 200,
    "!!!???...",
    "a_b-c/d\\e@f#g",
]


@pytest.mark.parametrize(("text", "ids"), KNOWN.items())
def test_known_ids(text: str, ids: list[int]) -> None:
    assert clip_words.encode(text) == ids


def test_cut_and_padded() -> None:
    ids, mask = clip_words.encode_batch(["a cup", "cup " * 200], pad=clip_words.END)
    assert ids.shape == mask.shape == (2, 77) and ids.dtype == np.int64 and mask.dtype == np.float32
    assert list(ids[0, :4]) == [49406, 320, 1937, 49407] and set(ids[0, 4:]) == {49407}
    assert mask.sum(1).tolist() == [4, 77] and ids[1, -1] == 49407 and ids[1, -2] == 1937


@pytest.mark.extra
def test_the_same_as_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    merges = clip_words.MERGES.read_text(encoding="utf-8")
    (tmp_path / "vocab.json").write_text(json.dumps(clip_words.original().ids, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    theirs = transformers.CLIPTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    for text in TEXTS:
        if "&" in text:  # entities are read by the original alone
            continue
        assert [clip_words.START, *clip_words.encode(text), clip_words.END] == theirs(text)["input_ids"], text
    assert clip_words.clean(TEXTS[7]) == "<b> é"
