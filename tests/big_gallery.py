"""A gallery of many pictures, made quickly: words as common as in a language, models, owners, favourites, a collection."""

from __future__ import annotations

import hashlib
import random

from sqlalchemy import insert

from chashka.app.store import Store
from chashka.app.store.schema import collected, collections, pictures, words
from chashka.app.store.words import index_terms

SECONDS = 60.0
"""Between two pictures."""
FIRST = 1_700_000_000.0


def fill(store: Store, count: int, seed: int = 20) -> None:
    """``count`` pictures. Words: the r-th of 5,000 with a frequency of about 1/r; ``w0`` is in most prompts, ``w4999`` in a few."""
    random.seed(seed)
    shares = [1 / (rank + 1) for rank in range(5_000)]
    names = [f"w{rank}" for rank in range(5_000)]
    rest = "x" * 700  # about what a request's JSON has
    with store.database.write() as connection:
        rows = []
        for number in range(count):
            prompt = " ".join(random.choices(names, shares, k=9)) + f" особое{number}"
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            rows.append(
                {
                    "id": f"pic_{number:026}", "index": 0, "owner": f"key_{number % 7}" if number % 3 else "local",
                    "sha256": digest, "thumbnail": digest[::-1], "media_type": "image/png", "width": 512, "height": 512,
                    "bytes": 100_000, "dhash": digest[:16], "prompt": prompt, "negative_prompt": "", "family": "kandinsky",
                    "model": "rare" if number % 9_973 == 5 else f"model-{number % 3}", "seed": number,
                    "metadata": {"request": {"prompt": prompt, "rest": rest}}, "source": "drawn",
                    "created": FIRST + number * SECONDS, "favourite": number % 997 == 3,
                    # a block in the middle was deleted, and waits for its end
                    "deleted": FIRST if count * 0.4 < number < count * 0.5 else None,
                }
            )  # fmt: skip
        connection.execute(insert(pictures), rows)
        assert set(str(rows[0]["prompt"]).split()) == index_terms([str(rows[0]["prompt"])])
        found = sorted({(word, i + 1) for i, row in enumerate(rows) for word in str(row["prompt"]).split()})
        if store.database.kind == "sqlite":
            connection.exec_driver_sql("INSERT INTO words (word, picture) VALUES (?, ?)", found)
        else:
            connection.execute(insert(words), [{"word": word, "picture": number} for word, number in found])
        connection.execute(insert(collections).values(id="col_1", owner="local", name="all", created=FIRST))
        inside = [{"collection": "col_1", "picture": number + 1} for number in range(0, count, 5)]
        connection.execute(insert(collected), inside)


SEARCHES: dict[str, dict[str, object]] = {
    "newest": {},
    "a page far back": {"before": 2_000},
    "mine": {"owner": "key_3"},
    "nobody's": {"owner": "key_none"},
    "one model": {"model": "model-1"},
    "a rare model": {"model": "rare"},
    "a model of somebody": {"model": "model-2", "owner": "key_1"},
    "favourites": {"favourite": True},
    "no favourites": {"favourite": False},
    "a collection": {"collection": "col_1"},
    "a collection's model": {"collection": "col_1", "model": "rare"},
    "long ago": {"until": FIRST + 500 * SECONDS},
    "a day": {"since": FIRST + 30_000 * SECONDS, "until": FIRST + 31_440 * SECONDS},
    "uploads": {"source": "uploaded"},
    "a word of most": {"words": "w0 "},
    "two words of most": {"words": "w0 w1 w2"},
    "a rare word": {"words": "w4321 "},
    "a rare word of most": {"words": "w0 w4999"},
    "one picture": {"words": "w0 особое77"},
    "a beginning": {"words": "w4"},
    "a common beginning": {"words": "w"},
    "a beginning of all": {"words": "особое"},
    "no such word": {"words": "кошка w0"},
    "a word and a model": {"words": "w1 w5", "model": "rare"},
    "a word of somebody": {"words": "w3 w7", "owner": "key_5"},
    "a word long ago": {"words": "w2 w9", "until": FIRST + 3_000 * SECONDS},
    "a favourite's word": {"words": "w0 w4", "favourite": True},
    "a collection's word": {"words": "w6 w", "collection": "col_1"},
    "a pasted prompt": {"words": "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11"},
    "deleted": {"deleted": True},
}
"""What people look for, at its easiest and at its hardest."""
