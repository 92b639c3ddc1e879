"""``python -m chashka.app.training_process PARENT STAGE …``: the training command for jobs, nice, and gone when its parent is."""

from __future__ import annotations

import sys

from chashka.app.processes import settle_down
from chashka.training.__main__ import main

if __name__ == "__main__":
    settle_down(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
