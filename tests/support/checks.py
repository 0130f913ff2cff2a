"""Reports of the image check, as its command gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from aisandbox.manifest import REPOSITORY

Report = dict[str, Any]


def command(*arguments: str | Path) -> Report:
    """What `aisandbox.builder check` reports, which tells by its exit code as well."""
    argv = [sys.executable, "-m", "aisandbox.builder", "check", *map(str, arguments), "--json", "--offline"]
    result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1) and result.stdout, result.stderr
    report: Report = json.loads(result.stdout)
    assert report["failed"] == bool(result.returncode)
    return report


def having(report: Report, *states: str) -> set[str]:
    return {check["id"] for check in report["checks"] if check["status"] in states}


def findings(report: Report, check: str) -> list[str]:
    (found,) = [entry["findings"] for entry in report["checks"] if entry["id"] == check]
    return [finding["path"] for finding in found]
