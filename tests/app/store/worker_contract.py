"""What every store promises to workers, whatever the database: leases, fences, attempts; run as store_contract.py is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from chashka.app.jobs import ATTEMPTS, ENDED, Job, StaleError
from chashka.app.store import Store
from chashka.app.store.schema import parents, pictures, words
from chashka.errors import InputError
from store_jobs import BROKEN, LONG, OVER, claim, new_picture, submit


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

    def test_the_end_says_how_far_it_came(self, store: Store) -> None:
        submit(store)
        job = claim(store)
        store.jobs.renew(job.id, job.fence, LONG, 5, 10)
        ended = store.jobs.finish(job.id, job.fence, "canceled", progress=(8, 10))
        assert (ended.done, ended.total) == (8, 10)

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


def worker_acts(store: Store, job: Job) -> list[Callable[[], object]]:
    """Everything that a worker can do with a job it holds."""
    return [
        lambda: store.jobs.renew(job.id, job.fence, LONG, 9, 9),
        lambda: store.jobs.publish(job.id, job.fence, new_picture(9)),
        lambda: store.jobs.finish(job.id, job.fence, "done"),
        lambda: store.jobs.release(job.id, job.fence),
        lambda: store.jobs.fail_attempt(job.id, job.fence, BROKEN),
    ]
