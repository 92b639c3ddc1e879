"""A1111's dialect beside drawing: progress and orders, lists, pictures that are there already, keys."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dialect_server import (
    ROOT,
    Painter,
    Run,
    Served,
    colour,
    drawn,
    from_base64,
    pixels_of,
    png,
    serving,
    to_base64,
    warnings,
)
from PIL import Image

from chashka.app.jobs import Problem


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("a1111")) as running:
        yield running


def test_idle_is_progress_0_and_no_jobs(served: Served) -> None:
    said = served.get(f"{ROOT}/progress")
    assert said["progress"] == 0 and said["state"]["job_count"] == 0 and said["current_image"] is None


def test_a_wrong_query_is_422(served: Served) -> None:
    assert served.get(f"{ROOT}/progress?skip_current_image=perhaps", 422)["detail"][0]["loc"] == [
        "body",
        "skip_current_image",
    ]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Served, threading.Event]]:
    """A server that listens, whose painter waits for the gate."""
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as running:
        yield running, gate


def test_progress_is_told_with_a_preview(held: tuple[Served, threading.Event]) -> None:
    served, gate = held
    run = Run(served, prompt="x", batch_size=2, steps=4, force_task_id="task(7)")
    served.waits_for(lambda: served.get(f"{ROOT}/progress")["current_image"])
    said = served.get(f"{ROOT}/progress")
    assert said["state"]["job_count"] == 2 and said["state"]["sampling_steps"] == 4 and 0 <= said["progress"] < 1
    assert pixels_of(base64.b64decode(said["current_image"])).shape[0] == 16
    assert served.get(f"{ROOT}/progress?skip_current_image=true")["current_image"] is None
    asked = {"id_task": "task(7)", "id_live_preview": -1, "live_preview": True}
    inside = served.post("/internal/progress", **asked)
    assert inside["active"] and not inside["completed"] and inside["live_preview"].startswith("data:image/png;base64,")
    assert served.get("/internal/pending-tasks") == {"size": 0, "tasks": []}
    gate.set()
    run.ended()
    assert served.get(f"{ROOT}/progress")["state"]["job_count"] == 0
    assert served.post("/internal/progress", **asked)["completed"]


def test_interrupt_ends_it_with_what_is_finished(held: tuple[Served, threading.Event]) -> None:
    served, gate = held
    run = Run(served, prompt="x", n_iter=3, seed=5)
    served.waits_for(lambda: served.get(f"{ROOT}/progress")["state"]["job_count"] == 3)
    assert served.post(f"{ROOT}/interrupt") == {}
    answer = run.ended()
    info = json.loads(answer["info"])
    assert answer["images"] == [] and info["all_seeds"] == [] and "interrupted" in warnings(info)
    assert {job.state for job in served.jobs()} == {"canceled"} and not gate.is_set()


def test_skip_goes_on_with_the_next(held: tuple[Served, threading.Event]) -> None:
    served, gate = held
    run = Run(served, prompt="x", n_iter=2, seed=5)
    served.waits_for(lambda: any(job.state == "running" for job in served.jobs()))
    assert served.post(f"{ROOT}/skip") is None
    gate.set()
    answer = run.ended()
    assert json.loads(answer["info"])["all_seeds"] == [6] and len(answer["images"]) == 1
    assert tuple(from_base64(answer["images"][0])[-1, -1]) == colour(6, 0)


def test_a_failed_job_is_422_and_the_rest_is_not_drawn(tmp_path: Path) -> None:
    with serving(tmp_path, Painter(fails=Problem("weights", "a file is missing"))) as served:
        error = served.post(f"{ROOT}/txt2img", 422, prompt="x", n_iter=3)
        assert error["detail"] == "a file is missing"
        served.waits_for(lambda: all(job.ended for job in served.jobs()))  # one of them may have been begun


def test_what_waits_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, listen=True, work=False) as served:
        run = Run(served, prompt="x", force_task_id="task(w)")
        served.waits_for(lambda: served.get("/internal/pending-tasks")["tasks"] == ["task(w)"])
        assert served.post("/internal/progress", id_task="task(w)")["queued"]
        assert served.get(f"{ROOT}/progress")["textinfo"] == "waiting"
        served.post(f"{ROOT}/interrupt")
        assert json.loads(run.ended()["info"])["all_seeds"] == []


def test_png_info_reads_what_we_send(served: Served) -> None:
    image = served.post(f"{ROOT}/txt2img", prompt="чашка: большая", negative_prompt="текст", seed=7, steps=3)["images"][
        0
    ]
    said = served.post(f"{ROOT}/png-info", image=f"data:image/png;base64,{image}")
    assert said["info"].startswith("чашка: большая") and said["items"]["parameters"] == said["info"]
    wanted = {"Prompt": "чашка: большая", "Negative prompt": "текст", "Steps": "3", "Seed": "7"}
    assert {name: said["parameters"][name] for name in wanted} == wanted
    assert served.post(f"{ROOT}/png-info", image=to_base64(png())) == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize(
    "image", ["", "not base64!", to_base64(b"no picture"), to_base64(png()[:50]), "http://x/y.png"]
)
def test_what_is_no_picture_is_422(served: Served, image: str) -> None:
    for path in ("png-info", "extra-single-image"):
        error = served.post(f"{ROOT}/{path}", 422, image=image, upscaler_1="Lanczos")
        assert set(error) == {"error", "detail", "body", "errors"}


def test_extras_enlarge_and_keep_what_the_file_says(served: Served) -> None:
    image = served.post(f"{ROOT}/txt2img", prompt="чашка", seed=7, width=64, height=64)["images"][0]
    said = served.post(
        f"{ROOT}/extra-single-image", image=image, upscaler_1="Lanczos", upscaling_resize=1.5, gfpgan_visibility=1
    )
    data = base64.b64decode(said["image"])
    assert pixels_of(data).shape == (96, 96, 4) and "faces" in said["html_info"]
    assert Image.open(io.BytesIO(data)).info["parameters"].startswith("чашка")
    assert b"trainedAlgorithmicMedia" in data
    cropped = served.post(
        f"{ROOT}/extra-single-image",
        image=image,
        upscaler_1="Nearest",
        resize_mode=1,
        upscaling_resize_w=128,
        upscaling_resize_h=64,
    )
    assert from_base64(cropped["image"]).shape == (64, 128, 4)
    same = served.post(f"{ROOT}/extra-single-image", image=image)
    assert same["image"] == image


def test_extras_of_many(served: Served) -> None:
    given = [{"data": to_base64(png()), "name": f"{number}.png"} for number in range(2)]
    said = served.post(f"{ROOT}/extra-batch-images", imageList=given, upscaler_1="Nearest", upscaling_resize=2)
    assert [from_base64(text).shape for text in said["images"]] == [(48, 80, 4)] * 2
    served.post(f"{ROOT}/extra-batch-images", 422, imageList=given, upscaler_1="R-ESRGAN 4x+")
    served.post(f"{ROOT}/extra-single-image", 422, image=given[0]["data"], upscaler_1="Lanczos", upscaling_resize=0)


def test_upscalers_begin_with_the_plain_ones(served: Served) -> None:
    assert [one["name"] for one in served.get(f"{ROOT}/upscalers")][:3] == ["None", "Lanczos", "Nearest"]


@pytest.mark.parametrize(
    "name", ["hypernetworks", "face-restorers", "realesrgan-models", "extensions", "script-info", "loras", "sd-vae"]
)
def test_lists_of_what_is_not_there_are_empty(served: Served, name: str) -> None:
    assert served.get(f"{ROOT}/{name}") == []


def test_other_lists_have_a1111s_shape(served: Served) -> None:
    assert served.get(f"{ROOT}/scripts") == {"txt2img": [], "img2img": []}
    assert served.get(f"{ROOT}/embeddings") == {"loaded": {}, "skipped": {}}
    assert served.get(f"{ROOT}/memory")["ram"]["total"] > 0
    assert "Latent (nearest-exact)" in [mode["name"] for mode in served.get(f"{ROOT}/latent-upscale-modes")]
    assert {"name": "karras", "label": "Karras"}.items() <= served.get(f"{ROOT}/schedulers")[2].items()
    assert served.get("/controlnet/model_list") == {"model_list": []}


@pytest.mark.parametrize(
    "name", ["refresh-checkpoints", "refresh-vae", "refresh-embeddings", "unload-checkpoint", "reload-checkpoint"]
)
def test_orders_with_nothing_to_do_are_taken(served: Served, name: str) -> None:
    assert served.post(f"{ROOT}/{name}") in (None, {})


def test_what_is_not_available_says_so(served: Served) -> None:
    for path in (f"{ROOT}/interrogate", "/controlnet/detect"):
        error = served.post(path, 404, image=to_base64(png()), model="clip")
        assert "not available" in error["detail"] and "not available" in error["errors"]


def test_loras_and_embeddings_are_those_of_the_folder(tmp_path: Path) -> None:
    for kind, file in (("loras", "ink.safetensors"), ("embeddings", "blue.pt")):
        (tmp_path / "models" / kind).mkdir(parents=True)
        (tmp_path / "models" / kind / file).write_bytes(b"")
    with serving(tmp_path / "data", models=tmp_path / "models") as served:
        assert [one["name"] for one in served.get(f"{ROOT}/loras")] == ["ink"]
        assert list(served.get(f"{ROOT}/embeddings")["loaded"]) == ["blue"]


def test_basic_asks_for_a_name_and_takes_a_key_as_the_password(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        _, secret = served.service.store.keys.add("tablet", ("generate", "read"))
        served.service.access.changed()
        answer = served.client.get(f"{ROOT}/options")
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")
        assert set(answer.json()) == {"error", "detail", "body", "errors"}
        assert served.client.get(f"{ROOT}/options", auth=("anybody", secret)).status_code == 200
        assert served.client.get(f"{ROOT}/options", auth=("anybody", "wrong")).status_code == 401


def test_nobody_sees_or_stops_what_others_draw(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        run = Run(served, prompt="x", seed=5)
        served.waits_for(lambda: any(job.state == "running" for job in served.jobs()))
        _, secret = served.service.store.keys.add("other", ("generate", "read"))
        served.service.access.changed()
        other = ("x", secret)
        assert served.client.get(f"{ROOT}/progress", auth=other).json()["state"]["job_count"] == 0
        served.client.post(f"{ROOT}/interrupt", auth=other)
        time.sleep(0.1)
        assert any(job.state == "running" for job in served.jobs())
        gate.set()
        assert len(run.ended()["images"]) == 1


def test_a_batch_is_429_before_any_of_it_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path, submits_per_minute=5, uploads_per_minute=4) as served:
        given = [to_base64(png())] * 2
        served.post(f"{ROOT}/txt2img", prompt="x", n_iter=3)
        for path, said in (
            ("txt2img", {"n_iter": 3}),
            ("txt2img", {"batch_size": 3}),
            ("img2img", {"init_images": given, "n_iter": 2}),
            ("img2img", {"init_images": given, "mask": given[0], "batch_size": 3}),
        ):
            answer = served.client.post(f"{ROOT}/{path}", json={"prompt": "x", **said})
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1, path
            assert "more than 5 jobs" in answer.json()["detail"]
        assert len(served.jobs()) == 3 and served.service.store.pictures.count() == 3
        served.post(f"{ROOT}/img2img", prompt="x", init_images=given)  # two jobs were left
        assert len(served.jobs()) == 5
        answer = served.client.post(f"{ROOT}/txt2img", json={"prompt": "x", "n_iter": 6})
        assert answer.status_code == 422 and "at most 5 in a minute (submits_per_minute)" in answer.json()["detail"]


def test_given_pictures_are_counted_before_any_of_them_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path, uploads_per_minute=2) as served:
        picture = to_base64(png())
        larger = {"upscaler_1": "Lanczos", "imageList": [{"data": picture}] * 2}
        served.post(f"{ROOT}/png-info", image=picture)
        for path, said in (
            ("img2img", {"prompt": "x", "init_images": [picture], "mask": picture}),
            ("extra-batch-images", larger),
        ):
            answer = served.client.post(f"{ROOT}/{path}", json=said)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1, path
        assert served.jobs() == [] and served.service.store.pictures.count() == 0
        served.post(f"{ROOT}/extra-single-image", image=picture, upscaler_1="Lanczos")
        for path in ("extra-single-image", "png-info"):
            answer = served.client.post(f"{ROOT}/{path}", json={"image": picture, "upscaler_1": "Nearest"})
            assert answer.status_code == 429, path
        served.post(f"{ROOT}/extra-single-image", image=picture)  # it is left as it is, and not kept


def test_a_batch_that_the_queue_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with serving(tmp_path, max_queue=3, work=False) as served:
        served.service.submit(served.service.access.who(None), {"prompt": "waits"})
        answer = served.client.post(f"{ROOT}/txt2img", json={"prompt": "x", "n_iter": 3})
        assert answer.status_code == 429 and "1 jobs wait, and these are 3; allowed: 3" in answer.json()["detail"]
        answer = served.client.post(f"{ROOT}/txt2img", json={"prompt": "x", "n_iter": 4})
        assert answer.status_code == 422 and "allowed: at most 3 that wait" in answer.json()["detail"]
        assert len(served.jobs()) == 1


def test_nothing_may_be_said_where_the_model_draws_without_words(served: Served) -> None:
    model = {"override_settings": {"sd_model_checkpoint": "stable_diffusion-teacup"}}
    for said in ({"prompt": ""}, {}, {"prompt": "", "negative_prompt": "tea"}):
        _, info = drawn(served, seed=3, **said, **model)
        assert info["prompt"] == "" and info["negative_prompt"] == said.get("negative_prompt", "")
        (text,) = info["infotexts"]
        (again,), _ = drawn(served, infotext=text, **model)
        assert tuple(again[-1, -1]) == colour(3, 0)
    assert "prompt: '' is not possible" in served.post(f"{ROOT}/txt2img", 422, seed=3)["detail"]
