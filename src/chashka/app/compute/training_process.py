"""``python -m chashka.app.compute.training_process PARENT STAGE …``: training for jobs, nice, and gone when its parent is."""

from __future__ import annotations

import sys

from chashka.app.compute.processes import settle_down
from chashka.training.__main__ import main

if __name__ == "__main__":
    settle_down(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
