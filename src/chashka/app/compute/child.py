"""Tasks computed in a process of its own, which is ended when it hangs or eats memory, and started again for the next task."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from chashka.app.compute import frames
from chashka.app.compute.inprocess import KINDS
from chashka.app.compute.processes import available, held, kill
from chashka.app.compute.runner import DiedError, Event, Stop, Task
from chashka.app.jobs import Problem
from chashka.app.settings import PREFIX, Settings

ASKED = 0.05
"""Seconds between two looks at whether a task is to stop."""
WATCHED = 0.1
"""Seconds between two looks at the process's memory; what it started is counted every tenth time."""
STARTING = 60.0
"""Seconds that a process may take until it takes tasks, however short ``hang`` is."""
SUSPECTS = 1000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A task in a process. heard: when its last sign of life came."""

    job: str
    events: SimpleQueue[Event | BaseException | None] = field(default_factory=SimpleQueue)
    heard: float = field(default_factory=time.monotonic)


class Child:
    """A ``Runner``. kinds: the module whose ``run(task, models, stop)`` does tasks.

    May be used by several threads; their tasks run side by side in one process and may share a model's calls. If it dies all of
    them have died; each of these jobs is then tried again with nothing beside it, so that one cannot take the others along.
    """

    def __init__(self, settings: Settings, kinds: str = KINDS) -> None:
        self._settings, self._kinds = settings, kinds
        self._limit = available(settings.memory)
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._room = _Room()
        self._slots = settings.slots or 1

    @property
    def slots(self) -> int:
        process = self._process
        if process is not None:
            self._slots = max(self._slots, process.slots)
        return self._slots

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        with self._room.enter(task.job):
            try:
                yield from self._started().run(task, stop)
            except DiedError as error:
                if error.problem.code != "input":
                    self._room.suspect(task.job)
                raise

    def close(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.end(None)

    @property
    def pid(self) -> int | None:
        """The process's id, if there is one."""
        process = self._process
        return None if process is None or process.dead.is_set() else process.pid

    def _started(self) -> _Process:
        """The process, a new one if there is none."""
        with self._lock:
            if self._process is None or self._process.dead.is_set() or self._process.ending:
                self._process = _Process(self._settings, self._kinds, self._limit)
            return self._process


class _Room:
    """Tasks side by side, but those of suspects alone: jobs that ran when a process died."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._suspects: dict[str, None] = {}
        self._inside, self._alone = 0, False

    def suspect(self, job: str) -> None:
        with self._changed:
            self._suspects[job] = None
            while len(self._suspects) > SUSPECTS:
                del self._suspects[next(iter(self._suspects))]

    @contextlib.contextmanager
    def enter(self, job: str) -> Iterator[None]:
        with self._changed:
            alone = self._suspects.pop(job, ()) is None
            self._changed.wait_for(lambda: not self._alone and not (alone and self._inside))
            self._inside, self._alone = self._inside + 1, alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()


class _Process:
    """One process from its start to its end. Its own thread starts it and reads from it: Linux ends it with that thread."""

    def __init__(self, settings: Settings, kinds: str, limit: int) -> None:
        self.dead = threading.Event()
        self.ending = False
        self.pid = 0
        self.slots = 1
        self._settings, self._kinds, self._limit = settings, kinds, limit
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._tasks: dict[int, _Running] = {}
        self._last = 0
        self._takes = False
        self._problem: Problem | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        threading.Thread(target=self._live, name="child", daemon=True).start()
        self._ready.wait()

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        """See ``runner.Runner.run``."""
        running = _Running(task.job)
        with self._lock:
            if self.dead.is_set():
                raise DiedError(self._why())
            self._last += 1
            number = self._last
            self._tasks[number] = running
        told = ""
        try:
            self._send({"what": "run", "task": number, "said": frames.of_task(task)})
            while True:
                asked = stop()
                if asked and asked != told:
                    told = asked
                    self._send({"what": "stop", "task": number, "how": asked})
                try:
                    event = running.events.get(timeout=ASKED)
                except Empty:
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            with self._lock:
                left = self._tasks.pop(number, None) is not None
            if left:  # nobody wants the rest any more
                self._send({"what": "stop", "task": number, "how": "now"})

    def end(self, problem: Problem | None) -> None:
        """End the process; tasks that run in it have died of ``problem``."""
        with self._lock:
            self._problem = self._problem or problem
            self.ending = True
        if self._process is not None:
            kill(self._process)

    def _send(self, header: dict[str, Any]) -> None:
        """A dead process is noticed by the thread that reads from it."""
        assert self._process is not None
        with self._writing, contextlib.suppress(OSError, ValueError):
            frames.write(self._pipe(self._process.stdin), header)

    def _live(self) -> None:
        """Start the process, hand its frames to their tasks, and tell them when it is gone."""
        try:
            environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "chashka.app.compute.child_process", str(os.getpid()), self._kinds],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,  # not a session: niceness counts among those of one session only (autogroups)
                env=environment,
            )
            self.pid = self._process.pid
        except OSError as error:
            self._problem = Problem(
                "worker_died", f"the computing process cannot be started: {error.strerror or error}"
            )
            self.dead.set()
            self._ready.set()
            return
        process = self._process
        helpers = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._overhear)]
        for helper in helpers:
            helper.start()
        self._send({"settings": frames.of_settings(self._settings)})
        self._ready.set()
        with contextlib.suppress(OSError, ValueError):  # what is no frame: it is out of its mind
            while (frame := frames.read(self._pipe(process.stdout))) is not None:
                self._hear(*frame)
        kill(process)
        process.wait()
        with self._lock:
            self.dead.set()
            tasks, self._tasks = list(self._tasks.values()), {}
        for helper in helpers:
            helper.join()
        for running in tasks:
            running.events.put(DiedError(self._why()))
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                self._pipe(pipe).close()

    def _hear(self, header: dict[str, Any], bodies: list[bytes]) -> None:
        number = int(header["task"])
        if header["what"] == "ready":
            with self._lock:
                self._takes = True
                for one in self._tasks.values():
                    one.heard = time.monotonic()
            return
        if header["what"] == "slots":
            self.slots = int(header["number"])
            return
        if header["what"] == "bug":
            said = {"error": header["error"], "where": header["where"]}
            log.error("an error of chashka's own in the computing process", extra={"said": said})
            return
        try:
            event: Event | BaseException | None = frames.to_event(header, bodies)
        except Exception as error:  # a task that failed, handed to who waits for it
            event = error
        with self._lock:
            running = self._tasks.get(number)
            if running is None:
                return
            running.heard = time.monotonic()
            if event is None or isinstance(event, BaseException):
                del self._tasks[number]
        running.events.put(event)

    def _watch(self) -> None:
        """End the process when it holds too much memory, or a task in it gave no sign of life for too long."""
        turn = 0
        while not self.dead.wait(WATCHED):
            turn += 1
            size = held(self.pid, family=turn % 10 == 0)
            if size > self._limit:
                limit = f"{self._limit / 1e6:,.0f} MB"
                self.end(
                    Problem("out_of_memory", f"it needed {size / 1e6:,.0f} MB and more; allowed: {limit} (memory)")
                )
                return
            with self._lock:
                oldest = min((running.heard for running in self._tasks.values()), default=time.monotonic())
                patience = self._settings.hang if self._takes else max(self._settings.hang, STARTING)
            if time.monotonic() - oldest > patience:
                self.end(Problem("hung", f"it gave no sign of life for {self._settings.hang:g} s (hang)"))
                return

    def _overhear(self) -> None:
        """What the process and the libraries in it print: they may quote a prompt, so that it is seen at the level debug alone."""
        assert self._process is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._pipe(self._process.stderr):
                text = line.decode("utf-8", "replace").rstrip()
                log.debug("child %d: %s", self.pid, text)

    def _why(self) -> Problem:
        """Why the process ended."""
        if self._problem is not None:
            return self._problem
        code = None if self._process is None else self._process.returncode
        how = f"with exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        log.warning("the computing process ended %s", how)
        return Problem("worker_died", f"the computing process ended {how}")

    @staticmethod
    def _pipe(pipe: Any) -> BinaryIO:
        assert pipe is not None
        found: BinaryIO = pipe
        return found
