"""Prints how an upgrade goes on, until it has ended. Whether anybody follows makes no difference to it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade.services import WORKER, Services
from aisandbox.instance.keep.upgrade.state import Upgrades
from aisandbox.instance.keep.upgrade.worker import PLACES

POLL_S = 0.3
PATIENCE_S = 15.0
"""How long the service may be away before it counts as gone: it is started again when it breaks off."""
EXIT = {"done": 0, "undone": 3, "broken": 4}


def follow(upgrades: Upgrades, services: Services) -> int:
    """Print what happens. Returns the exit status: 0 done, 3 undone, 4 undone in vain, 1 broken off."""
    shown, seen = 0, time.monotonic()
    while True:
        result = upgrades.result
        if upgrades.log.exists():
            text = upgrades.log.read_text(encoding="utf-8")
            if len(text) > shown:
                print(text[shown:], end="", flush=True)
                shown = len(text)
        if result:
            for line in (result["detail"], result["fix"]):
                if line and result["outcome"] != "done":
                    print(line)
            return EXIT[result["outcome"]]
        if services.active((WORKER,)):
            seen = time.monotonic()
        if time.monotonic() - seen > PATIENCE_S:
            print(f"{WORKER} has stopped. See why: sudo journalctl -u {WORKER} ; go on: sudo systemctl start {WORKER}")
            return 1
        time.sleep(POLL_S)


def main() -> None:
    base = Path(sys.argv[1])
    places = files.read_json(base / PLACES) or {}
    try:
        sys.exit(follow(Upgrades(Path("/"), Path(places["data"])), Services()))
    except KeyboardInterrupt:
        print("\nThe upgrade goes on. See: sudo aisandbox upgrade --status")
        sys.exit(130)


if __name__ == "__main__":
    main()
