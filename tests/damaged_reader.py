"""Reads damaged copies of every file in a folder, with little memory and little time: prints how many were read and refused.

A process of its own (``test_damaged_files.py``), because it may die. Any error but chashka's own ends it.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chashka import images
from chashka.checkpoints import embedding, lora
from chashka.checkpoints.torch_file import not_finite, read_checkpoint, read_whole
from chashka.errors import ChashkaError
from chashka.images.metadata import read_metadata

SECONDS, ROOM = 5, 200 << 20
READERS: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "weights": (read_checkpoint, read_whole, not_finite),
    "lora": (lora.read,),
    "embedding": (lambda path: embedding.read(path, 8),),
    "picture": (images.read, images.read_mask, read_metadata),
}


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Bytes overwritten, cut off, doubled, moved, or lies where lengths and offsets stand."""
    content = bytearray(whole)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(content)) if chance.random() < 0.5 else chance.randrange(min(len(content), 600))
        match chance.randrange(6):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                del content[place + 1 :]
            case 2:
                content[place : place + 8] = chance.choice([b"\xff" * 8, bytes(8), (2**40).to_bytes(8, "little")])
            case 3:
                content[place:place] = content[max(place - 64, 0) : place]
            case 4:
                content[place] ^= 1 << chance.randrange(8)
            case _:
                other = chance.randrange(len(content))
                content[place : place + 16] = content[other : other + 16]
        content = content or bytearray(b"\0")
    return bytes(content)


def main(folder: Path, count: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    found: dict[str, list[int]] = {}
    for file in sorted(folder.iterdir()):
        whole, chance = file.read_bytes(), random.Random(file.name)
        copy = folder / f"damaged{file.suffix}"
        tally = found.setdefault(file.name, [0, 0])
        for _ in range(count):
            copy.write_bytes(damaged(whole, chance))
            for reader in READERS[file.name.split("-")[0]]:
                signal.alarm(SECONDS)  # not caught: whoever hangs is killed
                try:
                    reader(copy)
                    tally[0] += 1
                except ChashkaError as error:
                    tally[1] += 1
                    assert "\n" not in str(error) and 10 < len(str(error)) < 600, str(error)
                signal.alarm(0)
        copy.unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
