"""The contract's tests are in modules of no test's name, once for every kind of database that runs them."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("store_contract", "worker_contract", "backup_contract", "queue_model")
