"""What every test shares: which modules can be collected here, and the option that turns skips into failures.

A module whose text names ``mark.torch`` imports torch at its top and is not collected where torch is absent (the base
environment); ``mark.extra`` does the same for the rest of the extras. Nothing is skipped silently by this:
``make test`` runs both environments, the second one with everything installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# marker → the packages that must be importable for a module that carries it
NEEDS = {
    "torch": ("torch",),
    "extra": ("vtracer", "resvg_py", "tokenizers", "pymorphy3", "build", "hatchling", "importlinter", "nncf"),
}


def _absent(marker: str) -> bool:
    return any(importlib.util.find_spec(package) is None for package in NEEDS[marker])


def _not_collected() -> list[str]:
    absent = [f"mark.{marker}" for marker in NEEDS if _absent(marker)]
    modules = sorted(HERE.rglob("test_*.py")) if absent else []
    return [str(m) for m in modules if any(mark in m.read_text(encoding="utf-8") for mark in absent)]


collect_ignore = _not_collected()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test or module is a failed one (for CI)")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Two threads at most, so that timings do not depend on the machine's other work."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(2)


def _fail_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if config.getoption("--no-skips") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and --no-skips forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_skip(collector.config, report)
    return report


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Nothing is kept in the user's own folders, nor found there; pip alone goes on with what it has fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CACHE_DIR", os.environ.get("PIP_CACHE_DIR", str(cache / "pip")))
        patch.setenv("XDG_CACHE_HOME", str(own / "cache"))
        patch.setenv("XDG_DATA_HOME", str(own / "data"))
        yield


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return HERE.parent
