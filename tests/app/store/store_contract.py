"""What every store promises about jobs, whatever the database: run by test_store_sqlite.py and test_store_postgres.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select

from chashka.app.jobs import ATTEMPTS, ENDED, Job, KeyReusedError, Problem, QueueFullError, StaleError
from chashka.app.store import Store
from chashka.app.store.schema import jobs as jobs_table
from chashka.app.store.schema import parents, pictures, words
from chashka.errors import InputError
from store_jobs import BROKEN, LONG, OVER, claim, new_job, new_picture, submit


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


class LeaseContract:
    """Claim, renew, publish, finish; and nothing of it with a fence that is over."""

    def test_a_claim_begins_an_attempt(self, store: Store) -> None:
        new = submit(store)
        assert store.jobs.claim("w", LONG, kinds=[]) is None
        job = store.jobs.claim("рабочий", LONG)
        assert job is not None
        assert (job.id, job.state, job.fence, job.attempts, job.worker) == (new.id, "running", 1, 1, "рабочий")
        assert job.started is not None and job.lease_until is not None
        assert job.lease_until - job.started == pytest.approx(LONG, abs=1)
        assert store.jobs.get(job.id) == job
        assert store.jobs.claim("w", LONG) is None

    def test_a_renewed_lease_lasts_longer(self, store: Store) -> None:
        submit(store)
        job = claim(store, OVER)
        assert store.jobs.renew(job.id, job.fence, LONG, 3, 20) == ""
        assert store.jobs.expire() == []
        now = store.jobs.get(job.id)
        assert now is not None
        assert (now.state, now.done, now.total) == ("running", 3, 20)

    def test_a_picture_is_published_with_all_that_belongs_to_it(self, store: Store) -> None:
        submit(store, parents={"init": "pic_a", "mask": "pic_b"})
        job = claim(store)
        id = store.jobs.publish(job.id, job.fence, new_picture(metadata={"prompt": "Чашка"}))
        picture = store.pictures.get(id)
        assert picture is not None
        assert (picture.job, picture.owner, picture.new) == (job.id, "anna", new_picture(metadata={"prompt": "Чашка"}))
        assert [found.id for found in store.pictures.search("ЧАШКА сто")] == [id]
        with store.database.read() as connection:
            links = connection.execute(select(parents.c.parent, parents.c.use).where(parents.c.child == id)).all()
        assert sorted(map(tuple, links)) == [("pic_a", "init"), ("pic_b", "mask")]

    def test_a_picture_is_published_once(self, store: Store) -> None:
        submit(store)
        job = claim(store)
        first = store.jobs.publish(job.id, job.fence, new_picture(0))
        assert store.jobs.publish(job.id, job.fence, new_picture(0, sha256="f" * 64)) == first
        second = store.jobs.publish(job.id, job.fence, new_picture(1))
        assert [(found.id, found.new.sha256) for found in store.pictures.of_job(job.id)] == [
            (first, f"{0:064x}"),
            (second, f"{1:064x}"),
        ]
        store.jobs.release(job.id, job.fence)
        again = claim(store)
        assert store.jobs.publish(again.id, again.fence, new_picture(0)) == first

    @pytest.mark.parametrize("state", sorted(ENDED))
    def test_an_end_is_the_end(self, store: Store, state: str) -> None:
        submit(store)
        job = claim(store)
        store.jobs.renew(job.id, job.fence, LONG, 5, 10)
        problem = BROKEN if state == "failed" else None
        ended = store.jobs.finish(job.id, job.fence, state, problem, ["как есть"], {"value": [1]})
        assert (ended.state, ended.ended, ended.problem, ended.notes) == (state, True, problem, ("как есть",))
        assert (ended.result, ended.done, ended.total, ended.lease_until) == ({"value": [1]}, 5, 10, None)
        assert ended.finished is not None and ended.started is not None and ended.finished >= ended.started
        for act in worker_acts(store, job):
            with pytest.raises(StaleError, match=job.id):
                act()
        assert store.jobs.cancel(job.id) == ended
        assert store.jobs.claim("w", LONG) is None
        assert store.jobs.requeue_all_running() == store.jobs.expire() == []
        assert store.jobs.get(job.id) == ended

    @pytest.mark.parametrize("state", ["queued", "running", "lost"])
    def test_what_is_no_end_is_refused(self, store: Store, state: str) -> None:
        submit(store)
        job = claim(store)
        with pytest.raises(InputError, match="done, failed, canceled"):
            store.jobs.finish(job.id, job.fence, state)

    def test_a_worker_that_lost_its_lease_changes_nothing(self, store: Store) -> None:
        new = submit(store)
        stale = claim(store, OVER)
        assert [job.id for job in store.jobs.expire()] == [new.id]
        for holder in ("nobody", "another"):
            if holder == "another":
                assert claim(store).fence == stale.fence + 1
            now = store.jobs.get(new.id)
            for act in worker_acts(store, stale):
                with pytest.raises(StaleError, match=new.id):
                    act()
            assert store.jobs.get(new.id) == now
        assert store.pictures.of_job(new.id) == []

    def test_a_stale_publication_leaves_no_trace(self, store: Store) -> None:
        submit(store)
        job = claim(store)
        with pytest.raises(StaleError):
            store.jobs.publish(job.id, job.fence + 1, new_picture())
        with pytest.raises(StaleError):
            store.jobs.publish("job_unknown", 0, new_picture())
        with store.database.read() as connection:
            for table in (pictures, words, parents):
                assert connection.execute(select(table)).all() == []


class RetryContract:
    """What becomes of jobs whose attempt came to nothing, and of those that are asked to stop."""

    def test_three_attempts(self, store: Store) -> None:
        new = submit(store)
        for attempt in range(1, ATTEMPTS):
            job = claim(store)
            left = store.jobs.fail_attempt(job.id, job.fence, BROKEN)
            assert (left.state, left.attempts, left.problem) == ("queued", attempt, BROKEN)
            assert (left.lease_until, left.worker) == (None, None)
        last = claim(store)
        assert last.problem == BROKEN
        failed = store.jobs.fail_attempt(last.id, last.fence, BROKEN)
        assert (failed.state, failed.attempts, failed.problem) == ("failed", ATTEMPTS, BROKEN)
        assert failed.finished is not None
        assert store.jobs.get(new.id) == failed

    def test_done_after_a_failed_attempt_has_no_problem(self, store: Store) -> None:
        submit(store)
        job = claim(store)
        store.jobs.fail_attempt(job.id, job.fence, BROKEN)
        job = claim(store)
        assert store.jobs.finish(job.id, job.fence, "done").problem is None

    @pytest.mark.parametrize("lost", ["expire", "requeue_all_running"])
    def test_a_worker_that_dies_costs_an_attempt(self, store: Store, lost: str) -> None:
        submit(store)
        for attempt in range(1, ATTEMPTS + 1):
            job = claim(store, OVER)
            (left,) = getattr(store.jobs, lost)()
            assert (left.id, left.attempts, left.fence) == (job.id, attempt, attempt)
            assert left.problem is not None
            assert left.problem.code == "worker_died"
            assert left.state == ("queued" if attempt < ATTEMPTS else "failed")
        assert store.jobs.claim("worker", LONG) is None
        other = submit(store)
        assert claim(store).id == other.id

    def test_only_leases_that_are_over_expire(self, store: Store) -> None:
        submit(store)
        submit(store)
        over, held = claim(store, OVER), claim(store, LONG)
        assert [job.id for job in store.jobs.expire()] == [over.id]
        assert [job.id for job in store.jobs.requeue_all_running()] == [held.id]

    def test_what_is_given_back_costs_nothing_and_is_next(self, store: Store) -> None:
        first = submit(store)
        submit(store)
        for _ in range(2 * ATTEMPTS):
            job = claim(store)
            assert (job.id, job.attempts) == (first.id, 1)
            back = store.jobs.release(job.id, job.fence)
            assert (back.state, back.attempts, back.lease_until, back.worker) == ("queued", 0, None, None)

    def test_a_waiting_job_is_canceled_at_once(self, store: Store) -> None:
        for how in ("now", "after"):
            job = submit(store)
            canceled = store.jobs.cancel(job.id, how)
            assert canceled.state == "canceled"
            assert canceled.finished is not None
        assert store.jobs.claim("worker", LONG) is None

    def test_a_running_job_is_asked(self, store: Store) -> None:
        submit(store)
        job = claim(store)
        assert store.jobs.cancel(job.id, "after").stop == "after"
        assert store.jobs.renew(job.id, job.fence, LONG, 1, 2) == "after"
        id = store.jobs.publish(job.id, job.fence, new_picture(0))
        assert store.jobs.cancel(job.id, "now").stop == "now"
        assert store.jobs.cancel(job.id, "after").stop == "now"
        assert store.jobs.renew(job.id, job.fence, LONG, 1, 2) == "now"
        for index in (0, 1):
            with pytest.raises(StaleError, match="asked to stop"):
                store.jobs.publish(job.id, job.fence, new_picture(index))
        assert store.jobs.finish(job.id, job.fence, "canceled").state == "canceled"
        assert [found.id for found in store.pictures.of_job(job.id)] == [id]

    def test_how_to_stop_is_one_of_two(self, store: Store) -> None:
        job = submit(store)
        with pytest.raises(InputError, match="now, after"):
            store.jobs.cancel(job.id, "soon")

    @pytest.mark.parametrize("how", ["now", "after"])
    @pytest.mark.parametrize("left", ["release", "fail_attempt", "expire", "requeue_all_running"])
    def test_a_job_that_was_asked_to_stop_does_not_begin_again(self, store: Store, how: str, left: str) -> None:
        submit(store)
        job = claim(store, OVER)
        store.jobs.cancel(job.id, how)
        acts: dict[str, Callable[[], object]] = {
            "release": lambda: store.jobs.release(job.id, job.fence),
            "fail_attempt": lambda: store.jobs.fail_attempt(job.id, job.fence, BROKEN),
            "expire": store.jobs.expire,
            "requeue_all_running": store.jobs.requeue_all_running,
        }
        acts[left]()
        now = store.jobs.get(job.id)
        assert now is not None
        assert (now.state, now.problem) == ("canceled", None)
        assert now.finished is not None


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


def worker_acts(store: Store, job: Job) -> list[Callable[[], object]]:
    """Everything that a worker can do with a job it holds."""
    return [
        lambda: store.jobs.renew(job.id, job.fence, LONG, 9, 9),
        lambda: store.jobs.publish(job.id, job.fence, new_picture(9)),
        lambda: store.jobs.finish(job.id, job.fence, "done"),
        lambda: store.jobs.release(job.id, job.fence),
        lambda: store.jobs.fail_attempt(job.id, job.fence, BROKEN),
    ]
