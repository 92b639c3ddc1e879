"""JSON beside weights, as other libraries write it: read as data, and never trusted to be complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chashka.errors import InputError, WeightsError


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file. Raises WeightsError for a file that is missing, no JSON or no table."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({str(error)[:100]})") from error
    if not isinstance(said, dict):
        raise WeightsError(f"{path}: is not a table")
    return said


@contextmanager
def checked(place: Path) -> Iterator[None]:
    """Turns what is missing or wrong in a configuration into a WeightsError that names the place."""
    try:
        yield
    except KeyError as error:
        raise WeightsError(f"{place}: the configuration does not say {error.args[0]}") from error
    except WeightsError:
        raise
    except (InputError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise WeightsError(f"{place}: the configuration does not fit: {error}") from error
