"""Whatever way a picture leaves a server: the very bytes are in its log, and they say what they are if they may."""

from __future__ import annotations

import base64
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dialect_server import ROOT, Painter, Run, Served, png, serving, to_base64

from chashka.app.keeping.made import Made
from chashka.app.keeping.marks import verify
from chashka.images.metadata import told

GENERATE, EDIT, VARIATION = (f"/v1/images/{name}" for name in ("generations", "edits", "variations"))
INLINE = {"prompt": "a cup", "size": "64x64", "response_format": "b64_json"}


@pytest.fixture(scope="module", params=["full", "none"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("known"), privacy=request.param) as running:
        yield running


def inline(**said: Any) -> Callable[[Served], list[bytes]]:
    return lambda served: [from_text(one["b64_json"]) for one in served.post(GENERATE, **INLINE, **said)["data"]]


def from_text(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def get(path: str) -> Callable[[Served], list[bytes]]:
    """A path of the own API, of a picture that was just drawn."""

    def ask(served: Served) -> list[bytes]:
        id = served.post(GENERATE, prompt="a cup", size="64x64", n=2)["data"][0]["id"]
        answer = served.client.get(f"/v1/images/{id}{path}")
        assert answer.status_code == 200, answer.text
        return [answer.content]

    return ask


def address(served: Served) -> list[bytes]:
    (datum,) = served.post(GENERATE, prompt="a cup", size="64x64", output_format="webp")["data"]
    return [served.client.get(datum["url"]).content]


def form(path: str, **said: str) -> Callable[[Served], list[bytes]]:
    def ask(served: Served) -> list[bytes]:
        answer = served.form(path, {"image": png()}, response_format="b64_json", **said)
        return [from_text(one["b64_json"]) for one in answer["data"]]

    return ask


def download(served: Served) -> list[bytes]:
    ids = [one["id"] for one in served.post(GENERATE, prompt="a cup", size="64x64", n=2)["data"]]
    packed = served.client.post("/v1/images/download", json={"ids": ids, "format": "webp"}).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def stream(file_format: str, **said: Any) -> Callable[[Served], list[bytes]]:
    """Pictures that form, and the finished one."""

    def ask(served: Served) -> list[bytes]:
        fields = {"num_inference_steps": 8, "stream": True, "partial_images": 2, "output_format": file_format}
        answer = served.client.post(GENERATE, json={**INLINE, **fields, **said})
        lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert {line["type"].rpartition(".")[2] for line in lines} == {"partial_image", "completed"}
        return [from_text(line["b64_json"]) for line in lines]

    return ask


def grid(served: Served) -> list[bytes]:
    answer = served.post(f"{ROOT}/txt2img", prompt="x", batch_size=2, width=64, height=64, return_grid=True)
    assert len(answer["images"]) == 3
    return [from_text(text) for text in answer["images"]]


def changed(served: Served) -> list[bytes]:
    said = {"prompt": "x", "init_images": [to_base64(png())], "width": 64, "height": 64}
    answer = served.post(f"{ROOT}/img2img", **said, override_settings={"samples_format": "webp"})
    return [from_text(text) for text in answer["images"]]


def sketch(served: Served) -> list[bytes]:
    answer = served.client.post("/v1/sketches", json={"prompt": "чашка"})
    assert answer.status_code == 200, answer.text
    return [answer.content]


WAYS: dict[str, Callable[[Served], list[bytes]]] = {
    "its own bytes": get(""),
    "nothing said": get("?privacy=none"),
    "a mark": get("?privacy=provenance"),
    "another format": get("?format=jpeg"),
    "a thumbnail": get("/thumbnail"),
    "a zip": download,
    "a sketch": sketch,
    "openai png": inline(n=2),
    "openai address": address,
    "openai webp, smaller": inline(output_format="webp", output_compression=10),
    "openai jpeg, smaller": inline(output_format="jpeg", output_compression=50),
    "openai edit": form(EDIT, prompt="a cup"),
    "openai edit, smaller": form(EDIT, prompt="a cup", output_format="webp", output_compression="20"),
    "openai variation": form(VARIATION),
    "openai stream png": stream("png"),
    "openai stream jpeg, smaller": stream("jpeg", output_compression=10),
    "a1111 sheet": grid,
    "a1111 img2img": changed,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_very_bytes_that_are_sent_are_in_the_log(served: Served, way: str) -> None:
    sent = WAYS[way](served)
    assert sent
    for data in sent:
        verdict = verify(data, served.service.store, Made(served.settings.data))
        assert verdict.logged and verdict.by_model, (way, verdict)
        if served.settings.privacy == "full" and way not in ("nothing said", "a thumbnail", "a sketch"):
            assert told(data).source_type, f"{way}: without a mark"
        if served.settings.privacy == "none" and way != "a mark":
            assert told(data).source_type is None, f"{way}: with a mark"


def test_what_a1111_shows_while_it_draws_is_known_too(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        run = Run(served, prompt="x", width=64, height=64)
        served.waits_for(lambda: served.get(f"{ROOT}/progress")["current_image"])
        data = from_text(served.get(f"{ROOT}/progress")["current_image"])
        gate.set()
        run.ended()
        verdict = verify(data, served.service.store)
        assert verdict.kind == "mark" and verdict.logged


def test_a_picture_that_goes_through_keeps_what_it_says(tmp_path: Path) -> None:
    """Without an upscaler A1111 gives a picture back, as PNG."""
    with serving(tmp_path) as served:
        (data,) = inline(output_format="webp")(served)
        answer = served.post(f"{ROOT}/extra-single-image", image=to_base64(data), upscaler_1="None")
        assert verify(from_text(answer["image"])).kind == "full"
