"""The OpenAPI document of the dialects, its examples, and those of docs/dialects.md: every one is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import Served, curl, png, serving
from fastapi import FastAPI

from chashka.app.dialects import a1111, openai

GUIDE = Path(__file__).parents[3] / "docs" / "dialects.md"
ROUTES = """
txt2img img2img progress interrupt skip options samplers schedulers sd-models sd-vae upscalers latent-upscale-modes loras
refresh-loras embeddings prompt-styles hypernetworks face-restorers realesrgan-models extensions cmd-flags memory scripts
script-info png-info extra-single-image extra-batch-images interrogate refresh-checkpoints refresh-vae refresh-embeddings
unload-checkpoint reload-checkpoint
"""
"""Every route of A1111's that clients are known to use."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("documents")) as running:
        yield running


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    app = FastAPI()
    app.include_router(openai.router(served.service))
    app.include_router(a1111.router(served.service))
    return app.openapi()


def files() -> dict[str, bytes]:
    mask = np.full((24, 40, 4), 255, np.uint8)
    mask[:, :20, 3] = 0
    return {"cup.png": png(), "mask.png": png(mask)}


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, said) for path, item in document["paths"].items() for method, said in item.items()]


def test_the_whole_route_table_is_there(document: dict[str, Any]) -> None:
    there = set(document["paths"])
    assert {f"/sdapi/v1/{name}" for name in ROUTES.split()} <= there
    assert {"/v1/images/generations", "/v1/images/edits", "/v1/images/variations"} <= there
    assert {"/internal/progress", "/internal/pending-tasks", "/controlnet/version", "/controlnet/detect"} <= there


def test_every_operation_says_what_it_is_and_can_answer(document: dict[str, Any]) -> None:
    names = [said["operationId"] for _, _, said in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, said in operations(document):
        assert said["summary"] and said["description"], path
        assert {"200", "401", "403"} <= set(said["responses"]), path
        assert said["x-codeSamples"][0]["source"].startswith("curl"), path
        if method == "post":
            assert {"413", "415", "422", "429"} <= set(said["responses"]), path


def test_every_example_works(served: Served, document: dict[str, Any]) -> None:
    for _, path, said in operations(document):
        answer = curl(served.client, said["x-codeSamples"][0]["source"], files())
        wanted = 404 if path in ("/sdapi/v1/interrogate", "/controlnet/detect") else 200
        assert answer.status_code == wanted, (path, answer.text)


def test_examples_of_bodies_are_what_their_schemas_allow(served: Served, document: dict[str, Any]) -> None:
    """The examples are the commands' bodies, but for pictures that a document cannot hold."""
    for method, path, said in operations(document):
        content = said.get("requestBody", {}).get("content", {})
        if "application/json" not in content or path == "/v1/images/edits":
            continue
        answer = served.client.request(method, path, json=content["application/json"]["example"])
        assert answer.status_code == 200, (path, answer.text)


def commands(text: str) -> list[str]:
    """The curl commands of a page, each with its lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("curl ")]


def test_commands_of_the_guide_work(served: Served) -> None:
    found = commands(GUIDE.read_text(encoding="utf-8"))
    assert len(found) >= 8
    picture = served.post("/v1/images/generations", prompt="a cup")["data"][0]["id"]
    for command in found:
        answer = curl(served.client, command.replace("$PICTURE", picture), files())
        assert answer.status_code == 200, (command, answer.text)
