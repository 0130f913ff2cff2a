"""Names of keys: one list of spellings for the browser and the desktop."""

from __future__ import annotations

import pytest

from sandbox_api.browser.keys import combination
from sandbox_api.desktop.keys import keysym
from sandbox_api.errors import SandboxError
from sandbox_api.keys import ALIASES, canonical


@pytest.mark.parametrize(
    ("name", "browser", "desktop"),
    [
        ("Return", "Enter", "Return"), ("esc", "Escape", "Escape"), ("Page_Down", "PageDown", "Next"),
        ("page-up", "PageUp", "Prior"), ("ArrowLeft", "ArrowLeft", "Left"), ("CTRL", "Control", "Control_L"),
        ("cmd", "Meta", "Super_L"), ("option", "Alt", "Alt_L"), ("f5", "F5", "F5"), ("a", "a", "a"), ("A", "A", "A"),
        ("ControlRight", "ControlRight", "Control_R"), ("spacebar", "Space", "space"), ("ins", "Insert", "Insert"),
    ],
)  # fmt: skip
def test_spellings(name: str, browser: str, desktop: str) -> None:
    assert (combination([name]), keysym(name)) == (browser, desktop)


def test_combinations_and_keys_that_do_not_exist() -> None:
    assert combination(["ctrl", "Shift", "A"]) == combination(["ctrl+shift+a"]) == "Control+Shift+a"
    assert combination(["-"]) == "-" and keysym("-") == "U002D" and keysym("é") == "U00E9"
    with pytest.raises(SandboxError, match="no key"):
        keysym("no such key")


def test_aliases_lead_to_a_name_at_once() -> None:
    assert all(canonical(canonical(alias)) == canonical(alias) for alias in ALIASES)
