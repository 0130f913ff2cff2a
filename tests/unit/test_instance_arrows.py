"""The folders of `aisandbox/instance` are floors: a module imports from its own folder, or from one further down."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from aisandbox.manifest import REPOSITORY

ROOT = "aisandbox.instance"
FLOORS = ("commands", "choose", "fit", "fetch", "serve", "guard", "observe", "keep", "run", "")
"""From the top down. The last is the ground: the modules beside the folders, such as `deployment` and `files`."""
TOP = {"cli", "__main__"}
"""Modules beside the folders that belong to the top floor."""


def modules() -> dict[str, ast.Module]:
    """Every module by its name below `aisandbox.instance`; a package by its own."""
    root = REPOSITORY.joinpath(*ROOT.split("."))
    return {_name(path.relative_to(root)): ast.parse(path.read_text()) for path in root.rglob("*.py")}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, known: Collection[str], anywhere: bool = True) -> Iterator[str]:
    """What a module imports of the instance, but for the types alone; `anywhere`: in functions as well."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{ROOT}."):
            package = node.module.removeprefix(ROOT).lstrip(".")
            for alias in node.names:
                whole = f"{package}.{alias.name}".lstrip(".")
                yield whole if whole in known else package
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix(f"{ROOT}.") for a in node.names if a.name.startswith(f"{ROOT}."))
        elif anywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, known, anywhere)


def floor(module: str) -> int:
    folder = module.partition(".")[0]
    return 0 if folder in TOP else FLOORS.index(folder if folder in FLOORS else "")


def arrows(anywhere: bool) -> dict[str, set[str]]:
    trees = modules()
    return {name: set(imports(tree, trees.keys(), anywhere)) - {name, ""} for name, tree in trees.items()}


def test_arrows_run_downwards() -> None:
    found = arrows(anywhere=True)
    upwards = {(name, to) for name, targets in found.items() for to in targets if floor(to) < floor(name)}
    assert not upwards, "import from a floor further down, or move what both need to the ground"


def test_there_is_no_circle() -> None:
    left = arrows(anywhere=False)
    while done := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in done}
    assert not left, "modules that import each other, and those that import them"


@pytest.mark.parametrize("module", ["serve.engine", "run.container.program", "keep.upgrade.worker"])
def test_the_standard_library_must_do(module: str) -> None:
    """For what runs in another environment than the appliance's, or before it imports anything heavy."""
    code = f"import sys, {ROOT}.{module}\nprint({{'pydantic', 'yaml'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from aisandbox.instance import files", {"files"}),
        ("from aisandbox.instance.fit import model", {"fit.model"}),
        ("from aisandbox.instance.fit.model import fetch", {"fit.model"}),
        ("import aisandbox.instance.files", {"files"}),
        ("def f():\n from aisandbox.instance import files", {"files"}),
        ("if TYPE_CHECKING:\n from aisandbox.instance import files", set()),
        ("from aisandbox.manifest import Model", set()),
    ],
)
def test_what_counts_as_an_import(text: str, found: set[str]) -> None:
    assert set(imports(ast.parse(text), {"files", "fit", "fit.model"})) == found
