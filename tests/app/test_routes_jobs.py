"""``/v1/jobs`` over a real store and worker."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chashka.app import events
from chashka.app.guard.access import LOCAL
from chashka.app.settings import Settings
from served import Quick, Served, png, serving


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def held(tmp_path: Path, gate: threading.Event) -> Iterator[Served]:
    """A server whose runner waits before every step until ``gate`` is set."""
    with serving(tmp_path, Quick(gate=gate)) as found:
        yield found
        gate.set()


def happenings(text: str) -> list[tuple[str, Any]]:
    """(name, data) of a stream of events."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_from_submission_to_pictures(shared: Served) -> None:
    answer = shared.client.post("/v1/jobs", json={"prompt": "чашка на столе", "n": 2, "seed": 7, "steps": 2})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["fields"]["prompt"] == "чашка на столе" and job["model"] == "kandinsky-teacup"
    done = shared.ended(job["id"])
    assert done["state"] == "done" and done["problem"] is None
    assert [picture["index"] for picture in done["pictures"]] == [0, 1]
    assert done["started"] >= done["created"] and done["finished"] >= done["started"]
    for picture in done["pictures"]:
        file = shared.client.get(picture["url"])
        assert file.headers["content-type"] == "image/png" and file.content.startswith(b"\x89PNG")
        assert shared.client.get(picture["thumbnail"]).headers["content-type"] == "image/webp"


def test_a_seed_is_put_in_and_told(shared: Served) -> None:
    first, second = shared.submit(), shared.submit()
    assert isinstance(first["fields"]["seed"], int)
    assert first["fields"]["seed"] != second["fields"]["seed"]


@pytest.mark.parametrize(
    ("said", "status", "param"),
    [
        ({}, 422, "prompt"),
        ({"prompt": "x", "steps": 0}, 422, "steps"),
        ({"prompt": "x", "steps": 151}, 422, "steps"),
        ({"prompt": "x", "n": 17}, 422, "n"),
        ({"prompt": "x", "n": "2"}, 422, "n"),
        ({"prompt": "x", "fast": 1}, 422, "fast"),
        ({"prompt": "x" * 10_001}, 422, "prompt"),
        ({"prompt": "x", "colour": "red"}, 422, "colour"),
        ({"prompt": "x", "kind": "paint"}, 422, "kind"),
        ({"prompt": "x", "kind": ["draw"]}, 422, "kind"),
        ({"prompt": "x", "model": "../../etc/passwd"}, 422, "model"),
        ({"prompt": "x", "inputs": {"init": "pic_" + "0" * 26}}, 404, None),
        ({"prompt": "x", "inputs": ["pic_1"]}, 422, "inputs"),
        ({"prompt": "x", "consent": "yes"}, 422, "consent"),
        ({"prompt": "a\0b"}, 422, "prompt"),
    ],
)
def test_refusals_name_the_field(shared: Served, said: dict[str, Any], status: int, param: str | None) -> None:
    answer = shared.client.post("/v1/jobs", json=said)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert "\n" not in error["message"] and (status == 404 or "allowed" in error["message"])


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 32, b'{"n": NaN}']
)
def test_bodies_that_are_no_objects(shared: Served, body: bytes) -> None:
    answer = shared.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "input"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/sketches"])
@pytest.mark.parametrize(
    "said",
    [
        {"prompt": "{" * 500, "choices": "all"},
        {"prompt": "{" * 500, "choices": "random"},
        {"prompt": "{a|b}" * 390, "choices": "all"},
        {"prompt": "{" + "9" * 400 + "::a|b}", "choices": "random"},
        {"prompt": "[" * 1990, "model": "stable_diffusion-teacup"},
    ],
)
def test_short_prompts_that_unfold(shared: Served, path: str, said: dict[str, Any]) -> None:
    answer = shared.client.post(path, json=said)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == "prompt" and "allowed: at most" in error["message"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/sketches", "/v1/images/download", "/v1/collections", "/login"])
@pytest.mark.parametrize("levels", [33, 950, 100_000])
def test_bodies_that_are_nested_very_deep(shared: Served, path: str, levels: int) -> None:
    body = b'{"prompt": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    answer = shared.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "nested"
    assert "more than 32 deep; allowed: at most 32 levels" in answer.json()["error"]["message"]


def test_the_same_key_is_the_same_job(shared: Served) -> None:
    def ask(**said: Any) -> httpx.Response:
        return shared.client.post("/v1/jobs", json=said, headers={"Idempotency-Key": "tea"})

    first, again = ask(prompt="чай"), ask(prompt="чай")
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    other = ask(prompt="кофе")
    assert other.status_code == 422 and other.json()["error"]["code"] == "key_reused"


@pytest.mark.parametrize("per_minute", [3, Settings().submits_per_minute])
def test_a_known_key_costs_nothing(tmp_path: Path, per_minute: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, work=False, submits_per_minute=per_minute, max_queue=per_minute) as served:

        def ask(key: str, prompt: str = "чай") -> httpx.Response:
            return served.client.post("/v1/jobs", json={"prompt": prompt}, headers={"Idempotency-Key": key})

        answers = [ask("tea") for _ in range(2 * per_minute)]
        assert [answer.status_code for answer in answers] == [202] * 2 * per_minute
        assert len({answer.json()["id"] for answer in answers}) == 1
        for _ in range(per_minute - 1):
            served.submit()
        assert ask("milk").status_code == 429
        assert ask("tea").json()["id"] == answers[0].json()["id"]  # neither a full bucket nor a full queue keeps it
        monkeypatch.setattr(served.service.blobs, "low", lambda: True)
        assert ask("milk").status_code in (429, 507)
        assert ask("tea").status_code == 202 and ask("tea").json()["id"] == answers[0].json()["id"]
        other = ask("tea", "кофе")
        assert other.status_code == 422 and other.json()["error"]["code"] == "key_reused"


def test_a_key_with_a_given_picture_that_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path, work=False) as served:
        said = {"kind": "edit", "prompt": "чай", "inputs": {"init": served.upload(png())["id"]}}
        first = served.client.post("/v1/jobs", json=said, headers={"Idempotency-Key": "tea"})
        served.service.store.pictures.delete(said["inputs"]["init"])
        served.service.store.pictures.purge(-1.0)
        again = served.client.post("/v1/jobs", json=said, headers={"Idempotency-Key": "tea"})
        assert again.status_code == first.status_code == 202 and again.json()["id"] == first.json()["id"]


def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    with serving(tmp_path, work=False, max_queue=2) as served:
        served.submit(), served.submit()
        answer = served.client.post("/v1/jobs", json={"prompt": "x"})
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1


def test_too_many_submits(tmp_path: Path) -> None:
    with serving(tmp_path, work=False, submits_per_minute=3) as served:
        for _ in range(3):
            served.submit()
        answer = served.client.post("/v1/jobs", json={"prompt": "x"})
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "too_many"
        assert 1 <= int(answer.headers["retry-after"]) <= 21
        assert served.client.get("/v1/jobs").status_code == 200


def test_a_full_disk(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.blobs, "low", lambda: True)
    answer = served.client.post("/v1/jobs", json={"prompt": "x"})
    assert answer.status_code == 507 and answer.json()["error"]["code"] == "storage_full"
    assert served.client.get("/readyz").status_code == 503
    assert served.client.get("/healthz").status_code == 200


def test_lists_have_pages(tmp_path: Path) -> None:
    with serving(tmp_path, work=False) as served:
        ids = [served.submit()["id"] for _ in range(5)]
        first = served.client.get("/v1/jobs", params={"limit": 2}).json()
        second = served.client.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
        third = served.client.get("/v1/jobs", params={"limit": 2, "after": second["next"]}).json()
        assert [job["id"] for page in (first, second, third) for job in page["data"]] == ids[::-1]
        assert third["next"] is None
        assert [job["position"] for job in third["data"] + second["data"]] == [1, 3, 2]
        assert served.client.get("/v1/jobs", params={"state": "done"}).json()["data"] == []
        assert served.client.get("/v1/jobs", params={"state": "asleep"}).status_code == 422


def test_cancel_while_it_waits_and_while_it_is_drawn(held: Served, gate: threading.Event) -> None:
    running, waiting = held.submit(n=4)["id"], held.submit()["id"]
    assert held.client.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "canceled"
    while held.client.get(f"/v1/jobs/{running}").json()["state"] != "running":
        pass
    held.client.post(f"/v1/jobs/{running}/cancel", json={})
    ended = held.ended(running)
    assert ended["state"] == "canceled" and ended["pictures"] == []
    assert held.client.post(f"/v1/jobs/{running}/cancel").json()["state"] == "canceled"
    assert held.client.post(f"/v1/jobs/{running}/stop").json()["state"] == "canceled"


def test_stop_softly(tmp_path: Path) -> None:
    with serving(tmp_path, Quick(pause=0.05)) as served:
        job = served.submit(n=16, steps=4)["id"]
        while not served.client.get(f"/v1/jobs/{job}").json()["pictures"]:
            pass
        assert served.client.post(f"/v1/jobs/{job}/stop").json()["stop"] == "after"
        ended = served.ended(job)
        assert ended["state"] == "done" and 1 <= len(ended["pictures"]) < 16 and ended["notes"]


def test_move(tmp_path: Path) -> None:
    with serving(tmp_path, work=False) as served:
        a, b, c = (served.submit()["id"] for _ in range(3))
        moved = served.client.post(f"/v1/jobs/{c}/move", json={"before": a})
        assert moved.status_code == 200 and moved.json()["position"] == 1
        assert served.client.post(f"/v1/jobs/{c}/move", json={"before": None}).json()["position"] == 3
        assert served.client.post(f"/v1/jobs/{b}/move", json={"before": "job_x"}).status_code == 404
        served.client.post(f"/v1/jobs/{b}/cancel")
        assert served.client.post(f"/v1/jobs/{b}/move", json={}).status_code == 409


def test_unknown_and_foreign_ids_look_alike(shared: Served) -> None:
    for id in ("job_" + "0" * 26, "nonsense", "job_x", "pic_" + "0" * 26):
        answer = shared.client.get(f"/v1/jobs/{id}")
        assert answer.status_code == 404 and answer.json()["error"]["message"] == "there is no such job"


def test_events_of_a_job_from_its_start(shared: Served) -> None:
    job = shared.submit(n=2, steps=3)["id"]
    answer = shared.client.get(f"/v1/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = happenings(answer.text)
    names = [name for name, _ in told]
    assert names[0] == "state" and names.count("picture") == 2
    assert told[-1][0] == "state" and told[-1][1]["state"] == "done"
    assert all(data["done"] <= data["total"] for name, data in told if name == "progress")


def test_the_end_of_a_job_is_told_whenever_one_asks(served: Served) -> None:
    job = served.drawn()["id"]
    remembered = happenings(served.client.get(f"/v1/jobs/{job}/events").text)
    assert remembered[-1][1]["state"] == "done" and [name for name, _ in remembered].count("picture") == 1
    text = served.client.get(f"/v1/jobs/{job}/events").text
    last = [line for line in text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    again = served.client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})
    assert [data["state"] for _, data in happenings(again.text)] == ["done"]
    served.service.hub.forget(job)
    forgotten = happenings(served.client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "rubbish"}).text)
    assert [(name, data["state"]) for name, data in forgotten] == [("state", "done")]
    assert served.service.hub.known <= 1


def test_events_of_a_job_that_another_process_ends(tmp_path: Path) -> None:
    """Nothing is published here: the store is looked at now and then."""
    with serving(tmp_path, work=False) as served:
        job = served.submit()["id"]
        threading.Timer(0.3, served.service.store.jobs.cancel, [job, "now"]).start()
        told = happenings(served.client.get(f"/v1/jobs/{job}/events").text)
        assert told[-1][1]["state"] == "canceled"


def test_the_place_in_the_queue_is_told_while_a_job_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and when it has changed; other jobs change it, so nothing of it is published."""
    monkeypatch.setattr("chashka.app.routes.jobs._LOOK", 0.1)
    with serving(tmp_path, work=False) as served:
        first, second, third = (served.submit()["id"] for _ in range(3))
        cancel = served.service.store.jobs.cancel

        def later() -> None:
            cancel(first, "now")
            time.sleep(0.5)
            served.service._throughput = 0.5, float("inf")
            time.sleep(0.5)
            cancel(second, "now")
            time.sleep(0.5)
            cancel(third, "now")

        timer = threading.Timer(0.5, later)
        timer.start()
        text = served.client.get(f"/v1/jobs/{third}/events").text
        timer.join()
        told = happenings(text)
        assert [name for name, _ in told] == ["state", "queue", "queue", "queue", "queue", "state"]
        assert [data for name, data in told if name == "queue"] == [
            {"position": 3, "estimate": None},
            {"position": 2, "estimate": None},
            {"position": 2, "estimate": 4.0},
            {"position": 1, "estimate": 2.0},
        ]
        assert "id: " not in text  # a client that comes back has missed none of them
        ended = happenings(served.client.get(f"/v1/jobs/{third}/events", headers={"Last-Event-ID": "7"}).text)
        assert [name for name, _ in ended] == ["state"]


def test_a_job_that_is_drawn_has_no_place(held: Served, gate: threading.Event) -> None:
    job = held.submit(n=1, steps=1)["id"]
    while held.client.get(f"/v1/jobs/{job}").json()["state"] != "running":
        pass
    threading.Timer(0.2, gate.set).start()
    assert "queue" not in {name for name, _ in happenings(held.client.get(f"/v1/jobs/{job}/events").text)}


def test_missed_events_are_not_told_twice(held: Served, gate: threading.Event) -> None:
    job = held.submit(n=1, steps=1)["id"]
    while held.client.get(f"/v1/jobs/{job}").json()["state"] != "running":
        pass
    state = next(one for one in held.service.hub.newest(job) if one.name == "state")
    threading.Timer(0.2, gate.set).start()
    answer = held.client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(state.number)})
    assert [data["state"] for name, data in happenings(answer.text) if name == "state"] == ["done"]


def test_waiting_for_the_end(held: Served, gate: threading.Event) -> None:
    async def wait() -> None:
        job = held.service.submit(LOCAL, {"prompt": "x"})[0]
        assert await held.service.ended(job.id, timeout=0.2) is None
        assert await held.service.ended("job_" + "0" * 26) is None
        waiting = asyncio.ensure_future(held.service.ended(job.id))
        await asyncio.sleep(0.1)
        gate.set()
        ended = await asyncio.wait_for(waiting, 10)
        assert ended is not None and ended.state == "done"

    asyncio.run(wait())


def test_estimates_come_from_what_was_measured(tmp_path: Path) -> None:
    with serving(tmp_path, Quick(pause=0.01)) as served:
        assert served.submit()["estimate"] is None
        served.drawn()
        served.service._throughput = (0.5, float("inf"))
        with_one = served.service.estimate(served.service.store.jobs.list(limit=1)[0], None)
        assert with_one is None  # it has ended
        job = served.service.submit(LOCAL, {"prompt": "x"})[0]
        assert served.service.estimate(job, 3) == 6.0
        assert served.service.retry_after(10) == 20


def test_state_as_it_is_told_has_the_documented_fields(shared: Served) -> None:
    job = shared.service.store.jobs.get(shared.drawn()["id"])
    assert job is not None
    assert set(events.told(job)) == {"state", "done", "total", "attempts", "stop", "problem", "notes", "result"}


def test_the_client_of_these_tests_has_our_name(shared: Served) -> None:
    assert shared.client.get("/healthz").status_code == 200
    assert shared.client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
