"""OpenAI's dialect: what clients send, what they are answered, and which job it becomes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import RED, Served, colour, from_base64, pixels_of, png, serving, to_base64

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"
VARY = "/v1/images/variations"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("openai")) as running:
        yield running


def holed(width: int = 40, height: int = 24) -> bytes:
    """OpenAI's mask: the left half is transparent, so that it is drawn anew."""
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[:, : width // 2, 3] = 0
    return png(pixels)


def test_a_picture_from_words_has_an_address_that_works(served: Served) -> None:
    said = served.post(GENERATE, prompt="чашка", seed=7, size="64x96")
    assert said["size"] == "64x96" and said["output_format"] == "png" and isinstance(said["created"], int)
    (datum,) = said["data"]
    assert datum["seed"] == 7 and datum["picture"] == 0 and "painted by a test" in datum["warnings"]
    answer = served.client.get(datum["url"])
    assert answer.headers["content-type"] == "image/png"
    assert tuple(pixels_of(answer.content)[-1, -1]) == colour(7, 0)
    assert datum["id"] in datum["url"]


@pytest.mark.parametrize("path", [GENERATE, EDIT, VARY])
def test_a_body_that_is_nested_very_deep_is_refused(served: Served, path: str) -> None:
    value: Any = "x"
    for _ in range(32):
        value = [value]
    error = served.post(path, 400, prompt="x", user=value)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["code"] == "nested" and "allowed: at most 32 levels" in error["message"]


def test_b64_json_holds_the_same_file(served: Served) -> None:
    (datum,) = served.post(GENERATE, prompt="чашка", seed=7, response_format="b64_json")["data"]
    assert "url" not in datum
    assert base64.b64decode(datum["b64_json"]) == served.client.get(f"/v1/images/{datum['id']}").content


@pytest.mark.parametrize(
    ("file_format", "media"), [("jpeg", "image/jpeg"), ("webp", "image/webp"), ("png", "image/png")]
)
def test_output_format_is_that_of_the_file_and_the_address(served: Served, file_format: str, media: str) -> None:
    (datum,) = served.post(GENERATE, prompt="чашка", seed=7, output_format=file_format)["data"]
    assert served.client.get(datum["url"]).headers["content-type"] == media


def test_models_called_gpt_image_answer_in_base64(served: Served) -> None:
    """The AI SDK does not ask those for it."""
    assert "b64_json" in served.post(GENERATE, prompt="a cup", model="gpt-image-1")["data"][0]
    assert "url" in served.post(GENERATE, prompt="a cup", model="gpt-image-1", response_format="url")["data"][0]
    assert "url" in served.post(GENERATE, prompt="a cup", model="dall-e-2")["data"][0]


def test_output_compression_makes_smaller_files_that_keep_their_metadata(served: Served) -> None:
    from chashka.images import read_metadata

    asked = {"prompt": "чашка", "seed": 7, "size": "256x256", "output_format": "webp", "response_format": "b64_json"}
    files = []
    for compression in (100, 10):
        (datum,) = served.post(GENERATE, **asked, output_compression=compression)["data"]
        files.append(base64.b64decode(datum["b64_json"]))
    assert len(files[1]) < len(files[0])
    metadata = read_metadata(files[1])
    assert metadata is not None and metadata["seed"] == 7


def test_every_field_becomes_ours(served: Served) -> None:
    said = {
        "prompt": "a cup",
        "n": 2,
        "size": "128x64",
        "negative_prompt": "text",
        "num_inference_steps": 3,
        "guidance_scale": 4.5,
        "seed": 9,
        "sampler": "Euler a",
        "background": "opaque",
        "user": "somebody-4711",
        "moderation": "low",
        "style": "vivid",
    }
    answer = served.post(GENERATE, **said)
    fields = served.jobs()[-1].fields
    wanted = {
        "n": 2,
        "width": 128,
        "height": 64,
        "negative_prompt": "text",
        "steps": 3,
        "guidance_scale": 4.5,
        "seed": 9,
    }
    assert {name: fields[name] for name in wanted} == wanted
    assert fields["sampler"] == "euler_a" and fields["background"] == "white"
    assert [datum["picture"] for datum in answer["data"]] == [0, 1] and answer["background"] == "opaque"
    assert "somebody-4711" not in json.dumps([dict(job.fields) for job in served.jobs()])


@pytest.mark.parametrize(
    ("quality", "wanted"), [("low", {"fast": True}), ("auto", {}), ("hd", {"steps": 50}), ("high", {"steps": 50})]
)
def test_quality_means_steps(served: Served, quality: str, wanted: dict[str, Any]) -> None:
    served.post(GENERATE, prompt="a cup", quality=quality)
    fields = served.jobs()[-1].fields
    assert {name: fields.get(name) for name in ("steps", "fast") if fields.get(name)} == wanted


def test_said_steps_win_over_quality(served: Served) -> None:
    served.post(GENERATE, prompt="a cup", quality="high", num_inference_steps=2)
    assert served.jobs()[-1].fields["steps"] == 2


def test_names_of_openais_models_mean_the_default_and_say_so(served: Served) -> None:
    said = served.post(GENERATE, prompt="a cup", model="gpt-image-1")
    assert served.jobs()[-1].fields["model"] == "kandinsky-teacup"
    assert any("gpt-image-1" in warning for warning in said["warnings"])


def test_a_model_that_is_not_there_is_404(served: Served) -> None:
    error = served.post(GENERATE, 404, prompt="a cup", model="kandinsky-teapot")["error"]
    assert error["code"] == "model_not_found" and error["param"] == "model" and error["type"] == "not_found_error"


def test_unknown_models_can_be_an_error(tmp_path: Path) -> None:
    with serving(tmp_path, unknown_models="error") as served:
        assert served.post(GENERATE, 404, prompt="a cup", model="dall-e-3")["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a cup", "n": 0}, "n"),
        ({"prompt": "a cup", "n": 17}, "n"),
        ({"prompt": "a cup", "n": True}, "n"),
        ({"prompt": "a cup", "size": "huge"}, "size"),
        ({"prompt": "a cup", "size": "9999x9999"}, "width"),
        ({"prompt": "a cup", "quality": "perfect"}, "quality"),
        ({"prompt": "a cup", "partial_images": 4}, "partial_images"),
        ({"prompt": "a cup", "sampler": "none such"}, None),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "a cup", "seed": -1}, "seed"),
    ],
)
def test_wrong_values_are_400_and_name_the_field(served: Served, said: dict[str, Any], param: str | None) -> None:
    before = len(served.jobs())
    error = served.post(GENERATE, 400, **said)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    if param is not None:
        assert error["param"] == param
    assert len(served.jobs()) == before


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"prompt": NaN}', b"\xff", b"[" * 20_000])
def test_bodies_that_are_no_object_are_400(served: Served, body: bytes) -> None:
    answer = served.client.post(GENERATE, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_fields_that_nobody_knows_are_warnings(served: Served) -> None:
    said = served.post(GENERATE, prompt="a cup", cfg_rescale=0.7, language="ru")
    assert any(warning.startswith("cfg_rescale") for warning in said["warnings"])
    assert any(warning.startswith("language") for warning in said["warnings"])


def test_jpeg_has_no_transparency(served: Served) -> None:
    error = served.post(GENERATE, 400, prompt="a cup", background="transparent", output_format="jpeg")["error"]
    assert "JPEG has no transparency" in error["message"]


def test_two_equal_requests_draw_two_pictures(served: Served) -> None:
    seeds = {served.post(GENERATE, prompt="a cup")["data"][0]["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_a_mask_is_transparent_where_ours_is_white(served: Served) -> None:
    """OpenAI's mask: alpha 0 = edit here. The painter paints red what our mask marks."""
    said = served.form(
        EDIT, [("image", ("a.png", png(), "image/png")), ("mask", ("m.png", holed(), "image/png"))], prompt="x",
        response_format="b64_json",
    )  # fmt: skip
    pixels = from_base64(said["data"][0]["b64_json"])
    assert (pixels[:, :20] == RED).all()
    assert (pixels[:, 20:] == (0, 160, 0, 255)).all()


def test_a_mask_of_another_size_is_fitted(served: Served) -> None:
    said = served.form(EDIT, {"image": png(), "mask": holed(80, 48)}, prompt="x", response_format="b64_json")
    pixels = from_base64(said["data"][0]["b64_json"])
    assert (pixels[:, :18] == RED).all() and (pixels[:, 22:] == (0, 160, 0, 255)).all()


def test_a_mask_without_transparency_is_taken_as_white_on_black(served: Served) -> None:
    plain = np.zeros((24, 40, 3), np.uint8)
    plain[:, :20] = 255
    said = served.form(EDIT, {"image": png(), "mask": png(plain)}, prompt="x", response_format="b64_json")
    assert (from_base64(said["data"][0]["b64_json"])[:, :20] == RED).all()
    assert any(warning.startswith("mask:") for warning in said["warnings"])


@pytest.mark.parametrize("level", [0, 255])
def test_a_mask_that_marks_nothing_is_refused(served: Served, level: int) -> None:
    plain = np.full((24, 40, 3), level, np.uint8)
    error = served.form(EDIT, {"image": png(), "mask": png(plain)}, 400, prompt="x")["error"]
    assert error["param"] == "mask"


def test_the_order_of_parts_does_not_matter(served: Served) -> None:
    """openai-node sends the file first, openai-python last."""
    parts = [
        ('form-data; name="prompt"', b"x"),
        ('form-data; name="image"; filename="blob"', png()),
        ('form-data; name="response_format"', b"b64_json"),
    ]
    for order in (parts, parts[::-1]):
        body = b"".join(
            b"--b\r\nContent-Disposition: " + name.encode() + b"\r\n\r\n" + data + b"\r\n" for name, data in order
        )
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": "Bearer none"}
        answer = served.client.post(EDIT, content=body + b"--b--\r\n", headers=headers)
        assert answer.status_code == 200, answer.text
        assert (from_base64(answer.json()["data"][0]["b64_json"]) == (0, 160, 0, 255)).all()


def test_formats_are_told_by_their_bytes(served: Served) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 24), (0, 0, 200)).save(out, "JPEG")
    files = [("image", ("picture.png", out.getvalue(), "application/octet-stream"))]
    said = served.form(EDIT, files, prompt="x", response_format="b64_json")
    assert from_base64(said["data"][0]["b64_json"])[5, 5, 2] > 180


def test_more_than_one_image_is_mixed_in(served: Served) -> None:
    files = [("image[]", ("a.png", png(), "image/png")), ("image[]", ("b.png", holed(), "image/png"))]
    served.form(EDIT, files, prompt="в чашке")
    job = served.jobs()[-1]
    assert set(job.inputs) == {"init", "picture 0"}
    assert job.fields["mix"] == [{"text": "в чашке", "weight": 1.0}, {"picture": 0, "weight": 1.0}]


def test_json_edits_take_data_urls_and_our_own_pictures(served: Served) -> None:
    drawn = served.post(GENERATE, prompt="a cup", seed=5, size="64x64")["data"][0]["id"]
    mask = {"image_url": f"data:image/png;base64,{to_base64(holed(64, 64))}"}
    said = served.post(EDIT, prompt="x", images=[{"file_id": drawn}], mask=mask, response_format="b64_json")
    pixels = from_base64(said["data"][0]["b64_json"])
    assert (pixels[:, :32] == RED).all() and tuple(pixels[-1, -1]) == colour(5, 0)
    assert served.jobs()[-1].parents["init"] == drawn


@pytest.mark.parametrize(
    "image",
    [
        {"image_url": "http://127.0.0.1:1/cup.png"},
        {"image_url": "https://example.org/cup.png"},
        {},
        {"image_url": "data:,x"},
    ],
)
def test_addresses_are_never_fetched(served: Served, image: dict[str, str]) -> None:
    error = served.post(EDIT, 400, prompt="x", images=[image])["error"]
    assert error["type"] == "invalid_request_error"


def test_somebody_elses_picture_is_not_there(served: Served) -> None:
    error = served.post(EDIT, 404, prompt="x", images=[{"file_id": f"pic_{'0' * 26}"}])["error"]
    assert error["code"] == "not_found"


@pytest.mark.parametrize("data", [b"", b"no picture at all", png()[:60]])
def test_files_that_are_no_pictures_are_400(served: Served, data: bytes) -> None:
    error = served.form(EDIT, [("image", ("a.png", data, "image/png"))], 400, prompt="x")["error"]
    assert error["code"] in ("invalid_image", "invalid_value")


def test_variations_need_no_words(served: Served) -> None:
    said = served.form(VARY, {"image": png()}, n="2", size="256x256", response_format="b64_json")
    job = served.jobs()[-1]
    assert job.kind == "vary" and set(job.inputs) == {"init"} and len(said["data"]) == 2


def test_an_edit_without_a_picture_is_400(served: Served) -> None:
    assert served.form(EDIT, {"prompt": (None, "x")}, 400)["error"]["param"] == "image"


def test_models_are_listed_as_openai_lists_them(served: Served) -> None:
    said = served.get("/v1/models")
    assert said["object"] == "list" and "kandinsky-teacup" in [model["id"] for model in said["data"]]
