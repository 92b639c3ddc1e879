"""What a server refuses, and counts."""

from __future__ import annotations

import pytest

from chashka.app.guard import policy
from chashka.errors import RefusedError


def test_refusals_are_counted() -> None:
    before = policy.counts()["minors"]
    with pytest.raises(RefusedError):
        policy.check(["голый", "ребёнок на траве"])
    policy.check(["кошка"])
    assert policy.counts()["minors"] == before + 1


def test_only_a_shared_server_asks_for_consent() -> None:
    policy.check_upload("private", False)
    policy.check_upload("shared", True)
    before = policy.counts()["consent"]
    with pytest.raises(RefusedError) as refused:
        policy.check_upload("shared", False)
    assert refused.value.rule == "consent" and policy.counts()["consent"] == before + 1
