"""Checkpoints that several modules draw with. torch is imported by those that ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden_files import golden


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Stable Diffusions; see ``stable_file``."""
    from stable_file import write_checkpoints

    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Kandinsky 2.0 in its published layout, the network for inpainting too."""
    from published_folder import write_published

    return write_published(tmp_path_factory.mktemp("models") / "kandinsky-2.0", inpainting=True)


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """Whole runs of the original code of 2022 and 2023."""
    files = ("k20_pipelines", "k20_samplers2023")
    return {key: value for name in files for key, value in np.load(golden(f"diffusion/{name}.npz")).items()}


@pytest.fixture(scope="session")
def words() -> dict[str, Any]:
    """What the original's text encoders were given and said."""
    return dict(np.load(golden("nets/k20_text.npz")))


@pytest.fixture
def recorded_words(monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]) -> None:
    """The recorded runs had a tokenizer's stand-in: one prompt's ids, and those of the empty text."""
    from chashka.families.kandinsky import encoders

    class Recorded:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        def encode(self, texts: Any) -> tuple[Any, Any]:
            rows = [0 if text else 2 for text in texts]
            return words[f"{self.prefix}.ids"][rows], words[f"{self.prefix}.mask"][rows]

        def count(self, text: str) -> int:
            return 8 if text else 2

    monkeypatch.setattr(encoders, "roberta_words", lambda _: Recorded("enc1"))
    monkeypatch.setattr(encoders, "t5_words", lambda _: Recorded("enc2"))


@pytest.fixture
def published_bundle(published: Path, recorded_words: None) -> Any:
    from published_model import opened

    from chashka.families.kandinsky import PUBLISHED

    return opened(PUBLISHED, published)


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
