"""``chashka serve``, ``jobs``, ``backup`` and ``restore`` as programs: how they start, stop, and what they refuse."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import time
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from chashka.app.settings import Settings, from_mapping
from serving_process import command, running


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        info = data / "server.json"
        assert stat.S_IMODE(info.stat().st_mode) == 0o600
        said = json.loads(info.read_text())
        assert said["url"] == server.url and said["pid"] == server.process.pid and len(said["token"]) >= 40
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        second = command("serve", "--data", server.data, "--port", 0)  # one server for one folder
        assert second.returncode == 5 and str(server.process.pid) in second.stderr
        assert len(second.stderr.splitlines()) == 1
        assert json.loads(info.read_text()) == said
        assert server.ended(server.submit()["id"])["state"] == "done"
        assert server.stop() == 0
        assert not info.exists()
    lines = [json.loads(line) for line in data.with_suffix(".log").read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] != "request"] == ["serving", "draining", "stopped"]


def test_a_drain_finishes_what_is_drawn_and_keeps_what_waits(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, pause=0.2) as server:
        drawn, waits = server.submit(steps=10)["id"], server.submit()["id"]
        with httpx.stream("GET", f"{server.url}/v1/jobs/{drawn}/events", timeout=60) as stream:
            lines = stream.iter_lines()
            assert any(line == "event: progress" for line in lines)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 503
            assert httpx.post(f"{server.url}/v1/jobs", json={"prompt": "x"}, timeout=60).status_code in (202, 503)
            rest = "\n".join(lines)
        assert '"state": "done"' in rest
        assert server.process.wait(40) == 0
    with running(data) as server:
        assert server.ended(drawn)["attempts"] == 1
        assert server.ended(waits)["state"] == "done"


def test_what_cannot_end_in_time_is_drawn_again_without_losing_an_attempt(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--drain", 5, pause=0.5) as server:
        job = server.submit(steps=100)["id"]
        while httpx.get(f"{server.url}/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.05)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 15
    with running(data) as server:
        ended = server.ended(job)
        assert ended["state"] == "done" and ended["attempts"] == 1


def test_what_a_killed_server_was_drawing_is_drawn_again_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, pause=0.5) as server:
        job = server.submit(steps=100)["id"]
        while httpx.get(f"{server.url}/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.05)
        server.process.kill()
        server.process.wait(10)
        assert (data / "server.json").exists()
    with running(data) as server:
        ended = server.ended(job)
        assert ended["state"] == "done" and ended["attempts"] == 2


def test_an_exposed_server_needs_a_key(tmp_path: Path) -> None:
    refused = command("serve", "--data", tmp_path / "data", "--host", "0.0.0.0", "--port", 0)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: host: '0.0.0.0' can be reached by others") and "chashka keys add" in line
    assert not (tmp_path / "data" / "server.json").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = command("serve", "--data", tmp_path / "data", "--port", port)
    assert refused.returncode == 5 and f"port {port}" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_flags_come_before_the_environment_and_that_before_the_defaults(tmp_path: Path) -> None:
    env = {"CHASHKA_PORT": "9001", "CHASHKA_MAX_N": "3", "CHASHKA_DATA": str(tmp_path), "CHASHKA_STRICT": "no"}
    env |= {"CHASHKA_DATABASE": "postgresql://me:SECRET@localhost/x"}
    shown = command("serve", "--port", "9002", "--max-json", "2k", "--print-settings", env=env)
    assert shown.returncode == 0, shown.stderr
    said = json.loads(shown.stdout)
    assert (said["port"], said["max_n"], said["max_json"], said["max_steps"]) == (9002, 3, 2000, 150)
    assert said["data"] == str(tmp_path) and said["strict"] is False
    assert "SECRET" not in shown.stdout
    assert set(said) == {one.name for one in fields(Settings)}


@pytest.mark.parametrize(
    ("name", "text"),
    [("port", "x"), ("port", "70000"), ("policy", "open"), ("strict", "perhaps"), ("drain", "-1"), ("slots", "-1")],
)
def test_wrong_settings_are_named(name: str, text: str) -> None:
    from chashka.errors import InputError

    with pytest.raises(InputError, match=rf"^{name}: .*allowed"):
        from_mapping({name: text})


def test_a_default_model_that_does_not_exist(tmp_path: Path) -> None:
    refused = command("serve", "--data", tmp_path / "data", "--port", 0, "--model", "samovar")
    assert refused.returncode == 2 and "samovar" in refused.stderr


def test_jobs_are_looked_at_and_changed_while_a_server_runs_and_after(tmp_path: Path) -> None:
    data = ("--data", tmp_path / "data")
    with running(tmp_path / "data", pause=0.3) as server:
        first = server.submit(prompt="синяя чашка", steps=100)["id"]
        second, third = server.submit()["id"], server.submit()["id"]
        listed = command("jobs", "list", *data)
        assert [line.split()[0] for line in listed.stdout.splitlines()] == [third, second, first]
        assert "синяя чашка" in listed.stdout
        assert command("jobs", "move", third, "--before", second, *data).returncode == 0
        assert httpx.get(f"{server.url}/v1/jobs/{second}").json()["position"] == 2
        assert command("jobs", "cancel", first, *data).returncode == 0
        assert command("jobs", "cancel", second, *data).returncode == 0
        waited = command("jobs", "wait", first, *data)
        assert waited.returncode == 1 and "canceled" in waited.stdout
        assert command("jobs", "wait", third, *data).returncode == 0
        assert server.stop() == 0
        last = None
    with running(tmp_path / "data", "--drain", 3, pause=0.3) as server:
        busy, last = server.submit(steps=100)["id"], server.submit()["id"]
        assert server.stop() == 0
    assert command("jobs", "cancel", last, *data).returncode == 0
    shown = json.loads(command("jobs", "show", last, *data).stdout)
    assert shown["state"] == "canceled" and shown["id"] == last
    assert json.loads(command("jobs", "list", *data, "--state", "queued", "--json").stdout)[0]["id"] == busy
    for words in (("show", "job_" + "0" * 26), ("cancel", "nonsense"), ("show", "../../etc")):
        wrong = command("jobs", *words, *data)
        assert wrong.returncode == 2 and wrong.stderr.startswith("error: job: ")
    assert command("jobs", "list", "--data", tmp_path / "none").returncode == 5


def test_a_backup_of_a_running_server_is_restored(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        job = server.ended(server.submit(n=3)["id"])
        (server.data / "training").mkdir()
        (server.data / "made.jsonl").write_text("{}\n")
        copied = command("backup", tmp_path / "copy", "--data", server.data)
        assert copied.returncode == 0 and ", made.jsonl, " in copied.stdout, copied.stderr
        assert copied.stderr == "left out: training; copy these yourself if you need them\n"
        again = command("backup", tmp_path / "copy", "--data", server.data)
        assert again.returncode == 5 and len(again.stderr.splitlines()) == 1
        assert server.stop(signal.SIGINT) == 0  # Ctrl-C is the same
    assert command("restore", tmp_path / "copy", tmp_path / "other").returncode == 0
    assert (tmp_path / "other" / "made.jsonl").read_text() == "{}\n"
    with running(tmp_path / "other") as server:
        back = server.ended(job["id"])
        assert back["pictures"] == job["pictures"]
        for picture in back["pictures"]:
            assert httpx.get(server.url + picture["url"]).content.startswith(b"\x89PNG")


def test_the_settings_page_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = {
        row[0]: (row[1], row[2]) for row in re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    }
    assert set(rows) == {one.name for one in fields(Settings)}
    for one in fields(Settings):
        default, about = rows[one.name]
        assert about == one.metadata["help"], one.name
        if not isinstance(one.default, Path) and one.default is not None:
            text = default.strip("`")
            said = "" if text == "none" else text
            assert (
                getattr(from_mapping({one.name: said} if said or one.default in ("", ()) else {}), one.name)
                == one.default
            )
