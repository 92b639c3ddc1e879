"""How far brackets, choices and wildcard files may stand in one another. Every parser that calls itself asks here."""

from __future__ import annotations

from chashka.errors import InputError

DEEPEST = 16


def check(depth: int, what: str = "brackets", hint: str = "") -> None:
    """Raises InputError for a ``depth``, counted from 1, beyond ``DEEPEST``. what: is nested; hint: what else to do."""
    if depth > DEEPEST:
        raise InputError(
            f"prompt: {what} are nested more than {DEEPEST} deep; allowed: at most {DEEPEST}; take some of them out{hint}"
        )
