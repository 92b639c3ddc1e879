"""What every store promises about jobs, whatever the database: run by test_store_sqlite.py and test_store_postgres.py."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select

from chashka.app.jobs import Job, KeyReusedError, Problem, QueueFullError
from chashka.app.store import Store
from chashka.app.store.schema import jobs as jobs_table
from chashka.errors import InputError
from store_jobs import BROKEN, LONG, claim, new_job, new_picture, submit


def order(store: Store) -> list[str]:
    """Claim everything; the ids in the order they came."""
    found = []
    while (job := store.jobs.claim("worker", LONG)) is not None:
        found.append(job.id)
    return found


class AcceptContract:
    """Submitting, looking, listing."""

    def test_what_is_submitted_is_kept(self, store: Store) -> None:
        fields = {"prompt": "чашка 茶碗 ☕ \u0301", "seed": 2**63 - 1, "scale": 4.5, "none": None}
        new = new_job(fields=fields, inputs={"init": "a" * 64}, parents={"init": "pic_1"}, consent=True)
        before = time.time()
        job, fresh = store.jobs.submit(new, 10)
        assert fresh
        assert store.jobs.get(new.id) == job
        assert (job.id, job.kind, job.owner, job.state) == (new.id, "draw", "anna", "queued")
        assert (job.fields, job.inputs, job.parents, job.consent) == (fields, new.inputs, new.parents, True)
        assert (job.attempts, job.fence, job.stop, job.notes, job.problem, job.result) == (0, 0, "", (), None, None)
        assert abs(job.created - before) < 30
        assert (job.started, job.finished, job.lease_until, job.worker) == (None, None, None, None)

    def test_letters_stay_letters_in_the_database(self, store: Store) -> None:
        job = submit(store)
        with store.database.read() as connection:
            text = connection.exec_driver_sql(
                f"SELECT CAST(fields AS TEXT) FROM jobs WHERE id = '{job.id}'"
            ).scalar_one()
        assert "чашка" in text

    def test_signs_that_a_database_refuses_do_no_harm(self, store: Store) -> None:
        submit(store, fields={"prompt": "a\0b \ud800 c"})
        job = claim(store)
        assert job.fields["prompt"] == "a\0b \ud800 c"
        id = store.jobs.publish(job.id, job.fence, new_picture(prompt="a\0b \ud800", metadata={"prompt": "\0\ud800"}))
        picture = store.pictures.get(id)
        assert picture is not None
        assert "\0" not in picture.new.prompt
        assert picture.new.metadata == {"prompt": "\0\ud800"}
        assert store.jobs.finish(job.id, job.fence, "failed", Problem("input", "\0\udfff")).state == "failed"

    def test_the_same_key_is_the_same_job(self, store: Store) -> None:
        first, fresh = store.jobs.submit(new_job(key="k", body="1"), 10)
        again, second = store.jobs.submit(new_job(key="k", body="1"), 10)
        assert (fresh, second, again) == (True, False, first)
        with pytest.raises(KeyReusedError, match="'k'"):
            store.jobs.submit(new_job(key="k", body="2"), 10)
        other, fresh = store.jobs.submit(new_job("boris", key="k", body="2"), 10)
        assert fresh
        assert other.id != first.id
        assert store.jobs.counts()["queued"] == 2

    def test_the_same_key_is_the_same_job_when_it_has_ended(self, store: Store) -> None:
        job, _ = store.jobs.submit(new_job(key="k", body="1"), 1)
        store.jobs.cancel(job.id)
        assert store.jobs.submit(new_job(key="k", body="1"), 1) == (store.jobs.get(job.id), False)

    def test_a_key_is_looked_up_without_submitting(self, store: Store) -> None:
        job = submit(store, key="tea", body="a" * 64)
        assert store.jobs.of_key("anna", "tea", "a" * 64) == job
        assert store.jobs.of_key("boris", "tea", "a" * 64) is None and store.jobs.of_key("anna", "milk", None) is None
        with pytest.raises(KeyReusedError, match="'tea' was used for another request; use a new one"):
            store.jobs.of_key("anna", "tea", "b" * 64)

    def test_jobs_are_known_by_what_was_sent(self, store: Store) -> None:
        first, second = submit(store, body="a" * 64), submit(store, body="a" * 64)
        submit(store, body="b" * 64), submit(store, "boris", body="a" * 64), submit(store)
        assert store.jobs.of_body("anna", "a" * 64, 60.0) == [first, second]
        assert store.jobs.of_body("anna", "a" * 64, -60.0) == []
        done = claim(store)
        store.jobs.finish(done.id, done.fence, "done")
        store.jobs.cancel(second.id)
        assert [job.id for job in store.jobs.of_body("anna", "a" * 64, 60.0)] == [first.id]

    def test_parallel_submissions_of_one_key_are_one_job(self, store: Store) -> None:
        start = threading.Barrier(8)

        def go(_: int) -> tuple[Job, bool]:
            start.wait()
            return store.jobs.submit(new_job(key="k", body="1"), 10)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(go, range(8)))
        assert len({job.id for job, _ in found}) == 1
        assert [fresh for _, fresh in found].count(True) == 1
        assert store.jobs.counts()["queued"] == 1

    def test_a_full_queue_takes_no_more(self, store: Store) -> None:
        first = submit(store, limit=2, key="k")
        submit(store, limit=2)
        with pytest.raises(QueueFullError, match="allowed: 2"):
            submit(store, limit=2)
        assert submit(store, limit=2, key="k").id == first.id
        claim(store)
        submit(store, limit=2)

    def test_lists(self, store: Store) -> None:
        mine = [submit(store) for _ in range(5)]
        theirs = submit(store, "boris")
        newest = sorted(mine, key=lambda job: (job.created, job.id), reverse=True)
        assert store.jobs.list("anna") == newest
        assert store.jobs.list("anna", limit=2) == newest[:2]
        assert store.jobs.list("anna", after=newest[1].id, limit=2) == newest[2:4]
        assert store.jobs.list("anna", after=newest[4].id) == []
        assert len(store.jobs.list()) == 6
        store.jobs.cancel(theirs.id)
        assert [job.id for job in store.jobs.list(state="canceled")] == [theirs.id]
        assert store.jobs.list("anna", "canceled") == []
        with pytest.raises(InputError, match="queued, running"):
            store.jobs.list(state="lost")
        with pytest.raises(InputError, match="'job_x'"):
            store.jobs.list(after="job_x")

    def test_counts_and_throughput(self, store: Store) -> None:
        assert store.jobs.counts() == {"queued": 0, "running": 0, "done": 0, "failed": 0, "canceled": 0}
        assert store.jobs.throughput() == 0.0
        for _ in range(4):
            submit(store)
        began = time.monotonic()
        for state in ("done", "failed"):
            job = claim(store)
            store.jobs.finish(job.id, job.fence, state, BROKEN if state == "failed" else None)
        claim(store)
        assert store.jobs.counts() == {"queued": 1, "running": 1, "done": 1, "failed": 1, "canceled": 0}
        time.sleep(0.2)
        rate = store.jobs.throughput()
        assert 2 / (time.monotonic() - began + 0.1) <= rate <= 2 / 0.2

    def test_nothing_is_found_under_an_unknown_id(self, store: Store) -> None:
        assert store.jobs.get("job_unknown") is None
        assert store.jobs.position("job_unknown") is None
        for act in (store.jobs.cancel, lambda id: store.jobs.move(id, None)):
            with pytest.raises(InputError, match="job_unknown"):
                act("job_unknown")


class OrderContract:
    """Who is served next."""

    def test_first_come_first_served(self, store: Store) -> None:
        ids = [submit(store).id for _ in range(5)]
        assert [store.jobs.position(id) for id in ids] == [0, 1, 2, 3, 4]
        assert order(store) == ids
        assert store.jobs.position(ids[0]) is None

    def test_owners_take_turns(self, store: Store) -> None:
        many = [submit(store, "anna").id for _ in range(4)]
        two = [submit(store, "boris").id for _ in range(2)]
        one = submit(store, "vera").id
        expected = [many[0], two[0], one, many[1], two[1], many[2], many[3]]
        assert [store.jobs.position(id) for id in expected] == list(range(7))
        found = []
        for _ in range(7):
            found.append(claim(store).id)
            time.sleep(0.002)  # turns are told apart by the clock, which counts milliseconds
        assert found == expected

    def test_kinds_that_a_worker_cannot_do_are_left(self, store: Store) -> None:
        train, draw = submit(store, kind="train"), submit(store)
        assert store.jobs.claim("worker", LONG, kinds=["upscale"]) is None
        job = store.jobs.claim("worker", LONG, kinds=["draw", "upscale"])
        assert job is not None
        assert job.id == draw.id
        assert claim(store).id == train.id

    @pytest.mark.parametrize(("which", "before", "expected"), [(3, 0, "3012"), (0, 2, "1023"), (1, None, "0231")])
    def test_waiting_jobs_can_be_moved(self, store: Store, which: int, before: int | None, expected: str) -> None:
        ids = [submit(store).id for _ in range(4)]
        moved = store.jobs.move(ids[which], None if before is None else ids[before])
        assert moved.id == ids[which]
        assert [store.jobs.position(id) for id in (ids[int(n)] for n in expected)] == [0, 1, 2, 3]
        last = submit(store).id
        assert order(store) == [*(ids[int(n)] for n in expected), last]

    def test_moving_for_ever_keeps_the_order(self, store: Store) -> None:
        ids = [submit(store).id for _ in range(4)]
        for _ in range(60):  # halving the distance each time would have used up a float's digits
            store.jobs.move(ids[3], ids[1])
            ids[1:] = [ids[3], ids[1], ids[2]]
        store.jobs.move(ids[2], ids[2])
        assert order(store) == ids

    def test_only_what_waits_is_moved(self, store: Store) -> None:
        running, waiting = submit(store), submit(store)
        claim(store)
        for one, before in ((running, waiting), (waiting, running)):
            with pytest.raises(InputError, match="does not wait"):
                store.jobs.move(one.id, before.id)

    def test_many_workers_get_every_job_once(self, store: Store) -> None:
        ids = {submit(store, owner).id for owner in ("anna", "boris", "vera") for _ in range(10)}
        start = threading.Barrier(6)

        def work(number: int) -> list[str]:
            start.wait()
            found, idle = [], 0
            while idle < 3:
                job = store.jobs.claim(f"worker {number}", LONG)
                idle = 0 if job else idle + 1
                found += [job.id] if job else []
            return found

        with ThreadPoolExecutor(6) as pool:
            found = [id for some in pool.map(work, range(6)) for id in some]
        assert sorted(found) == sorted(ids)


class DatabaseContract:
    """Transactions, and what the store refers to."""

    def test_what_raises_is_undone(self, store: Store) -> None:
        job = submit(store)
        with pytest.raises(ZeroDivisionError), store.database.write() as connection:
            connection.execute(jobs_table.delete())
            raise ZeroDivisionError
        assert store.jobs.get(job.id) == job

    def test_readers_only_read(self, store: Store) -> None:
        job = submit(store)
        with pytest.raises(Exception, match=r"(?i)read.?only"), store.database.read() as connection:
            connection.execute(jobs_table.delete())
        assert store.jobs.get(job.id) == job

    def test_a_reader_sees_one_state(self, store: Store) -> None:
        with store.database.read() as connection:
            before = connection.execute(select(jobs_table.c.id)).all()
            submit(store)
            assert connection.execute(select(jobs_table.c.id)).all() == before == []
        assert len(store.jobs.list()) == 1

    def test_a_mistake_of_ours_is_not_hidden(self, store: Store) -> None:
        job = submit(store)
        with pytest.raises(Exception, match=r"(?i)unique"), store.database.write() as connection:
            row = connection.execute(select(jobs_table).where(jobs_table.c.id == job.id)).one()
            connection.execute(insert(jobs_table).values(dict(row._mapping)))

    def test_the_clock_is_the_databases(self, store: Store) -> None:
        with store.database.read() as connection:
            first = store.database.time(connection)
            time.sleep(0.05)
            second = connection.execute(select(store.database.now)).scalar_one()
        assert abs(first - time.time()) < 30
        assert 0.04 < second - first < 10

    def test_what_is_referred_to(self, store: Store) -> None:
        submit(store, inputs={"init": "a" * 64})
        ended = submit(store, inputs={"init": "b" * 64})
        store.jobs.cancel(ended.id)
        job = claim(store)
        store.jobs.publish(job.id, job.fence, new_picture(5))
        assert store.referenced() == {"a" * 64, f"{5:064x}", f"{1005:064x}"}
