"""What the environment that runs this script weighs, the ten largest packages and the shipped weights.

    .venv-bench/bin/python benchmarks/install_size.py

Bytes are file sizes added up (a hard link counts once), in MB = 10^6 bytes; pip and setuptools, which come with every environment,
count. Run it where the package was installed alone: torch or the tests' packages say little about what a person who draws needs.
"""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

MB = 1e6
SHOWN = 10


def weigh(folder: Path) -> Counter[str]:
    """Bytes under ``folder``, by the first part of the path."""
    sizes: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for here, _, files in os.walk(folder):
        for name in files:
            path = Path(here) / name
            status = path.lstat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                sizes[path.relative_to(folder).parts[0]] += status.st_size
    return sizes


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    found = find_spec("chashka")
    assert found is not None and found.origin is not None
    home = Path(found.origin).parent
    sizes = weigh(packages)
    if not home.is_relative_to(packages):  # an editable install: the package itself lies elsewhere
        sizes[f"chashka ({home.parent.name}/)"] = sum(weigh(home).values())
    weights = sum(p.stat().st_size for p in home.rglob("*.safetensors"))
    total = sum(sizes.values())
    print(f"install_size: {packages}")
    print(f"  everything         {total / MB:8.1f} MB{'   (torch is installed here)' if find_spec('torch') else ''}")
    print(f"  shipped weights    {weights / MB:8.1f} MB   {100 * weights / total:5.1f} % of it")
    for name, size in sizes.most_common(SHOWN):
        print(f"  {name:18} {size / MB:8.1f} MB   {100 * size / total:5.1f} %")


if __name__ == "__main__":
    main()
