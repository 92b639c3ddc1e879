"""Names of jobs and pictures: a kind, then 26 signs that sort by time (the form of ULIDs, Crockford's base 32)."""

from __future__ import annotations

import re
import secrets
import time

SIGNS = "0123456789abcdefghjkmnpqrstvwxyz"
ID = re.compile(rf"[a-z]{{2,5}}_[{SIGNS}]{{26}}")


def new_id(kind: str) -> str:
    """For example ``job_01k…``: 48 bits of milliseconds, 80 of chance. It tells nothing about the machine."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{kind}_" + "".join(SIGNS[number >> 5 * place & 31] for place in range(25, -1, -1))
