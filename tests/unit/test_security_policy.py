"""SECURITY.md claims nothing without a test that exists, and names the manifest's address."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from aisandbox.manifest import REPOSITORY, load

POLICY = (REPOSITORY / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| (can|cannot) \| (.+) \| (.+) \|$", POLICY, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", POLICY)))


@cache
def functions(file: Path) -> frozenset[str]:
    """Names of the tests in a file."""
    tree = ast.parse(file.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name.startswith("test_") and name in functions(REPOSITORY / file)


def test_every_claim_names_a_test() -> None:
    assert len(ROWS) > 50
    for _, claim, shown in ROWS:
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", shown), claim


def test_every_line_of_a_table_of_claims_is_one() -> None:
    """Else a slip in the form of a line would hide it from the tests above."""
    claims = re.findall(r"^\| (?:can|cannot) ", POLICY, re.MULTILINE)
    assert len(claims) == len(ROWS)
    assert POLICY.count("::test_") == sum(shown.count("::test_") for _, _, shown in ROWS)


def test_reports_go_to_the_manifests_address() -> None:
    assert re.findall(r"<([^>\s]+@[^>\s]+)>", POLICY) == [load().listing.support_email]
    assert "[SECURITY.md](SECURITY.md)" in (REPOSITORY / "README.md").read_text()
