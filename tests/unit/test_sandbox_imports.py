"""How the modules of `sandbox_api` lie on each other: every import goes down, and the packages have empty faces."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from aisandbox.manifest import REPOSITORY

PACKAGE = REPOSITORY / "sandbox_api"
CORE = (
    "access", "shell", "file", "code", "desktop", "browser", "entry", "util", "skills", "mcp", "system",
)  # fmt: skip
"""The capabilities, lowest first: each may use those before it."""
FLOORS = ("ground", *CORE, "services", "direct", "routers", "compat", "app", "serve", "__main__")


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


MODULES = _modules()
del MODULES["sandbox_api"]  # its version only


def _imported(path: Path) -> set[str]:
    """Modules of the package that a module imports, wherever in it: in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & MODULES.keys()


IMPORTS = {name: _imported(path) - {name} for name, path in MODULES.items()}


def _floor(name: str) -> int:
    parts = name.split(".")[1:]
    floor = parts[0] if parts[0] in FLOORS else "ground"
    if floor != "compat" and parts[-1].endswith(("router", "routes")):
        floor = "routers"
    return FLOORS.index(floor)


def test_there_is_no_import_circle() -> None:
    # Raises graphlib.CycleError, which names the circle.
    assert len(list(TopologicalSorter(IMPORTS).static_order())) == len(MODULES)


def test_nothing_imports_upwards() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if _floor(other) > _floor(name)
    ]
    assert upwards == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_the_faces_of_packages_are_empty(path: Path) -> None:
    rest = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.Expr)]
    wanted = ["__version__"] if path.parent == PACKAGE else []
    names = [target.id for node in rest if isinstance(node, ast.Assign) for target in node.targets]  # type: ignore[attr-defined]
    assert names == wanted and len(rest) == len(wanted)


def test_only_the_facade_knows_the_peers_client() -> None:
    knowing = [name for name, path in MODULES.items() if "fern" in path.read_text()]
    assert knowing == ["sandbox_api.compat.aio.errors"]
