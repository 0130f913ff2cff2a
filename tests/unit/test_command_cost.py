"""What the commands that people wait for import: seconds depend on the machine, modules do not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from aisandbox.manifest import REPOSITORY
from tests.support import appliance

INSTANCE = REPOSITORY / "aisandbox" / "instance"
ABOVE_OBSERVE = ("commands", "choose", "fit", "fetch", "serve", "guard")


def imported(*arguments: str) -> set[str]:
    """The modules that a run of `aisandbox` has imported when it ends."""
    code = f"""
import sys
from aisandbox.instance.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("modules:", *sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("modules:")[2].split())


def within(modules: set[str], *packages: str) -> set[str]:
    """Those of the modules that belong to a package."""
    return {module for module in modules for package in packages if f"{module}.".startswith(f"{package}.")}


def test_help_imports_neither_manifest_nor_models_nor_rich() -> None:
    modules = imported("--help")
    assert not within(modules, "aisandbox.manifest", "pydantic", "yaml", "rich", "jinja2", "http")
    assert {module for module in within(modules, "aisandbox.instance") if "commands" not in module} == {
        "aisandbox.instance",
        "aisandbox.instance.cli",
    }


def test_status_imports_nothing_that_decides_or_downloads(tmp_path: Path) -> None:
    appliance.make(tmp_path)
    modules = imported("--root", str(tmp_path), "status")
    packages = (f"aisandbox.instance.{name}" for name in ABOVE_OBSERVE if name != "commands")
    assert not within(modules, *packages, "aisandbox.instance.observe.doctor")
    assert not within(modules, "huggingface_hub", "httpx2", "jinja2", "jeepney", "rich.markdown", "rich.traceback")
    # Our own, without those of the command line: one more is looked at before it is let in.
    assert len({module for module in within(modules, "aisandbox") if "commands" not in module}) <= 34


@pytest.mark.parametrize("file", sorted((INSTANCE / "observe").rglob("*.py")), ids=lambda file: file.stem)
def test_observing_imports_nothing_that_stands_above_it(file: Path) -> None:
    tree = ast.parse(file.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not within(names, *(f"aisandbox.instance.{name}" for name in ABOVE_OBSERVE))
