"""An example of every operation, as a command for curl: it stands in the OpenAPI document, and a test runs it.

``$CHASHKA`` is the server's address; ``$JOB``, ``$WAITING``, ``$PICTURE``, ``$COLLECTION``, ``$KEY`` and ``$KEY_ID`` are ids and
keys that a person would have by then.
"""

from __future__ import annotations

from typing import Any

from chashka.app import kinds
from chashka.request import Request

JSON = "-H 'Content-Type: application/json'"
EXAMPLES = {
    "submit": f"""curl $CHASHKA/v1/jobs {JSON} -H 'Idempotency-Key: tea-$RANDOM' \\
  -d '{{"prompt": "чашка на столе", "n": 2, "seed": 7, "steps": 2}}'""",
    "sketch": f"""curl $CHASHKA/v1/sketches {JSON} -d '{{"prompt": "чашка на столе", "seed": 7}}' -o sketch.png""",
    "jobs": "curl '$CHASHKA/v1/jobs?state=done&limit=5'",
    "job": "curl $CHASHKA/v1/jobs/$JOB",
    "cancel": "curl -X POST $CHASHKA/v1/jobs/$WAITING/cancel",
    "stop": "curl -X POST $CHASHKA/v1/jobs/$WAITING/stop",
    "move": f"curl $CHASHKA/v1/jobs/$WAITING/move {JSON} -d '{{\"before\": null}}'",
    "events": "curl -N $CHASHKA/v1/jobs/$JOB/events",
    "upload": "curl $CHASHKA/v1/images -H 'X-Chashka: 1' -F file=@cup.png",
    "pictures": "curl '$CHASHKA/v1/images?words=чашка&limit=10'",
    "picture": "curl '$CHASHKA/v1/images/$PICTURE?privacy=provenance&format=webp' -o cup.webp",
    "thumbnail": "curl $CHASHKA/v1/images/$PICTURE/thumbnail -o small.webp",
    "metadata": "curl $CHASHKA/v1/images/$PICTURE/metadata",
    "lineage": "curl $CHASHKA/v1/images/$PICTURE/lineage",
    "change": f'curl -X PATCH $CHASHKA/v1/images/$PICTURE {JSON} -d \'{{"favourite": true, "collect": ["$COLLECTION"]}}\'',
    "delete": "curl -X DELETE $CHASHKA/v1/images/$PICTURE",
    "restore": "curl -X POST $CHASHKA/v1/images/$PICTURE/restore",
    "download": f'curl $CHASHKA/v1/images/download {JSON} -d \'{{"ids": ["$PICTURE"]}}\' -o cups.zip',
    "collections": "curl $CHASHKA/v1/collections",
    "collect": f'curl $CHASHKA/v1/collections {JSON} -d \'{{"name": "Чашки $RANDOM"}}\'',
    "rename": f'curl -X PATCH $CHASHKA/v1/collections/$COLLECTION {JSON} -d \'{{"name": "Чайники $RANDOM"}}\'',
    "uncollect": "curl -X DELETE $CHASHKA/v1/collections/$COLLECTION",
    "verify": "curl $CHASHKA/v1/verify -H 'X-Chashka: 1' -F file=@cup.png",
    "models": "curl $CHASHKA/v1/models",
    "options": "curl $CHASHKA/v1/options/kandinsky",
    "limits": "curl $CHASHKA/v1/limits",
    "keys": "curl $CHASHKA/v1/keys -H 'Authorization: Bearer $KEY'",
    "key": f'curl $CHASHKA/v1/keys {JSON} -d \'{{"name": "tablet", "scopes": ["generate", "read"]}}\'',
    "revoke": "curl -X DELETE $CHASHKA/v1/keys/$KEY_ID",
    "audit": "curl '$CHASHKA/v1/audit?limit=10' -H 'Authorization: Bearer $KEY'",
    "login": f'curl $CHASHKA/login {JSON} -d \'{{"key": "$KEY"}}\' -c cookies.txt',
    "logout": "curl -X POST $CHASHKA/logout -b cookies.txt",
    "health": "curl $CHASHKA/healthz",
    "ready": "curl $CHASHKA/readyz",
    "metrics": "curl $CHASHKA/metrics",
}


def example(name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What an operation's entry in the OpenAPI document has besides; body: the schema of a JSON body that FastAPI does not know."""
    extra: dict[str, Any] = {"x-codeSamples": [{"lang": "Shell", "label": "curl", "source": EXAMPLES[name]}]}
    if body is not None:
        said = {"prompt": "чашка на столе", "n": 4, "seed": 7}
        content = {"application/json": {"schema": body, "example": said}}
        extra["requestBody"] = {"required": True, "content": content}
    return extra


def options_schema(*, job: bool = True) -> dict[str, Any]:
    """The JSON Schema of a submitted job, or of a sketch: what every model's options have; a family may have more."""
    model = {
        "type": ["string", "null"],
        "description": "a model's name (GET /v1/models); the server's default if absent",
    }
    own: dict[str, Any] = {
        "kind": {"type": "string", "enum": list(kinds.KINDS), "default": "draw", "description": "what to do"},
        "model": model,
        "inputs": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "maxProperties": 18,
            "description": "ids of pictures by their use: init, mask, picture 0, …",
        },
        "consent": {"type": "boolean", "default": False, "description": "the people in the given pictures agree"},
    }
    if not job:
        own = {"model": model}
    return {
        "type": "object",
        "description": f"A {'job' if job else 'sketch'}. Fields besides these: GET /v1/options/{{family}}.",
        "properties": {
            name: _or_null(schema) for name, schema in (own | Request.model_json_schema()["properties"]).items()
        },
        "additionalProperties": True,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or null: a field that is null was not said."""
    return {
        "anyOf": [schema, {"type": "null"}],
        **{key: schema[key] for key in ("description", "default") if key in schema},
    }
