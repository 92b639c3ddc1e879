"""Types of fields as clients send them: numbers and flags may come as text (forms), null means that nothing was said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema

from chashka.request import shown

_WHOLE = r"^-?[0-9]{1,19}$"
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$"
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    if isinstance(value, str):
        if not re.fullmatch(_WHOLE, value.strip()):
            raise ValueError("no whole number")
        return int(value)
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    if isinstance(value, str):
        if not re.fullmatch(_NUMBER, value.strip()):
            raise ValueError("no number")
        return float(value)
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError("neither true nor false")


def whole(low: int = -(2**63), high: int = 2**63 - 1) -> Any:
    """A whole number from ``low`` to ``high``, also as text; for annotations."""

    def within(value: Any) -> Any:
        number = _whole(value)
        if isinstance(number, int | float) and not low <= number <= high:
            raise ValueError(f"not from {low} to {high}")
        return number

    schema = {"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, {"type": "string", "pattern": _WHOLE}]}
    return Annotated[int, BeforeValidator(within), WithJsonSchema(schema)]


def number(low: float = -1e12, high: float = 1e12) -> Any:
    """A finite number from ``low`` to ``high``, also as text; for annotations."""

    def within(value: Any) -> Any:
        given = _number(value)
        if isinstance(given, int | float) and not low <= given <= high:  # NaN is in no range
            raise ValueError(f"not from {low:g} to {high:g}")
        return given

    schema = {"anyOf": [{"type": "number", "minimum": low, "maximum": high}, {"type": "string", "pattern": _NUMBER}]}
    return Annotated[float, BeforeValidator(within), WithJsonSchema(schema)]


Flag: TypeAlias = Annotated[
    bool,
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["true", "false"]}]}),
]
"""True or false, also as text."""


class Body(BaseModel):
    """What a client sent. A field that is None was not said; fields of no name here are kept apart (``unknown``)."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def said(self) -> dict[str, Any]:
        """The known fields that were said."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def unknown(self) -> list[str]:
        """Names of fields that are not known here and that say something, sorted."""
        extra = self.model_extra or {}
        return sorted(name for name, value in extra.items() if value not in (None, "", [], {}, False))


BodyT = TypeVar("BodyT", bound=Body)


class FieldError(Exception):
    """A field is wrong. param: its name, "" for the body as a whole. place: its path, for clients that want it."""

    def __init__(self, param: str, message: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.param, self.place = param, place


def parsed(model: type[BodyT], values: Any) -> BodyT:
    """``values``, what JSON or a form said, as ``model``. Raises FieldError: one line with field and value."""
    if not isinstance(values, Mapping):
        raise FieldError("", "the body is not possible; allowed: a JSON object")
    try:
        return model.model_validate({str(name): value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = tuple(part for part in first["loc"] if not str(part).startswith("function-"))
        name = str(place[0]) if place else ""
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise FieldError(name, f"{name}: missing; it is needed", place) from None
        raise FieldError(name, f"{name}: {shown(first['input'])} is not possible: {why}", place) from None


def schema(model: type[Body]) -> dict[str, Any]:
    """JSON Schema of a body for the OpenAPI document, without references."""
    whole_schema = model.model_json_schema()
    kept = whole_schema.pop("$defs", {})
    return _inlined(whole_schema, kept)  # type: ignore[no-any-return]


def _inlined(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_inlined(one, known) for one in value]
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(known[value["$ref"].rpartition("/")[2]], known)
        return {name: _inlined(one, known) for name, one in value.items()}
    return value
