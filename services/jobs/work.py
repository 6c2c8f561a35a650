"""The module that ran an attempt in version 0.1.0: a dispatcher of that version that is still up, or a RayJob of its, starts it."""

from __future__ import annotations

import sys

from services.jobs.runs.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
