"""Real clients, a real server and the model in the package: two steps each, in one process so that it is opened once."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from dialect_server import Served, from_base64, png, serving
from PIL import Image
from webuiapi import WebUIApi

from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.settings import Settings

pytestmark = pytest.mark.extra

STEPS = {"num_inference_steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("embedded")
    with serving(data, InProcess(Models(Settings(data=data, runner="thread"))), listen=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=300) as made:
        yield made


@pytest.fixture(scope="module")
def cup(client: openai.OpenAI) -> bytes:
    """A picture that the model drew, with one preview on the way."""
    stream = list(client.images.generate(prompt="чашка", stream=True, partial_images=1, extra_body=STEPS))
    assert stream[-1].type == "image_generation.completed"
    return base64.b64decode(stream[-1].b64_json)


def file(data: bytes) -> io.BytesIO:
    opened = io.BytesIO(data)
    opened.name = "cup.png"
    return opened


def drawn(answer: Any) -> list[Any]:
    return [from_base64(datum.b64_json) for datum in answer.data]


def test_openai_mask_keeps_what_is_opaque(client: openai.OpenAI, cup: bytes) -> None:
    mask = np.full((256, 256, 4), 255, np.uint8)
    mask[:, :128, 3] = 0
    answer = client.images.edit(
        image=file(cup), mask=file(png(mask)), prompt="яблоко", response_format="b64_json", extra_body=STEPS
    )
    (edited,), before = drawn(answer), np.asarray(Image.open(io.BytesIO(cup)).convert("RGBA"))
    assert edited.shape == (256, 256, 4)
    assert (edited[:, 128:] == before[:, 128:]).all() and not (edited[:, :128] == before[:, :128]).all()


def test_a_second_picture_changes_what_is_drawn(client: openai.OpenAI, cup: bytes) -> None:
    said: dict[str, Any] = {"prompt": "яблоко", "response_format": "b64_json", "extra_body": STEPS | {"strength": 1}}
    (alone,) = drawn(client.images.edit(image=file(cup), **said))
    (mixed,) = drawn(client.images.edit(image=[file(cup), file(cup)], **said))
    assert alone.shape == mixed.shape and not (alone == mixed).all()


def test_variations_are_several(client: openai.OpenAI, cup: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        answer = client.images.create_variation(image=file(cup), n=2, response_format="b64_json", extra_body=STEPS)
    first, second = drawn(answer)
    assert first.shape == (256, 256, 4) and not (first == second).all()


def test_a1111_seeds_and_masks(served: Served) -> None:
    client = WebUIApi(host="127.0.0.1", port=int(served.url.rpartition(":")[2]))
    said: dict[str, Any] = {"steps": 2, "width": 256, "height": 256, "cfg_scale": 3, "sampler_name": "DPM++ 2M"}
    both = client.txt2img(prompt="чашка", seed=7, n_iter=2, **said)
    alone = client.txt2img(prompt="чашка", seed=8, **said)
    assert both.info["all_seeds"] == [7, 8] and both.json["images"][1] == alone.json["images"][0]
    mask = np.zeros((256, 256), np.uint8)
    mask[:128] = 255
    said |= {"images": [alone.image], "mask_image": Image.fromarray(mask), "mask_blur": 0, "inpaint_full_res": False}
    edited = np.asarray(client.img2img(prompt="яблоко", seed=1, **said).image.convert("RGBA"))
    before = np.asarray(alone.image.convert("RGBA"))
    assert (edited[128:] == before[128:]).all() and not (edited[:128] == before[:128]).all()
    client.session.close()
