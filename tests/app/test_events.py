"""The hub: the newest of each name stays, numbers grow, an ended state is the last thing, and nothing is kept for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from chashka.app.events import FORGET, KEEP, Happening, Hub, preview, told
from chashka.app.jobs import Job, Problem

STATE = {"state": "running"}


async def all_of(hub: Hub, job: str, after: int = 0) -> list[Happening]:
    return [one async for one in hub.listen(job, after)]


def names(found: list[Happening]) -> list[str]:
    return [one.name for one in found]


def test_who_comes_late_sees_the_newest_of_each() -> None:
    hub = Hub()
    numbers = [hub.publish("a", "state", STATE), *(hub.publish("a", "progress", {"done": i}) for i in range(5))]
    numbers += [hub.publish("a", "preview", preview(i % 2, bytes([i]))) for i in range(6)]
    assert numbers == sorted(set(numbers))
    kept = hub.newest("a")
    assert [(one.name, one.data.get("done"), one.data.get("index")) for one in kept] == [
        ("state", None, None),
        ("progress", 4, None),
        ("preview", None, 0),
        ("preview", None, 1),
    ]
    assert names(hub.newest("a", kept[1].number)) == ["preview", "preview"]


def test_the_end_is_last_and_stays() -> None:
    hub = Hub()
    hub.publish("a", "progress", {"done": 1})
    hub.publish("a", "preview", preview(0, b"x"))
    hub.publish("a", "picture", {"index": 0, "id": "pic"})
    end = hub.publish("a", "state", {"state": "done"})
    assert hub.publish("a", "progress", {"done": 2}) == 0
    assert hub.publish("a", "state", {"state": "running"}) == 0
    found = asyncio.run(all_of(hub, "a"))
    assert names(found) == ["picture", "state"] and found[-1].number == end
    assert names(asyncio.run(all_of(hub, "a", end + 1))) == ["state"]  # who knows everything still gets an end


def test_a_picture_takes_the_place_of_its_preview() -> None:
    hub = Hub()
    for i in range(2):
        hub.publish("a", "preview", preview(i, b"x"))
    hub.publish("a", "picture", {"index": 0})
    assert [(one.name, one.data["index"]) for one in hub.newest("a")] == [("preview", 1), ("picture", 0)]


def test_listening_while_threads_publish() -> None:
    hub = Hub()

    def work() -> None:
        for i in range(200):
            hub.publish("a", "progress", {"done": i + 1})
            hub.publish("a", "picture", {"index": i})
        hub.publish("a", "state", {"state": "done"})

    async def listen() -> list[list[Happening]]:
        listeners = [asyncio.ensure_future(all_of(hub, "a")) for _ in range(3)]
        await asyncio.sleep(0.01)
        thread = threading.Thread(target=work)
        thread.start()
        found = await asyncio.wait_for(asyncio.gather(*listeners), 20)
        await asyncio.to_thread(thread.join)
        return list(found)

    for found in asyncio.run(listen()):
        numbers = [one.number for one in found]
        assert numbers == sorted(set(numbers))
        assert [one.data["index"] for one in found if one.name == "picture"] == list(range(200))
        assert names(found)[-1] == "state"


def test_a_listener_that_leaves_is_forgotten() -> None:
    hub = Hub()

    async def leave() -> None:
        hub.publish("a", "state", STATE)
        listening = hub.listen("a")
        assert (await anext(listening)).name == "state"
        await listening.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    hub.publish("a", "progress", {"done": 1})  # its loop is closed
    hub.forget("a")
    assert hub.known == 0


def test_nothing_is_kept_for_ever() -> None:
    now = [0.0]
    hub = Hub(lambda: now[0])
    hub.publish("ended", "state", {"state": "failed"})
    hub.publish("waits", "state", {"state": "queued"})
    now[0] = KEEP + 11
    hub.publish("other", "state", STATE)
    assert hub.newest("ended") == [] and hub.known == 2
    now[0] = FORGET + 22
    hub.publish("other", "progress", {"done": 1})
    assert hub.known == 1


def test_waiting_for_work() -> None:
    hub = Hub()
    begun = time.monotonic()
    assert not hub.wait_for_work(0.05)
    assert time.monotonic() - begun >= 0.05
    hub.wake()  # between two waits: not missed
    begun = time.monotonic()
    assert hub.wait_for_work(10) and not hub.wait_for_work(0.01)
    threading.Timer(0.05, hub.wake).start()
    assert hub.wait_for_work(10) and time.monotonic() - begun < 5


@pytest.mark.parametrize("problem", [None, Problem("hung", "it hung")])
def test_what_a_state_tells(problem: Problem | None) -> None:
    job = Job(
        "job", "draw", "me", "failed", {}, {}, {}, 0.0, attempts=2, problem=problem, notes=("a",), result={"b": 1}
    )
    expected: dict[str, Any] = {"state": "failed", "done": 0, "total": 0, "attempts": 2, "stop": "", "notes": ["a"]}
    said = None if problem is None else {"code": "hung", "message": "it hung"}
    assert told(job) == expected | {"problem": said, "result": {"b": 1}}
