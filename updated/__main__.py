"""`updated`, and `rauc` where it is called by that name."""

from __future__ import annotations

import sys

from updated.cli.main import run


def main() -> int:
    """Entry point; returns the exit code."""
    return run(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
