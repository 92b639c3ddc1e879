"""What the OpenAPI document says of OpenAI's routes: bodies, answers, examples that the tests run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from chashka.app.dialects.fields import schema
from chashka.app.dialects.openai_fields import MOST_PICTURES, Edit, Generation, Variation
from chashka.app.routes.errors import documented


class Datum(BaseModel):
    """A picture: ``url`` or ``b64_json``, as ``response_format`` says."""

    model_config = ConfigDict(extra="forbid")
    url: str | None = Field(None, description="where this server has it, for whoever may ask it for pictures")
    b64_json: str | None = Field(None, description="the file in base64")
    id: str
    seed: int | None
    picture: int = Field(description="its number within the seed")
    warnings: list[str] = Field(description="what differs from what was asked, a sentence each")


class Usage(BaseModel):
    """Zeros: nothing is charged for."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_tokens_details: dict[str, int]


class Answer(BaseModel):
    """Finished pictures."""

    model_config = ConfigDict(extra="forbid")
    created: int = Field(description="seconds since 1970")
    data: list[Datum]
    output_format: str
    size: str = Field(description="WIDTHxHEIGHT of the first picture")
    background: str | None = None
    quality: str | None = None
    usage: Usage
    warnings: list[str]


_FILE = {"type": "string", "format": "binary"}
_STREAM = (
    "With `stream` the answer is `text/event-stream`: `….partial_image` (`partial_images` of them), then `….completed`."
)
_ERRORS = (404, 413, 415, 422, 429, 503, 507)


JSON = "-H 'Content-Type: application/json'"
SAMPLES = {
    "generations": f"""curl $CHASHKA/v1/images/generations {JSON} \\
  -d '{{"prompt": "чашка на столе", "num_inference_steps": 2, "seed": 7}}'""",
    "edits": """curl $CHASHKA/v1/images/edits -H 'Authorization: Bearer none' \\
  -F image=@cup.png -F mask=@mask.png -F 'prompt=красная чашка' -F num_inference_steps=2""",
    "variations": """curl $CHASHKA/v1/images/variations -H 'Authorization: Bearer none' \\
  -F image=@cup.png -F num_inference_steps=2""",
}


def _document(name: str, summary: str, description: str, content: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a route. 422: the job failed after work began, which clients do not send again."""
    return {
        "summary": summary,
        "description": f"{description} {_STREAM} See docs/dialects.md.",
        "responses": {
            200: {
                "model": Answer,
                "description": "The pictures.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **documented(*_ERRORS),
        },
        "openapi_extra": {
            "requestBody": {"required": True, "content": content},
            "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": SAMPLES[name]}],
        },
    }


def _json(model: type[Generation], example: dict[str, Any], **properties: Any) -> dict[str, Any]:
    made = schema(model)
    made["properties"] = made["properties"] | properties
    return {"schema": made, "example": example}


def _form(model: type[Generation], example: dict[str, Any], files: dict[str, Any], needed: list[str]) -> dict[str, Any]:
    """The same as a form, without what only JSON says."""
    made = schema(model)
    fields = {name: value for name, value in made["properties"].items() if name not in ("images", "mask")}
    made["properties"] = fields | files
    made["required"] = sorted({*made.get("required", ()), *needed})
    return {"schema": made, "example": example}


GENERATIONS = _document(
    "generations",
    "Pictures from words",
    "OpenAI's images API. Fields of theirs that mean nothing here are accepted.",
    {
        "application/json": _json(
            Generation, {"prompt": "чашка на столе", "size": "256x256", "quality": "low", "seed": 7}
        )
    },
)
EDITS = _document(
    "edits",
    "Pictures from a picture and words",
    f"1 to {MOST_PICTURES} pictures, `image` or `image[]`; the first is edited. `mask`: transparent = draw anew.",
    {
        "multipart/form-data": _form(
            Edit,
            {"prompt": "красная чашка", "image": "(a file)", "quality": "low"},
            {"image": _FILE, "image[]": {"type": "array", "items": _FILE, "maxItems": MOST_PICTURES}, "mask": _FILE},
            ["image"],
        ),
        "application/json": _json(
            Edit,
            {"prompt": "красная чашка", "images": [{"file_id": "pic_00000000000000000000000000"}], "quality": "low"},
        ),
    },
)
VARIATIONS = _document(
    "variations",
    "Other pictures of what a picture shows",
    "For models that take pictures for words, such as the embedded one.",
    {"multipart/form-data": _form(Variation, {"image": "(a file)", "quality": "low"}, {"image": _FILE}, ["image"])},
)
