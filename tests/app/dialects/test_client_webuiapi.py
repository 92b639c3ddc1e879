"""The Python client of A1111's API against a real server."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import RED, Painter, Served, colour, png, serving
from PIL import Image
from sd_parsers import ParserManager
from webuiapi import WebUIApi

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("webuiapi"), listen=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    made = client_of(served)
    yield made
    made.session.close()


def client_of(served: Served, **said: Any) -> Any:
    return WebUIApi(host="127.0.0.1", port=int(served.url.rpartition(":")[2]), **said)


def image(data: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


def half() -> Image.Image:
    pixels = np.zeros((24, 40), np.uint8)
    pixels[:, :20] = 255
    return Image.fromarray(pixels)


def test_txt2img(client: Any) -> None:
    said = client.txt2img(prompt="чашка", negative_prompt="текст", seed=7, n_iter=2, width=64, height=96, steps=3)
    assert [picture.size for picture in said.images] == [(64, 96)] * 2
    assert isinstance(said.info, dict) and said.info["all_seeds"] == [7, 8] and said.info["sampler_name"] == "Euler a"
    assert [picture.getpixel((63, 95)) for picture in said.images] == [colour(7, 0), colour(8, 0)]
    assert said.images[0].info["parameters"].startswith("чашка\nNegative prompt: текст\n")


def test_img2img_and_inpainting(client: Any) -> None:
    said = client.img2img(
        images=[image(png())], prompt="x", mask_image=half(), mask_blur=0, width=64, height=64, seed=1
    )
    pixels = np.asarray(said.image.convert("RGBA"))
    assert (pixels[:, :20] == RED).all() and (pixels[:, 20:] == (0, 160, 0, 255)).all()
    said = client.img2img(images=[image(png())], prompt="x", mask_image=half(), mask_blur=0, inpainting_mask_invert=1)
    assert (np.asarray(said.image.convert("RGBA"))[:, 20:] == RED).all()


def test_options(client: Any) -> None:
    assert client.get_options()["samples_format"] == "png"
    client.set_options({"samples_format": "png"})
    title = client.util_get_model_names()[0]
    assert title.startswith("kandinsky-teacup")
    assert client.util_get_current_model() == title
    client.util_set_model(title)


def test_lists(client: Any) -> None:
    assert "Euler a" in [one["name"] for one in client.get_samplers()]
    assert "karras" in [one["name"] for one in client.get_schedulers()]
    assert [one["name"] for one in client.get_upscalers()][:3] == ["None", "Lanczos", "Nearest"]
    assert client.get_sd_models()[0]["model_name"] == "kandinsky-teacup"
    for found in (
        client.get_hypernetworks(),
        client.get_face_restorers(),
        client.get_realesrgan_models(),
        client.get_loras(),
    ):
        assert found == []
    assert client.get_prompt_styles() == [] and client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_cmd_flags()["api"] and client.get_memory()["ram"]["total"] > 0
    client.refresh_checkpoints()


def test_png_info_and_extras(client: Any) -> None:
    drawn = client.txt2img(prompt="чашка", seed=7, width=64, height=64).image
    assert client.png_info(drawn).info.startswith("чашка\n")
    assert client.extra_single_image(drawn, upscaler_1="Lanczos", upscaling_resize=1.5).image.size == (96, 96)
    many = client.extra_batch_images([drawn, drawn], upscaler_1="Nearest", upscaling_resize=2)
    assert [picture.size for picture in many.images] == [(128, 128)] * 2


def test_errors_are_told(client: Any) -> None:
    with pytest.raises(RuntimeError) as wrong:
        client.txt2img(prompt="x", sampler_name="LMS")
    assert wrong.value.args[0] == 400 and "Sampler not found" in wrong.value.args[1]
    with pytest.raises(RuntimeError) as missing:
        client.interrogate(image(png()))
    assert missing.value.args[0] == 404 and "not available" in missing.value.args[1]


def test_progress_and_interrupt(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        client, other = client_of(served), client_of(served)
        assert client.get_progress()["state"]["job_count"] == 0
        said: list[Any] = []
        drawing = threading.Thread(target=lambda: said.append(other.txt2img(prompt="x", n_iter=2)), daemon=True)
        drawing.start()
        served.waits_for(lambda: client.get_progress()["current_image"])
        assert client.get_progress()["state"]["job_count"] == 2
        client.interrupt()
        drawing.join(30)
        assert said and said[0].images == []
        client.session.close()
        other.session.close()


def test_waiting_for_others_ends(client: Any) -> None:
    """It waits until progress is 0 and no job is there."""
    client.util_wait_for_ready(check_interval=0.1)


def test_a_key_is_the_password(tmp_path: Path) -> None:
    with serving(tmp_path, listen=True) as served:
        _, secret = served.service.store.keys.add("tablet", ("generate", "read"))
        served.service.access.changed()
        known, unknown = (
            client_of(served, username="x", password=secret),
            client_of(served, username="x", password="wrong"),
        )
        assert known.txt2img(prompt="x", width=64, height=64).images
        with pytest.raises(RuntimeError) as refused:
            unknown.txt2img(prompt="x")
        assert refused.value.args[0] == 401
        known.session.close()
        unknown.session.close()


def test_what_is_sent_can_be_read_by_sd_parsers(client: Any) -> None:
    said = client.txt2img(prompt="чашка с чаем", negative_prompt="текст", seed=7, steps=3)
    found: Any = ParserManager().parse(io.BytesIO(base64.b64decode(said.json["images"][0])))
    assert [prompt.value for prompt in found.prompts] == ["чашка с чаем"]
    assert [prompt.value for prompt in found.negative_prompts] == ["текст"]
