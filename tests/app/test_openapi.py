"""The OpenAPI document: complete, and its examples do what they say."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from chashka.app.routes.examples import EXAMPLES
from served import HOST, Quick, Served, curl, png, serving

NATIVE = re.compile(r"/v1/images/(generations|edits|variations)$|/sdapi/|/internal/|/controlnet/|/sd_extra|/healthz")


@pytest.fixture(scope="module")
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, gate: threading.Event) -> Iterator[Served]:
    gate.set()
    with serving(tmp_path_factory.mktemp("openapi"), Quick(gate=gate)) as found:
        yield found
        gate.set()


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    answer = served.client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of the native API."""
    return [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not NATIVE.match(path) or path == "/healthz"
    ]


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) == len(EXAMPLES)
    assert len({operation["operationId"] for _, _, operation in found}) == len(found)
    for method, path, operation in found:
        name = f"{method} {path}"
        assert operation["summary"] and operation["description"], name
        assert operation["x-codeSamples"][0]["source"].startswith("curl "), name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if status not in ("204", "304"):
                assert all(
                    "schema" in content or media.startswith("image/") for media, content in answer["content"].items()
                )
                assert answer["content"], (name, status)
        assert {"400", "401", "403"} <= set(operation["responses"]), name
        if method in ("post", "patch", "delete"):
            assert {"413", "415", "422"} <= set(operation["responses"]), name
        else:
            assert "requestBody" not in operation, name
        if "{id}" in path:
            assert "404" in operation["responses"], name


def test_every_reference_is_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(schemas) and {"Failed", "JobShape", "PictureShape"} <= named


def test_no_prompt_field_is_forgotten(document: dict[str, Any]) -> None:
    """What a job may say is what requests have, and what every job has."""
    from chashka.request import Request

    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(Request.model_fields) | {"kind", "model", "inputs", "consent"} == set(body["properties"])


def test_every_example_does_what_it_says(served: Served, document: dict[str, Any], gate: threading.Event) -> None:
    values = {"RANDOM": "4711", "CHASHKA": HOST}
    values |= {"JOB": served.drawn(n=1)["id"], "PICTURE": served.upload(png())["id"]}
    values["COLLECTION"] = served.client.post("/v1/collections", json={"name": "Всякое"}).json()["id"]
    keys = served.service.store.keys
    values["KEY_ID"] = keys.add("to be revoked")[0].id
    _, values["KEY"] = keys.add("examples", ["admin"])
    served.service.access.changed()
    served.client.always({"authorization": f"Bearer {values['KEY']}"})
    done = set()
    for method, path, operation in operations(document):
        gate.clear()
        busy, values["WAITING"] = served.submit()["id"], served.submit()["id"]
        if path == "/v1/sketches":  # jobs go first
            gate.set()
            assert [served.ended(id)["state"] for id in (busy, values["WAITING"])] == ["done", "done"]
        answer = curl(served, operation["x-codeSamples"][0]["source"], values)
        gate.set()
        assert served.ended(busy)["state"] == "done"
        declared = operation["responses"].get(str(answer.status_code))
        assert answer.is_success and declared is not None, (method, path, answer.status_code, answer.text[:300])
        request = answer.request
        assert request.method.lower() == method
        assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path), (path, request.url.path)
        if "content" in declared:
            assert answer.headers["content-type"].partition(";")[0] in declared["content"]
        if path == "/v1/images/{id}" and method == "delete":
            served.client.post(f"/v1/images/{values['PICTURE']}/restore")
        if path == "/v1/collections/{id}" and method == "delete":
            values["COLLECTION"] = served.client.post("/v1/collections", json={"name": "Другое"}).json()["id"]
        done.add(operation["operationId"])
    assert len(done) == len(EXAMPLES)
