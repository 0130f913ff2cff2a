"""Checks the machine that it runs on: `python3 CHECK.pyz [--json]`, with the settings that are packed in it."""

from __future__ import annotations

import json
import pkgutil
import sys
from pathlib import Path

from aisandbox.check import Settings, print_report, run

SETTINGS = "settings.json"


def main() -> int:
    content = pkgutil.get_data("aisandbox.check", SETTINGS)
    packed = json.loads(content or b"{}")
    try:
        report = run(Path("/"), Settings.from_json(packed["settings"]), subject=packed["subject"])
    except PermissionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, "--json" in sys.argv[1:])
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
