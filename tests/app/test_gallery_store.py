"""The gallery: adding, finding in any language, families of pictures, collections, deleting and its undo, the log of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from chashka.app.jobs import NewPicture, Picture
from chashka.app.store import Store
from chashka.app.store.schema import jobs, pictures, sent, words
from chashka.app.store.words import index_terms, search_terms
from chashka.errors import InputError


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def new(prompt: str = "", **values: Any) -> NewPicture:
    name = values.pop("name", prompt)
    plain = NewPicture(0, sum_of(name), sum_of(f"small {name}"), "image/png", 8, 8, 100, "00ff00ff00ff00ff", prompt)
    return replace(plain, **values)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "gallery.sqlite3")
    yield made
    made.close()


def prompts(found: list[Picture]) -> list[str]:
    return [picture.new.prompt for picture in found]


def test_a_picture_comes_back_as_it_was_added(store: Store) -> None:
    given = new("чашка", model="teacup", family="kandinsky", seed=7, metadata={"request": {"prompt": "чашка"}})
    added = store.pictures.add(given, "local")
    assert store.pictures.get(added.id) == added
    assert (added.new, added.owner, added.job, added.favourite, added.deleted) == (given, "local", None, False, None)
    assert store.pictures.get("pic_none") is None
    assert store.pictures.of_file(given.sha256) == added
    assert store.pictures.of_file(given.sha256, "somebody") is None
    assert store.pictures.count() == store.pictures.count("local") == 1


def test_seeds_and_texts_that_no_database_can_keep(store: Store) -> None:
    """Other programs' seeds have 64 bits; texts come from files."""
    added = store.pictures.add(new("a\0b \ud800", seed=2**64 - 1, name="x"), "local")
    assert added.new.seed is None and added.new.prompt == "ab ?"


@pytest.mark.parametrize(
    ("prompt", "search"),
    [
        ("Чашка ЧАЯ на столе", "чая чашка"),
        ("Чашка чая на столе", "чаш"),
        ("ёлка и снег", "елка"),
        ("елка", "ЁЛКА"),
        ("Straße bei Nacht", "strasse"),
        ("a café in the rain", "CAFÉ"),
        ("ｆｕｌｌ width", "full"),
        ("猫咪在喝茶", "喝茶"),
        ("猫咪在喝茶", "茶"),
        ("茶を飲む猫", "飲む"),
        ("コーヒーカップ", "ヒーカ"),
        ("ร้านกาแฟริมน้ำ", "กาแฟ"),
        ("मेरी चाय की प्याली", "चाय"),
        ("a cup ☕ of tea", "☕"),
        ("고양이와 찻잔", "고양"),
        ("кот номер 5", "5"),
        ("кот №5", "№5"),
    ],
)
def test_words_are_found_in_any_language(store: Store, prompt: str, search: str) -> None:
    store.pictures.add(new(prompt), "local")
    store.pictures.add(new("something else altogether"), "local")
    assert prompts(store.pictures.search(search)) == [prompt]


@pytest.mark.parametrize("search", ["чай", "ашка", "чашка кошка", "茶喝", "?!", "столе чаш дом"])
def test_what_is_not_there_is_not_found(store: Store, search: str) -> None:
    store.pictures.add(new("Чашка чая на столе 喝茶"), "local")
    assert store.pictures.search(search) == []


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_word_of_a_text_finds_it(parts: list[str]) -> None:
    """Whatever the text is: its words, and the beginning of the last one, are among what is stored for it."""
    stored = index_terms([" ".join(parts)])
    for part in parts:
        terms = search_terms(part)
        assert set(terms.exact) <= stored
        assert not terms.beginning or any(word.startswith(terms.beginning) for word in stored)


def test_filters_and_pages(store: Store) -> None:
    for number in range(30):
        model = ("one", "two")[number % 2]
        picture = store.pictures.add(new(f"кот {number}", model=model), ("local", "key_b")[number % 3 == 0])
        if number % 5 == 0:
            store.pictures.favourite(picture.id)
    by = store.pictures.search
    assert prompts(by(limit=3)) == ["кот 29", "кот 28", "кот 27"]
    assert prompts(by(limit=2, before=by(limit=3)[-1].number)) == ["кот 26", "кот 25"]
    assert prompts(by("кот", model="two", owner="key_b")) == ["кот 27", "кот 21", "кот 15", "кот 9", "кот 3"]
    assert prompts(by(favourite=True, model="one")) == ["кот 20", "кот 10", "кот 0"]
    assert len(by(favourite=False)) == 24
    assert by(source="imported") == [] and len(by(source="drawn")) == 30
    seen: list[str] = []
    before = None
    while page := by("кот", limit=7, before=before):
        seen += prompts(page)
        before = page[-1].number
    assert seen == [f"кот {number}" for number in range(29, -1, -1)]


def test_times(store: Store) -> None:
    for number in range(10):
        store.pictures.add(new(str(number)), "local")
    with store.database.write() as connection:
        for number in range(10):
            row = pictures.c.prompt == str(number)
            connection.execute(update(pictures).where(row).values(created=1000.0 + 100 * number))
    assert prompts(store.pictures.search(since=1700.0)) == ["9", "8", "7"]
    assert prompts(store.pictures.search(until=1200.0)) == ["2", "1", "0"]
    assert prompts(store.pictures.search(since=1150.0, until=1350.0)) == ["3", "2"]
    assert prompts(store.pictures.search("4", since=1150.0, until=1550.0)) == ["4"]
    assert store.pictures.search(since=9000.0) == store.pictures.search(until=10.0) == []


def test_a_family_of_pictures(store: Store) -> None:
    add = store.pictures.add
    first, other = add(new("first"), "local"), add(new("other"), "local")
    child = add(new("child"), "local", parents={"init": first.id, "picture 0": other.id})
    grandchild = add(new("grandchild"), "local", parents={"init": child.id, "mask": first.id})
    family = store.pictures.lineage(child.id)
    assert set(family.ancestors) == {first.id, other.id} and family.descendants == (grandchild.id,)
    assert {(link.child, link.parent, link.use) for link in family.links} == {
        (child.id, first.id, "init"),
        (child.id, other.id, "picture 0"),
        (grandchild.id, child.id, "init"),
    }
    assert store.pictures.lineage(first.id).descendants == (child.id, grandchild.id)
    assert store.pictures.lineage("pic_none").links == ()


def test_a_circle_of_parents_ends(store: Store) -> None:
    from chashka.app.store.schema import parents

    with store.database.write() as connection:
        rows = [{"child": f"pic_{i}", "parent": f"pic_{(i + 1) % 3}", "use": "init"} for i in range(3)]
        connection.execute(insert(parents), rows)
    family = store.pictures.lineage("pic_0")
    assert family.ancestors == ("pic_1", "pic_2") and len(family.links) == 3


def test_collections(store: Store) -> None:
    kept = store.pictures.collections
    cups = kept.create("local", "  Чашки \n")
    assert (cups.name, cups.count) == ("Чашки", 0)
    with pytest.raises(InputError, match="already"):
        kept.create("local", "Чашки")
    other = kept.create("key_b", "Чашки")
    ids = [store.pictures.add(new(str(i)), "local").id for i in range(3)]
    kept.put(cups.id, [*ids, "pic_none"])
    kept.put(cups.id, ids[:1])
    assert prompts(store.pictures.search(collection=cups.id)) == ["2", "1", "0"]
    assert store.pictures.search(collection=other.id) == []
    kept.take_out(cups.id, ids[1:2])
    store.pictures.delete(ids[2])
    assert [(one.name, one.count) for one in kept.list("local")] == [("Чашки", 1)]
    assert [one.id for one in kept.of_picture(ids[0])] == [cups.id]
    renamed = kept.rename(cups.id, "Кружки")
    assert renamed is not None and kept.named("local", "Кружки") == renamed
    with pytest.raises(InputError):
        kept.rename(cups.id, " ")
    kept.create("local", "Ложки")
    with pytest.raises(InputError, match="already"):
        kept.rename(cups.id, "Ложки")
    assert kept.delete(cups.id) and not kept.delete(cups.id)
    assert kept.get(cups.id) is None and store.pictures.get(ids[0]) is not None


def test_deleting_can_be_undone_until_it_is_purged(store: Store) -> None:
    one, two = (store.pictures.add(new(name), "local") for name in ("чашка", "чай"))
    store.pictures.delete(one.id)
    assert prompts(store.pictures.search()) == prompts(store.pictures.search("ча")) == ["чай"]
    assert (
        prompts(store.pictures.search(deleted=True)) == prompts(store.pictures.search("чаш", deleted=True)) == ["чашка"]
    )
    store.pictures.restore(one.id)
    assert prompts(store.pictures.search("ча")) == ["чай", "чашка"]
    store.pictures.delete(one.id)
    assert store.pictures.purge(3600) == set() and store.pictures.get(one.id) is not None
    assert store.pictures.purge(-1) == {one.new.sha256, one.new.thumbnail}
    assert store.pictures.get(one.id) is None and store.pictures.get(two.id) is not None
    with store.database.read() as connection:
        assert connection.execute(select(words.c.word)).scalars().all() == ["чай"]
    found = store.pictures.sent(one.new.sha256)
    assert found is not None and found.picture is None


def test_files_that_something_still_needs_are_not_given_up(store: Store) -> None:
    same = [store.pictures.add(new("a", name="file"), "local") for _ in range(2)]
    given_to_a_job = store.pictures.add(new("b"), "local")
    with store.database.write() as connection:
        connection.execute(
            insert(jobs).values(
                id="job_1", kind="draw", owner="local", state="queued", place=1.0, fields={}, parents={}, created=1.0, notes=[],
                attempts=0, fence=0, done=0, total=0, stop="", consent=False, inputs={"init": given_to_a_job.new.sha256},
            )
        )  # fmt: skip
    for picture in (same[0], given_to_a_job):
        store.pictures.delete(picture.id)
    assert store.pictures.purge(-1) == {given_to_a_job.new.thumbnail}
    store.pictures.delete(same[1].id)
    assert store.pictures.purge(-1) == {same[1].new.sha256, same[1].new.thumbnail}


def test_an_upload_that_is_purged_is_forgotten_altogether(store: Store) -> None:
    photo = store.pictures.add(new("photo", source="uploaded"), "local")
    assert store.pictures.sent(photo.new.sha256) is None
    store.pictures.log(photo.new.sha256, photo.new.dhash, photo.id, "full")
    store.pictures.delete(photo.id)
    store.pictures.purge(-1)
    with store.database.read() as connection:
        assert connection.execute(select(sent)).all() == []


def test_the_log_of_files(store: Store) -> None:
    drawn = store.pictures.add(new("чашка"), "local")
    found = store.pictures.sent(drawn.new.sha256)
    assert found is not None and (found.picture, found.privacy) == (drawn.id, "full")
    store.pictures.log(sum_of("without"), "00ff00ff00ff00fe", drawn.id, "none")
    store.pictures.log(sum_of("without"), "00ff00ff00ff00fe", drawn.id, "full")
    assert store.pictures.sent(sum_of("without")).privacy == "none"  # type: ignore[union-attr]
    near = store.pictures.alike("00ff00ff00ff00ff", 2)
    found_near = [(one.sha256, bits) for one, bits in near]
    assert sorted(found_near[:2]) == sorted([(drawn.new.sha256, 0), (drawn.new.thumbnail, 0)])
    assert found_near[2:] == [(sum_of("without"), 1)]
    assert store.pictures.alike("ffffffff00000000", 5) == []


def test_a_common_word_with_a_rare_filter_and_the_other_way_round(store: Store) -> None:
    """Whichever filter is walked, the answer is the same as looking at every picture."""
    everything = []
    for number in range(120):
        prompt = " ".join(word for word, each in (("кот", 2), ("дом", 3), ("сад", 40)) if number % each == 0) or "пусто"
        everything.append(store.pictures.add(new(prompt, model=f"m{number % 4}", name=str(number)), "local"))
        if number % 30 == 0:
            store.pictures.favourite(everything[-1].id)
    for search in ("кот", "дом кот", "сад кот", "до ко", "кот до", "к", "нет кот"):
        for model in (None, "m0", "m3"):
            for favourite in (None, True):
                wanted = [
                    one.number
                    for one in reversed(everything)
                    if (model is None or one.new.model == model)
                    and (favourite is None or (one.number - everything[0].number) % 30 == 0)
                    and _matches(one.new.prompt, search)
                ][:50]
                found = store.pictures.search(search, model=model, favourite=favourite)
                assert [one.number for one in found] == wanted, (search, model, favourite)


def _matches(prompt: str, search: str) -> bool:
    *whole, last = search.split()
    has = prompt.split()
    return all(word in has for word in whole) and any(word.startswith(last) for word in has)
