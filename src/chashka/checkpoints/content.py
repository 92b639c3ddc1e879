"""What a file holds by its first bytes, whatever it is called: safetensors, a file of torch, or something else that people get.

Git LFS' pointers: github.com/git-lfs/git-lfs, docs/spec.md. A row of pickles, torch's layout before 1.6, begins with a number.
"""

from __future__ import annotations

import re
from pathlib import Path

from chashka.errors import WeightsError

ZIP = b"PK\x03\x04"
ROW = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The pickle of torch's magic number."""
POINTER = b"version https://git-lfs"
LOOKED_AT = 512
"""Bytes: more than a pointer has."""
SHOWN = 60


def is_safetensors(path: Path) -> bool:
    """Whether its header begins like one of safetensors. Raises WeightsError for a file that cannot be read."""
    return _safetensors(_head(path))


def is_torch(path: Path) -> bool:
    """Whether it is one of torch's two layouts. Raises WeightsError for a file that cannot be read."""
    return _torch(_head(path))


def check(path: Path, *, torch: bool = True) -> None:
    """Raises WeightsError for what is surely no file of weights, and says what it is and what to do.

    torch: whether one of torch's is welcome. Nothing is said of what only looks damaged.
    """
    head = _head(path)
    if _safetensors(head):
        return
    if _torch(head):
        if not torch:
            raise WeightsError(
                f"{path} is a file of torch, not safetensors; take the model's safetensors, or, where checkpoints of torch are "
                "read too, rename it so that it ends in .ckpt"
            )
        return
    found = _told(head)
    if found:
        raise WeightsError(f"{path} {found}")


def _told(head: bytes) -> str:
    """What it is, for people; empty where its beginning does not say it."""
    if not head:
        return "is empty; fetch it again"
    if head.startswith(POINTER):
        size = re.search(rb"^size (\d{1,20})$", head, re.MULTILINE)
        whole = f"a file of {size[1].decode()} bytes" if size else "a file"
        return f"is a pointer of Git LFS, which stands for {whole}; fetch that one: git lfs pull, or download it by its own link"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff").strip()
    if text.startswith("<"):
        return "is a web page, which a server sent in place of the file; look at it in a browser, and download it again"
    if text.startswith("{") and '"weight_map"' in text:
        return "is the index of weights in several files; give the folder that it belongs to, with all of them"
    begin = " ".join(text[:SHOWN].split())
    if begin.isprintable() and "\ufffd" not in begin:
        return f"begins with the text {begin!r}; fetch it again"
    return ""


def _safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"


def _torch(head: bytes) -> bool:
    return not _safetensors(head) and head.startswith((ZIP, ROW))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LOOKED_AT)
    except FileNotFoundError as error:
        raise WeightsError(f"the weight file {path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"cannot read the weight file {path}: {error.strerror}") from error
