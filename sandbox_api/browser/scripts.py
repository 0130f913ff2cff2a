"""What is run inside pages."""

from __future__ import annotations

from pathlib import Path

MOST_ELEMENTS = 500
MOST_FOUND = 200


def _source(name: str) -> str:
    """An expression of JavaScript, without the comment on its first line."""
    return Path(__file__).with_name(name).read_text().partition("\n")[2].rstrip()


_PAGE = _source("page.js")
SELECTOR_OF = f"element => {_PAGE}.selectorOf(element)"
ELEMENTS = f"most => {_PAGE}.elements(most)"
FIND_TEXT = f"wanted => {_PAGE}.findText(wanted)"
MAIN_CONTENT = f"most => {_PAGE}.mainContent(most)"
VALUE = _source("value.js")
"""A function that is called on the result of an evaluated expression."""
