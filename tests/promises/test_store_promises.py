"""The store's promises at their figures: PostgreSQL, retries, migrations, backups."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from chashka.app.jobs import ENDED, Job, KeyReusedError
from chashka.app.keeping.blobs import Blobs
from chashka.app.store import NAME, Store
from chashka.app.store.backup import backup, restore
from chashka.app.store.database import Database
from chashka.app.store.migrations import MIGRATIONS, migrate, version
from chashka.app.store.schema import pictures
from postgres_server import server
from store_jobs import LONG, Process, claim, draw, faults, finish_all, new_job, submit, work
from store_migrations import FIRST, MORE, migrate_slowly, seconds_to_migrate

pytestmark = [pytest.mark.promise, pytest.mark.extra]


def kept(name: str, value: float, limit: float) -> None:
    """One line for the record; a promise that is not kept fails. Values are at most their limit."""
    good = value <= limit
    print(f"{name} {value:g} {limit:g} {'PASS' if good else 'FAIL'}", file=sys.__stdout__, flush=True)
    assert good, f"{name}: {value:g}, promised: {limit:g}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = Store.at(tmp_path / "store.sqlite3" if request.param == "sqlite" else server().new())
    yield opened
    opened.close()


def test_p8_workers_on_postgresql_are_killed(tmp_path: Path) -> None:
    """100 × kill -9 of worker processes, connections cut, the server stopped at once three times: nothing is lost."""
    kills, at_once = 100, 3
    address, folder, chance = server().new(), tmp_path / "blobs", random.Random(8)
    store, blobs = Store.at(address), Blobs(folder)
    store.database.patience = 60.0
    accepted, end = list[str](), threading.Event()

    def ask() -> None:
        while not end.is_set():
            if store.jobs.counts()["queued"] < 20:
                accepted.append(submit(store).id)
            time.sleep(0.01)

    def kill_and_start() -> None:
        workers = [Process(work, address, str(folder), 3.0) for _ in range(at_once)]
        for number in range(1, kills + 1):
            which = chance.randrange(at_once)
            workers[which].wait()
            time.sleep(chance.uniform(0.0, 0.1))
            workers[which].kill()
            if number % 30 == 0:
                server().restart()
            elif number % 10 == 0:
                server().cut()
            workers[which] = Process(work, address, str(folder), 3.0)
        for worker in workers:
            worker.wait()
            worker.kill()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            kill_and_start()
        finally:
            end.set()
        asking.result()
    finish_all(store, blobs)
    found = faults(store, blobs, accepted)
    jobs = store.jobs.list(limit=10**6)
    with store.database.read() as connection:
        rows = connection.execute(select(pictures.c.job, pictures.c.index)).all()
    blobs.sweep(store.referenced(), age=0)
    store.close()
    died = sum(job.state == "failed" for job in jobs)
    print(f"P8: {len(accepted)} jobs, {died} ended after three attempts; {found[:5]}", file=sys.__stdout__)
    assert len(accepted) >= kills
    assert died <= len(accepted) / 10
    kept("P8 postgresql_jobs_lost", len(found) + len(set(accepted) ^ {job.id for job in jobs}), 0)
    kept("P8 postgresql_jobs_not_ended", sum(job.state not in ENDED for job in jobs), 0)
    kept("P8 postgresql_pictures_twice", len(rows) - len(set(rows)), 0)


def test_p10_a_request_that_is_repeated_is_one_job(store: Store) -> None:
    """1,000 times the same key, by 32 at once; with another body it is refused."""
    times, at_once = 1000, 32
    start = threading.Barrier(at_once)

    def go(number: int) -> list[tuple[Job, bool]]:
        start.wait()
        return [store.jobs.submit(new_job(key="k", body="1"), 10) for _ in range(number, times, at_once)]

    with ThreadPoolExecutor(at_once) as pool:
        found = [answer for some in pool.map(go, range(at_once)) for answer in some]
    assert len(found) == times
    kind = store.database.kind
    kept(f"P10 {kind}_jobs_of_one_key", len({job.id for job, _ in found} | {job.id for job in store.jobs.list()}), 1)
    kept(f"P10 {kind}_told_to_be_new", sum(fresh for _, fresh in found), 1)
    refused = 0
    for _ in range(20):
        with pytest.raises(KeyReusedError):
            store.jobs.submit(new_job(key="k", body="2"), 10)
        refused += 1
    kept(f"P10 {kind}_other_bodies_accepted", 20 - refused, 0)


def test_p24_killed_while_it_is_brought_up(tmp_path: Path) -> None:
    """kill -9 within migrations: what is left opens, has every row and the copy that was made first."""
    kills, jobs = 50, 40
    path, chance, bad, seen = tmp_path / "store.sqlite3", random.Random(24), list[str](), list[int]()
    store = Store.at(path)
    ids = sorted(submit(store).id for _ in range(jobs))
    store.close()
    original = path.read_bytes()
    whole = seconds_to_migrate(path)
    for number in range(kills):
        for old in tmp_path.glob(f"{path.name}*"):
            old.unlink()
        path.write_bytes(original)
        process = Process(migrate_slowly, str(path))
        process.wait()
        time.sleep(chance.uniform(0.0, 1.3 * whole))
        process.kill()
        with closing(Database.open(path)) as database:
            seen.append(version(database))
            newest = migrate(database, (*MIGRATIONS, *MORE))
        with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(f"{path}.before-{FIRST}")) as copy:
            good = newest == MORE[-1].number
            good &= connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            good &= [
                row[0] for row in connection.execute("SELECT id FROM jobs WHERE mood LIKE 'new %' ORDER BY id")
            ] == ids
            good &= [row[0] for row in copy.execute("SELECT id FROM jobs ORDER BY id")] == ids
        if not good:
            bad.append(f"kill {number} at version {seen[-1]}")
    print(f"P24: killed at versions {sorted(set(seen))}", file=sys.__stdout__)
    assert len(set(seen)) > 1
    kept("P24 databases_that_did_not_open_whole", len(bad), 0)


def submit_times(store: Store, seconds: float) -> list[float]:
    """How long submissions take, in milliseconds, one after the other."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        submit(store, limit=10**6)
        found.append((time.perf_counter() - began) * 1000)
    return found


def p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


def test_p25_a_backup_under_load_comes_back_whole(store: Store, tmp_path: Path) -> None:
    """Jobs are submitted and drawn while copies are made; every row and file of a copy is there and right."""
    blobs, end, kind = Blobs(tmp_path / "blobs"), threading.Event(), store.database.kind
    for _ in range(100):
        submit(store)
        draw(store, blobs, claim(store))

    def go() -> None:
        while not end.is_set():
            if (job := store.jobs.claim("worker", LONG)) is not None:
                draw(store, blobs, job)

    copies = 3
    with ThreadPoolExecutor(2) as pool:
        drawing = pool.submit(go)
        try:
            before = submit_times(store, 3)
            making = pool.submit(lambda: [backup(store, blobs, tmp_path / f"copy {n}") for n in range(copies)])
            during = submit_times(store, 3)
            copied = making.result()
        finally:
            end.set()
        drawing.result()
    bad = 0
    for number in range(copies):
        restore(tmp_path / f"copy {number}", tmp_path / f"data {number}")
        with closing(Store.at(tmp_path / f"data {number}" / NAME)) as back:
            files = Blobs(tmp_path / f"data {number}" / "blobs")
            bad += len(back.referenced() - set(files.names()))
            done = back.jobs.list(state="done", limit=10**6)
            assert len(done) >= 100
            bad += len(faults(back, files, [job.id for job in done]))
        shutil.rmtree(tmp_path / f"data {number}")
    print(
        f"P25 {kind}: {copied[-1].rows} rows, {copied[-1].blobs} files; submit p95 {p95(before):.1f} ms without, "
        f"{p95(during):.1f} ms beside a backup",
        file=sys.__stdout__,
    )
    kept(f"P25 {kind}_rows_or_files_not_restored", bad, 0)
    kept(f"P25 {kind}_submit_p95_ms_beside_a_backup", p95(during), 200)
