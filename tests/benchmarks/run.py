"""All benchmarks, one after the other: `make bench`."""

from __future__ import annotations

import importlib
import time


def main() -> None:
    for name in ("idle", "info", "install", "memory", "stream", "wire"):
        print(f"== {name}", flush=True)
        start = time.monotonic()
        importlib.import_module(f"tests.benchmarks.{name}").main()
        print(f"({time.monotonic() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
