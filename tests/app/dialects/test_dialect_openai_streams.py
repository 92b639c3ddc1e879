"""OpenAI's dialect over time: streams, failures, full queues, what is sent again, keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import Painter, Served, colour, from_base64, png, serving

from chashka.app.dialects.retries import WINDOW, Retries, digest
from chashka.app.jobs import Problem

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("openai")) as running:
        yield running


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("event: ")]
    return [(block.splitlines()[0][7:], json.loads(block.splitlines()[1][6:])) for block in blocks]


def test_a_stream_shows_pictures_as_they_form(served: Served) -> None:
    asked = {"prompt": "a cup", "seed": 3, "stream": True, "partial_images": 2, "num_inference_steps": 8}
    with served.client.stream("POST", GENERATE, json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events("".join(answer.iter_text()))
    names = [name for name, _ in found]
    assert names[-1] == "image_generation.completed" and set(names[:-1]) <= {"image_generation.partial_image"}
    assert len(names) <= 3
    assert [data["partial_image_index"] for name, data in found if name.endswith("partial_image")] == list(
        range(len(names) - 1)
    )
    last = found[-1][1]
    assert last["type"] == "image_generation.completed" and last["seed"] == 3 and last["usage"]["total_tokens"] == 0
    assert tuple(from_base64(last["b64_json"])[-1, -1]) == colour(3, 0)


def test_partial_images_come_while_it_is_drawn(tmp_path: Path) -> None:
    """With the picture held back, previews arrive before it is finished."""
    gate = threading.Event()

    class Held(Painter):
        def run(self, task: Any, stop: Any) -> Iterator[Any]:
            for number, event in enumerate(super().run(task, stop)):
                yield event
                if number == 2:
                    gate.wait(20)

    with serving(tmp_path, Held(), listen=True) as served:
        import httpx

        asked = {"prompt": "a cup", "stream": True, "partial_images": 1, "num_inference_steps": 4}
        with httpx.stream("POST", served.url + GENERATE, json=asked, timeout=30) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("event:"))
            assert first == "event: image_generation.partial_image" and not gate.is_set()
            gate.set()
            assert any(line == "event: image_generation.completed" for line in lines)


def test_edits_stream_under_their_own_names(served: Served) -> None:
    files = {"image": png()}
    answer = served.client.post(EDIT, data={"prompt": "x", "stream": "true"}, files=files, headers=served.headers)
    assert [name for name, _ in events(answer.text)] == ["image_edit.completed"]


def test_what_fails_after_work_began_is_never_sent_again(tmp_path: Path) -> None:
    with serving(tmp_path, Painter(fails=Problem("out_of_memory", "memory ran out"))) as served:
        answer = served.client.post(GENERATE, json={"prompt": "a cup"})
        assert answer.status_code == 422 and answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "out_of_memory"
        stream = served.client.post(GENERATE, json={"prompt": "a cup", "stream": True})
        assert [(name, data["error"]["code"]) for name, data in events(stream.text)] == [("error", "out_of_memory")]


def test_a_full_queue_is_429_before_anything_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path, max_queue=1, work=False) as served:
        served.service.submit(_local(served), {"prompt": "waits"})
        answer = served.client.post(GENERATE, json={"prompt": "a cup"})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error" and len(served.jobs()) == 1


def _local(served: Served) -> Any:
    return served.service.access.who(None)


RETRY = {"x-stainless-retry-count": "1"}


def test_what_is_sent_again_gets_the_job_that_it_began(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        import httpx

        asked = {"prompt": "a cup"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(served.url + GENERATE, json=asked, timeout=0.5)
        served.waits_for(lambda: len(served.jobs()) == 1)
        opened = threading.Timer(0.2, gate.set)
        opened.start()
        answer = httpx.post(served.url + GENERATE, json=asked, headers=RETRY, timeout=30)
        assert answer.status_code == 200 and len(served.jobs()) == 1
        assert answer.headers["x-chashka-job"] == served.jobs()[0].id
        assert (
            served.service.store.jobs.get(served.jobs()[0].id).state == "done"
        )  # the client that went away lost nothing


def test_it_gets_that_job_after_the_server_was_started_anew(tmp_path: Path) -> None:
    """The job that goes on and the retry are one; so is a form's, whose boundary is another one."""
    import httpx

    asked, form = {"prompt": "a cup"}, {"prompt": "a jar"}
    headers = {"X-Chashka": "1"}
    with serving(tmp_path, Painter(threading.Event()), listen=True) as served:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(served.url + GENERATE, json=asked, timeout=0.5)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(served.url + EDIT, data=form, files={"image": png()}, headers=headers, timeout=0.5)
        served.waits_for(lambda: len(served.jobs()) == 2)
        before = [job.id for job in served.jobs()]
    with serving(tmp_path, work=False) as served:
        retries = Retries()
        (job,) = served.service.store.jobs.of_body("local", digest("generations", "local", asked), WINDOW)
        assert not job.ended and retries.again("sum", [job]) == job
    with serving(tmp_path) as served:
        answer = served.client.post(GENERATE, json=asked, headers=RETRY)
        assert answer.status_code == 200 and answer.headers["x-chashka-job"] == before[0]
        answer = served.client.post(EDIT, data=form, files={"image": png()}, headers=headers | RETRY)
        assert answer.status_code == 200 and answer.headers["x-chashka-job"] == before[1]
        assert [job.id for job in served.jobs()] == before


def test_a_retry_is_not_taken_for_a_request_of_long_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as served:
        served.post(GENERATE, prompt="a cup")
        monkeypatch.setattr("chashka.app.dialects.openai.WINDOW", -1.0)
        served.post(GENERATE, headers=RETRY, prompt="a cup")
        assert len(served.jobs()) == 2


def test_edits_are_429_before_anything_is_kept(tmp_path: Path) -> None:
    """Neither the picture nor the mask, whichever of the two limits is reached."""
    holed = np.full((8, 8, 4), 255, np.uint8)
    holed[:4, :, 3] = 0
    parts = [("image", png()), ("mask", png(holed))]
    for number, said in enumerate(({"submits_per_minute": 1}, {"uploads_per_minute": 3})):
        with serving(tmp_path / str(number), **said) as served:
            served.form(EDIT, parts, prompt="x")
            kept = served.service.store.pictures.count()
            answer = served.client.post(EDIT, data={"prompt": "y"}, files=parts, headers=served.headers)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert served.service.store.pictures.count() == kept and len(served.jobs()) == 1


def test_a_known_key_costs_nothing_and_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, submits_per_minute=1, uploads_per_minute=1) as served:
        headers = served.headers | {"Idempotency-Key": "tea"}

        def ask(prompt: str = "x") -> Any:
            return served.client.post(EDIT, data={"prompt": prompt}, files={"image": png()}, headers=headers)

        first = ask()
        assert ask().status_code == 200 and ask().headers["x-chashka-job"] == first.headers["x-chashka-job"]
        monkeypatch.setattr(served.service.blobs, "low", lambda: True)
        assert ask().headers["x-chashka-job"] == first.headers["x-chashka-job"]
        assert ask("y").status_code == 422


def test_a_stream_says_first_how_long_it_may_take(tmp_path: Path) -> None:
    """As soon as anything was measured: seconds until it ends, before the first event."""
    import httpx

    gate = threading.Event()
    gate.set()
    with serving(tmp_path, Painter(gate), listen=True) as served:
        asked = {"prompt": "a cup", "stream": True}
        gate.clear()
        threading.Timer(0.3, gate.set).start()  # long enough for tenths of a second
        with httpx.stream("POST", served.url + GENERATE, json=asked, timeout=30) as first:
            assert "x-chashka-estimate" not in first.headers
            first.read()
        served.service._throughput = 0.0, -1e9  # measured a second later
        gate.clear()
        with httpx.stream("POST", served.url + GENERATE, json=asked, timeout=30) as second:
            assert 0 < float(second.headers["x-chashka-estimate"]) < 60
            gate.set()
            second.read()


def test_two_equal_requests_that_are_sent_again_get_each_its_own(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        asked = {"prompt": "a cup"}
        first = {served.post(GENERATE, **asked)["data"][0]["id"] for _ in range(2)}
        again = {served.post(GENERATE, headers=RETRY, **asked)["data"][0]["id"] for _ in range(2)}
        assert len(first) == 2 and again == first


def test_a_retry_of_another_body_or_of_a_failed_job_begins_a_new_one(tmp_path: Path) -> None:
    painter = Painter(fails=Problem("engine", "it broke"))
    with serving(tmp_path, painter) as served:
        served.post(GENERATE, 422, prompt="a cup")
        painter.fails = None
        served.post(GENERATE, headers=RETRY, prompt="a cup")
        served.post(GENERATE, headers=RETRY, prompt="another cup")
        assert len(served.jobs()) == 3


def test_a_form_that_is_sent_again_is_known_whatever_its_boundary(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        first = served.form(EDIT, {"image": png()}, prompt="x")["data"][0]["id"]
        answer = served.client.post(EDIT, data={"prompt": "x"}, files={"image": png()}, headers=served.headers | RETRY)
        assert answer.json()["data"][0]["id"] == first


def test_an_idempotency_key_gives_the_same_job(served: Served) -> None:
    headers = {"Idempotency-Key": "tea-1"}
    ids = {served.post(GENERATE, headers=headers, prompt="a cup")["data"][0]["id"] for _ in range(2)}
    assert len(ids) == 1
    assert served.post(GENERATE, 422, headers=headers, prompt="another")["error"]["code"] == "idempotency_key_reused"


def test_a_key_is_asked_for_in_openais_words(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        _, secret = served.service.store.keys.add("tablet", ("generate", "read"))
        served.service.access.changed()
        answer = served.client.post(GENERATE, json={"prompt": "a cup"})
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
        allowed = served.client.post(GENERATE, json={"prompt": "a cup"}, headers={"Authorization": f"Bearer {secret}"})
        assert allowed.status_code == 200
        url = allowed.json()["data"][0]["url"]
        assert served.client.get(url).status_code == 401
        assert served.client.get(url, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
