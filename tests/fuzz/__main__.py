"""`python -m tests.fuzz`: random input for the targets, one after the other, and what broke."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback

from tests.fuzz.search import Search
from tests.fuzz.targets import TARGETS, Target


def attempt(target: Target, seconds: float, first_seed: int) -> bool:
    """Try one target. Prints what broke, with the input that did it; returns whether nothing did."""
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{target.name}: {text}", flush=True)

    say(f"{target.about}, for {seconds:g} s from seed {first_seed}")
    search = Search(seconds, first_seed, say)
    try:
        target.run(search)
    except Exception as find:
        traceback.print_exception(find, file=sys.stdout)
        say(f"FOUND after {search.tried} inputs; the input is in the lines above")
        return False
    say(f"nothing found in {search.tried} inputs, {time.monotonic() - start:.0f} s")
    return True


def main(arguments: list[str] | None = None, targets: tuple[Target, ...] = TARGETS) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    names = ", ".join(target.name for target in targets)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {names}; all")
    parser.add_argument("--seconds", type=float, default=300, help="for each target (300)")
    parser.add_argument("--seed", type=int, help="begin with this one, to repeat a run")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.targets) - {target.name for target in targets}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; the targets are {names}")
    # The finds of a run are repeated by its seed; another run looks elsewhere.
    first_seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    wanted = [target for target in targets if not chosen.targets or target.name in chosen.targets]
    # Whoever ends it early still gets the servers ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = [target.name for target in wanted if not attempt(target, chosen.seconds, first_seed)]
    except KeyboardInterrupt:
        return 130
    print(f"\n{len(wanted)} targets, {len(found)} with finds" + (f": {', '.join(found)}" if found else ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
