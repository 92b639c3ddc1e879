"""The gallery in PostgreSQL finds the same pictures as in SQLite, in the same order; and undoing, purging and keys work there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from big_gallery import SEARCHES, fill
from chashka.app.jobs import NewPicture
from chashka.app.store import Store
from postgres_server import server

pytestmark = pytest.mark.extra
PICTURES = 5_000


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    stores = Store.at(tmp_path_factory.mktemp("same") / "gallery.sqlite3"), Store.at(server().new())
    for store in stores:
        fill(store, PICTURES)
    yield stores
    for store in stores:
        store.close()


@pytest.mark.parametrize("name", SEARCHES)
def test_both_find_the_same(both: tuple[Store, Store], name: str) -> None:
    here, there = ([picture.number for picture in store.pictures.search(**SEARCHES[name])] for store in both)  # type: ignore[arg-type]
    assert here == there


def test_words_of_every_script_are_compared_sign_by_sign(both: tuple[Store, Store]) -> None:
    """A collation of a language would put ё, ß and 猫 elsewhere than where the beginning of a word looks."""
    found = []
    for store in both:
        for number, prompt in enumerate(("Straße ёлка 猫咪 Ünal", "ÉTÉ чашки", "zz чаша")):
            sum = f"{number:064}"
            store.pictures.add(NewPicture(number, sum, sum, "image/png", 1, 1, 1, "0" * 16, prompt), "local")
        texts = ("чаш", "елк", "猫", "ünal", "été", "stras", "z")
        found.append([[one.new.prompt for one in store.pictures.search(text)] for text in texts])
    assert found[0] == found[1] and all(found[0])


def test_deleting_and_keys(both: tuple[Store, Store]) -> None:
    store = both[1]
    picture = store.pictures.search("чашки")[0]
    store.pictures.collections.put(store.pictures.collections.create("local", "Чашки").id, [picture.id])
    store.pictures.log("a" * 64, "0" * 16, picture.id, "none")
    store.pictures.log("a" * 64, "0" * 16, picture.id, "full")
    store.pictures.delete(picture.id)
    assert store.pictures.search("чашки") == []
    assert picture.new.sha256 in store.pictures.purge(-1)
    found = store.pictures.sent("a" * 64)
    assert found is not None and (found.picture, found.privacy) == (None, "none")
    key, secret = store.keys.add("a")
    session = store.keys.open_session(key, 60)
    assert store.keys.check(secret) == store.keys.session(session) == key
    store.keys.revoke("a")
    assert store.keys.check(secret) is None and store.keys.session(session) is None
