"""The ledger adds up, and says what is a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from chashka.errors import FileError
from chashka.evaluation.ledger import Planned, embedded, ledger, read_plans


def test_it_adds_up(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.safetensors").write_bytes(b"x" * 1200)
    (tmp_path / "words.tsv").write_bytes(b"x" * 300)
    files = embedded(tmp_path)
    assert files == {"m/a.safetensors": 1200, "words.tsv": 300}
    page = ledger(files, [Planned("more", 99_000_000, "a guess")], 1000)
    assert "1,500 bytes in all, 1,200 of them weights; 0.0 %" in page.replace("0.0%", "0.0 %")
    assert "| more | 99,000,000 | a guess |" in page and "998,500 are left" in page and "1,000 bytes as it is" in page
    assert "1,500 too many" in ledger(files, [Planned("more", 100_000_000, "")])
    assert "Planned" not in ledger(files, [])


@pytest.mark.parametrize("text", ["", "[[planned]]\nname = 'x'\n", "[[planned]\n"])
def test_foreign_plans_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match="not a readable list of plans"):
        read_plans(tmp_path / "p.toml")
