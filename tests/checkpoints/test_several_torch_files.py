"""Weights in several files of torch, and the index of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints.several_files import check, read_weights
from chashka.errors import WeightsError
from parts_files import say, write_torch_parts

pytestmark = pytest.mark.torch
TENSORS = {name: np.full((2, 3), i, np.float32) for i, name in enumerate("abcde")}


def test_torchs_files_have_parts_too(tmp_path: Path) -> None:
    parts = ({name: TENSORS[name] for name in names} for names in ("ab", "cde"))
    index = write_torch_parts(tmp_path, "pytorch_model", *parts)
    check(index, torch=True)
    found = read_weights(index)
    assert all(np.array_equal(found[name], value) for name, value in TENSORS.items()) and len(found) == 5
    say(index, a="pytorch_model-00002-of-00002.bin")
    check(index)  # which opens no file of torch
    for read in (read_weights, lambda path: check(path, torch=True)):
        with pytest.raises(
            WeightsError, match=r"a is in .*00002-of-00002\.bin, which does not hold it; a is in .*00001-"
        ):
            read(index)
    say(index, a="model.safetensors")
    with pytest.raises(WeightsError, match=r"allowed: names of \.bin files in its own folder"):
        read_weights(index)
    say(index, a="pytorch_model-00001-of-00002.bin")
    part = tmp_path / "pytorch_model-00002-of-00002.bin"
    part.write_bytes(part.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"00002-of-00002\.bin: damaged, not a readable zip"):
        read_weights(index)
