"""What a server refuses, counted: the rule of ``chashka.prompts.policy`` in every mode, and uploads without consent.

Nothing else is refused in the mode ``private``. In the mode ``shared`` an upload needs a tick that those who can be recognised
agreed, and refusals are noted with the sha256 of what was asked.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable

from chashka.errors import RefusedError
from chashka.prompts import policy
from chashka.prompts.policy import MINORS
from chashka.prompts.policy_words import rules

CONSENT = "consent"
_counts: Counter[str] = Counter()
_lock = threading.Lock()


def check(texts: Iterable[str]) -> None:
    """Raises RefusedError if texts that are drawn together break the rule."""
    try:
        policy.check(texts)
    except RefusedError as refused:
        _count(refused.rule)
        raise


def get_ready() -> None:
    """Read the words now, which takes half a second, and not with the first request."""
    rules()


def check_upload(mode: str, consent: bool) -> None:
    """Raises RefusedError for an upload to a shared server without the tick. mode: the setting ``policy``."""
    if mode == "shared" and not consent:
        _count(CONSENT)
        raise RefusedError(
            CONSENT,
            "consent: missing; this server is shared: say consent=true if nobody can be recognised in the picture or everybody who "
            "can has agreed",
            hashlib.sha256(b"").hexdigest(),
        )


def counts() -> dict[str, int]:
    """How often each rule refused something since the process began."""
    with _lock:
        return {rule: _counts[rule] for rule in (MINORS, CONSENT)}


def _count(rule: str) -> None:
    with _lock:
        _counts[rule] += 1
