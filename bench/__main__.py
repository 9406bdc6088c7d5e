"""python -m bench [--small] [--data DIR] [--out DIR] [NAME ...]: tables here, and OUT/NAME.json."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from bench import common

NAMES = (
    "accuracy", "registration", "rough", "floor", "night", "latency", "steps", "ingest", "scale", "archive",
    "groups", "cluster", "drift", "enough", "fields", "page",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all when none is given"
    )
    parser.add_argument("--small", action="store_true", help="the smallest form, seconds instead of minutes")
    parser.add_argument("--data", type=Path, default=Path("run/bench/data"), help="nights are kept here")
    parser.add_argument("--out", type=Path, default=Path("run/bench"), help="the figures as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}; "
          f"load {os.getloadavg()[0]:.1f} before the start", flush=True)  # fmt: skip
    for name in chosen.names or NAMES:
        bench = importlib.import_module(f"bench.{name}")
        answer = bench.measure(chosen.data.absolute(), **(bench.SMALL if chosen.small else {}))
        (chosen.out / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
        print(f"\n== {name}: {bench.__doc__.splitlines()[0]}")
        for title, columns, rows in bench.tables(answer):
            print(common.table(title, columns, rows), flush=True)


if __name__ == "__main__":
    sys.exit(main())
