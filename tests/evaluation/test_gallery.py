"""Nearest training pictures: exact copies, mirror images, the masked distance, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_shards import CONCEPTS, LABELS, SIDE, made, some_ids

from chashka.data.shards import Record, pack, write_shard
from chashka.errors import InputError, TrainingError
from chashka.evaluation.drawing import shrunk
from chashka.evaluation.gallery import Gallery, Nearest, as_network, galleries, nearness, open_shards
from chashka.evaluation.judge import NearestJudge
from toy_model import ToyCodec


@pytest.fixture(scope="module")
def training(shards: Path) -> Gallery:
    return galleries(shards)[0]


def test_sides_are_kept_apart_and_light_pictures_left_out(shards: Path) -> None:
    training, held_out = galleries(shards)
    assert len(training) == 22
    assert held_out.ids == some_ids(6, True)
    assert not set(training.ids) & set(held_out.ids)
    assert training.concepts[:4] == [CONCEPTS[i] for i in (0, 1, 2, 2)]
    assert held_out.spread(3).ids == [held_out.ids[i] for i in (0, 2, 5)]
    assert len(held_out.spread(100)) == 6


def test_what_a_model_was_not_shown_is_none_of_its_training_pictures(tmp_path: Path) -> None:
    names = [*some_ids(6, False), *some_ids(4, True)]
    records = [Record(n, ("seen", "judged")[i % 2], 0, 0, 0, 1.0, pack(made(i))) for i, n in enumerate(names)]
    write_shard(tmp_path / "pictures-000.safetensors", records, LABELS, SIDE)
    training, held_out = galleries(tmp_path, ("judged",))
    assert training.ids == names[:6:2] and held_out.ids == names[6::2]
    assert [len(side) for side in galleries(tmp_path)] == [6, 4]
    with pytest.raises(TrainingError, match="0 training and 0 held-out"):
        galleries(tmp_path, ("judged", "seen"))


def test_a_copy_is_found_with_its_licence(training: Gallery) -> None:
    pixels = as_network(made(7))[None]
    (found,) = training.nearest(pixels)
    assert found.id == some_ids(24, False)[7]
    assert found.concept == CONCEPTS[1]
    assert found.licence == "CC0-1.0"
    assert found.distance == 0
    assert found.ratio == 0
    assert found.latent_id is None


def test_a_mirror_image_is_a_copy(training: Gallery) -> None:
    pixels = as_network(np.ascontiguousarray(made(11)[:, ::-1]))[None]
    (found,) = training.nearest(pixels, ToyCodec().encode)
    assert found.id == some_ids(24, False)[11]
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert found.latent_distance is not None
    assert found.latent_distance > 0  # latents are compared as they are


def test_latents_are_compared_too(training: Gallery) -> None:
    (found,) = training.nearest(as_network(made(7))[None], ToyCodec().encode)
    assert found.latent_id == found.id
    assert found.latent_distance == pytest.approx(0, abs=1e-6)


def test_distances_agree_with_the_definition(training: Gallery) -> None:
    queries = np.stack([as_network(made(seed)) for seed in (100, 101)])
    found = training.distances(shrunk(queries))
    for q, seed in enumerate((100, 101)):
        for row in range(len(training)):
            one, other = _unit(made(seed)), training.small(slice(row, row + 1))[0].transpose(1, 2, 0) * 0.5 + 0.5
            both = []
            for side in (one, one[:, ::-1]):
                union = (side[..., 3] > 0) | (other[..., 3] > 0.001)
                both.append(np.sqrt(np.square(side - other)[union].mean()))
            assert found[q, row] == pytest.approx(min(both), abs=2e-3)


def test_blank_pictures_have_a_distance(training: Gallery) -> None:
    blank = np.full((1, 4, 256, 256), -1, np.float32)
    (found,) = training.nearest(blank)
    assert np.isfinite(found.distance)
    assert 0 < found.ratio <= 1


def test_a_gallery_of_one(training: Gallery) -> None:
    (found,) = training.spread(1).nearest(as_network(made(50))[None])
    assert found.ratio == 1


def test_the_nearest_picture_judges(shards: Path) -> None:
    training, held_out = galleries(shards)
    judge = NearestJudge(training)
    assert judge.concepts == CONCEPTS
    scores = judge.scores(training.small())
    assert scores.shape == (22, 3)
    own = [CONCEPTS.index(concept) for concept in training.concepts]
    assert list(scores.argmax(axis=1)) == own
    distances = training.distances(held_out.small())
    for column, concept in enumerate(CONCEPTS):
        of_concept = [i for i, name in enumerate(training.concepts) if name == concept]
        wanted = -distances[:, of_concept].min(axis=1)
        assert np.array_equal(judge.scores(held_out.small())[:, column], wanted)


def test_a_concept_without_training_pictures_is_never_seen(training: Gallery) -> None:
    alone = training.spread(1)
    scores = NearestJudge(alone).scores(training.small(slice(0, 2)))
    assert np.isfinite(scores[:, 0]).all()
    assert (scores[:, 1:] == -np.inf).all()


def test_nearness_sums_up() -> None:
    found = [Nearest("a", "c", "", 0.1, 0.2), Nearest("b", "c", "", 0.3, 0.9, "b", 0.5)]
    summed = nearness(found)
    assert (summed.pictures, summed.distance, summed.ratio, summed.copied) == (2, 0.2, 0.55, 0.5)
    assert summed.latent_distance == 0.5


def test_folders_without_shards_and_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pictures-"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="96x96 cannot be compared"):
        shrunk(np.zeros((1, 4, 96, 96), np.float32))


def _unit(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(64, 4, 64, 4, 4).mean(axis=(1, 3)) / 255
