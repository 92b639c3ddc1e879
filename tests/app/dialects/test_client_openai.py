"""OpenAI's own Python client against a real server."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from dialect_server import RED, Painter, Served, colour, from_base64, pixels_of, png, serving
from sd_parsers import ParserManager

from chashka.app.jobs import Problem

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("openai"), listen=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=2, timeout=30) as made:
        yield made


def file(data: bytes, name: str = "cup.png") -> io.BytesIO:
    opened = io.BytesIO(data)
    opened.name = name
    return opened


def holed() -> bytes:
    pixels = np.full((24, 40, 4), 255, np.uint8)
    pixels[:, :20, 3] = 0
    return png(pixels)


def test_generate(served: Served, client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="чашка на столе", n=2, size="256x256", extra_body={"seed": 7})
    assert answer.data is not None and answer.size == "256x256"
    for number, datum in enumerate(answer.data):
        assert datum.url is not None
        assert tuple(pixels_of(httpx.get(datum.url).content)[-1, -1]) == colour(7, number)
        assert datum.model_extra is not None and datum.model_extra["seed"] == 7
    assert served.jobs()[-1].fields["prompt"] == "чашка на столе"


def test_generate_in_base64(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt="a cup", response_format="b64_json", quality="low", user="me", model="dall-e-3"
    )
    assert answer.data is not None and answer.data[0].b64_json is not None
    assert answer.usage is not None and answer.usage.total_tokens == 0
    assert from_base64(answer.data[0].b64_json).shape == (64, 64, 4)


def test_edit_with_a_mask(client: openai.OpenAI) -> None:
    answer = client.images.edit(image=file(png()), mask=file(holed()), prompt="красная", response_format="b64_json")
    assert answer.data is not None and answer.data[0].b64_json is not None
    pixels = from_base64(answer.data[0].b64_json)
    assert (pixels[:, :20] == RED).all() and (pixels[:, 20:] == (0, 160, 0, 255)).all()


def test_edit_of_several(served: Served, client: openai.OpenAI) -> None:
    client.images.edit(
        image=[file(png()), file(holed())], prompt="both", n=1, extra_body={"num_inference_steps": 3, "strength": 0.5}
    )
    job = served.jobs()[-1]
    assert set(job.inputs) == {"init", "picture 0"} and job.fields["steps"] == 3 and job.fields["strength"] == 0.5


def test_variation(served: Served, client: openai.OpenAI) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        answer = client.images.create_variation(image=file(png()), n=2, size="256x256")
    assert answer.data is not None and len(answer.data) == 2 and served.jobs()[-1].kind == "vary"


def test_stream(client: openai.OpenAI) -> None:
    with client.images.generate(prompt="a cup", stream=True, partial_images=2, extra_body={"seed": 9}) as stream:
        events = list(stream)
    assert events[-1].type == "image_generation.completed" and len(events) <= 3
    assert tuple(from_base64(events[-1].b64_json)[-1, -1]) == colour(9, 0)
    assert events[-1].usage.total_tokens == 0
    edits = list(client.images.edit(image=file(png()), prompt="x", stream=True))
    assert [event.type for event in edits] == ["image_edit.completed"]


def test_models(client: openai.OpenAI) -> None:
    assert "kandinsky-teacup" in [model.id for model in client.models.list()]


def test_errors_are_the_clients_own(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        client.images.generate(prompt="a cup", size="10x10")
    assert (
        wrong.value.param == "width"
        and wrong.value.type == "invalid_request_error"
        and wrong.value.code == "invalid_value"
    )
    assert wrong.value.request_id
    with pytest.raises(openai.NotFoundError) as lost:
        client.images.generate(prompt="a cup", model="kandinsky-teapot")
    assert lost.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as broken:
        client.images.edit(image=file(b"no picture"), prompt="x")
    assert broken.value.code == "invalid_image"


def test_a_wrong_key_is_the_clients_own_error(tmp_path: Path) -> None:
    with serving(tmp_path, listen=True) as served:
        _, secret = served.service.store.keys.add("tablet", ("generate", "read"))
        served.service.access.changed()
        base = f"{served.url}/v1"
        with openai.OpenAI(base_url=base, api_key="none") as client, pytest.raises(openai.AuthenticationError):
            client.images.generate(prompt="a cup")
        with openai.OpenAI(base_url=base, api_key=secret) as client:
            assert client.images.generate(prompt="a cup").data


def test_a_refusal_is_not_sent_again(served: Served, client: openai.OpenAI) -> None:
    before = len(served.jobs())
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="голый ребёнок")
    assert refused.value.code == "content_policy_violation" and len(served.jobs()) == before
    with pytest.raises(openai.BadRequestError):
        client.images.edit(image=[file(png()), file(holed())], prompt="голый ребёнок")
    assert len(served.jobs()) == before


def test_a_failed_job_is_not_begun_again(tmp_path: Path) -> None:
    with serving(tmp_path, Painter(fails=Problem("engine", "it broke")), listen=True) as served:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=2) as client:
            with pytest.raises(openai.UnprocessableEntityError) as failed:
                client.images.generate(prompt="a cup")
            assert failed.value.code == "engine"
            with pytest.raises(openai.APIError, match="it broke"):
                list(client.images.generate(prompt="a cup", stream=True))
        assert len(served.jobs()) == 2


def test_a_full_queue_is_tried_again_and_then_told(tmp_path: Path) -> None:
    with serving(tmp_path, listen=True, work=False, max_queue=1) as served:
        served.service.submit(served.service.access.who(None), {"prompt": "waits"})
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.RateLimitError) as full:
            client.images.generate(prompt="a cup")
        assert full.value.response.headers["retry-after"] and len(served.jobs()) == 1


def test_what_the_client_sends_again_is_drawn_once(tmp_path: Path) -> None:
    """The client gives up after half a second and asks again by itself, with its own header."""
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        opened = threading.Timer(1.5, gate.set)
        opened.start()
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=5, timeout=1.0) as client:
            answer = client.images.generate(prompt="a cup")
        assert answer.data and len(served.jobs()) == 1
        opened.join()


def test_what_is_sent_can_be_read_by_sd_parsers(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt="чашка с чаем",
        response_format="b64_json",
        extra_body={"seed": 7, "negative_prompt": "текст", "num_inference_steps": 3},
    )
    assert answer.data is not None and answer.data[0].b64_json is not None
    found: Any = ParserManager().parse(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    assert [prompt.value for prompt in found.prompts] == ["чашка с чаем"]
    assert [prompt.value for prompt in found.negative_prompts] == ["текст"]
