"""The server's guide: its requests do what they say, and its flags exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chashka.cli import main
from served import HOST, Served, curl, png, serving

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "server.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)).splitlines()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


def test_every_request_of_the_guide_works(served: Served) -> None:
    start = served.upload(png())
    values = {"CHASHKA": HOST, "JOB": served.drawn()["id"], "PICTURE": start["id"], "KEY": "chk_none"}
    requests = [line for line in BLOCKS if line.startswith("curl ")]
    assert len(requests) >= 7
    for line in requests:
        answer = curl(served, line, values)
        assert answer.is_success, (line, answer.text)


def test_every_command_and_flag_of_the_guide_exists() -> None:
    lines = [line.split("#")[0].split() for line in BLOCKS if line.startswith("chashka ")]
    assert len(lines) >= 10
    for words in lines:
        command: click.Command = main
        context = click.Context(command)
        for word in words[1:]:
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            command = command.commands[word]
            context = click.Context(command, parent=context)
        assert command is not main, words
        flags = {flag for parameter in command.get_params(context) for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= flags, words
