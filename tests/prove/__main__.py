"""Nothing is ever lost, nothing is done twice: tried, again and again.

    python -m tests.prove                  # every part, in full: what `make prove` calls
    python -m tests.prove crashes errors   # these
    python -m tests.prove --short          # a small share of each, as the suite does
    python -m tests.prove --seed 7         # other places, other stories

Prints what was tried and what went wrong, which must be nothing; exit 1 when something did. Parts run as
processes of their own, two at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from tests.prove.counts import KINDS, Counts


@dataclass(frozen=True)
class Part:
    """title, function of tests.prove as "module:name", how much in full and in short; whether it can be
    shared by two processes, and other arguments"""

    title: str
    function: str
    full: int
    short: int
    shares: int = 2
    more: tuple[tuple[str, float], ...] = ()


PARTS = {
    "crashes": Part("kill -9 and power cuts between two calls, once and twice", "crash:crashes", 10_000, 40),
    "errors": Part("calls of the system that fail", "crash:errors", 5000, 40),
    "damage": Part("damaged files and mutated headers", "damage:damage", 40_000, 150),
    "arrivals": Part("orders of arrival, restarts, edits, decisions", "arrival:arrivals", 1000, 10),
    "clocks": Part("clocks: an hour back, a day on, 1970", "arrival:clocks", 270, 6),
    "kills": Part("kill -9 of the program and its workers", "program:kills", 200, 3),
    "storm": Part("a storm of small frames", "program:storm", 3000, 60, 1),
    "storm while paused": Part(
        "a storm of small frames, work paused", "program:storm", 3000, 0, 1, (("paused", True),)
    ),
    "storm of large ones": Part(
        "a storm of full frames", "program:storm", 300, 0, 1, (("per_second", 5.0), ("side", 1024))
    ),
    "planted": Part("planted bugs that have to be noticed", "planted:planted", 1, 1),
}


def run_share(name: str, share: tuple[int, int], short: bool, seed: int) -> Counts:
    """In this process."""
    import importlib

    part = PARTS[name]
    module, _, function = part.function.partition(":")
    call: Callable[..., Counts] = getattr(importlib.import_module(f"tests.prove.{module}"), function)
    if name == "planted":
        return call(short=short, part=share)
    return call(part.short if short else part.full, part=share, seed=seed, **dict(part.more))


def run_part(name: str, short: bool, seed: int) -> Counts:
    """In processes of its own."""
    shares = 1 if short else PARTS[name].shares
    environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "tests.prove",
        name,
        "--seed",
        str(seed),
        *(["--short"] if short else []),
    ]
    processes = [
        subprocess.Popen(
            [*command, "--share", f"{i}/{shares}"], stdout=subprocess.PIPE, text=True, env=environment
        )
        for i in range(shares)
    ]
    counts = Counts()
    for process in processes:
        said, _ = process.communicate()
        try:
            counts.add(Counts(**json.loads(said.splitlines()[-1])))
        except (IndexError, ValueError, TypeError):
            counts.take(name, {"hung": [f"the process ended with {process.returncode}: {said[-2000:]}"]})
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="a small share of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one object a part")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no part is called {unknown[0]}")
    if given.share:
        number, _, of = given.share.partition("/")
        warnings.simplefilter("ignore", ResourceWarning)  # what is abandoned on purpose
        counts = run_share(given.parts[0], (int(number), int(of)), given.short, given.seed)
        print(json.dumps(counts.to_json(), default=str))
        return 0
    began, red = time.monotonic(), False
    if not given.json:
        print(f"{'':58}{'tried':>8}" + "".join(f"{kind:>8}" for kind in KINDS) + f"{'seconds':>9}")
    for name in given.parts or [name for name in PARTS if PARTS[name].short or not given.short]:
        counts = run_part(name, given.short, given.seed)
        red |= counts.red
        if given.json:
            print(json.dumps({"part": name, **counts.to_json()}), flush=True)
            continue
        figures = "".join(f"{getattr(counts, kind):>8}" for kind in ("tried", *KINDS))
        print(f"{PARTS[name].title:58}{figures}{counts.seconds:>9.0f}", flush=True)
        for key, value in counts.more.items():
            print(f"    {key.removeprefix('=')}: {value}")
        for sentence in counts.found[:20]:
            print(f"  ! {sentence}")
    if not given.json:
        print(f"{time.monotonic() - began:.0f} s, {'SOMETHING WENT WRONG' if red else 'all well'}")
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
