"""Open WebUI's environment: the locked packages, the web page itself, and a changelog that starts fast."""

from __future__ import annotations

import re

from testinfra.host import Host

from tests.roles import environments

LIBRARY = f"{environments.ENVIRONMENTS}/open-webui/lib/python3.11"
PACKAGE = f"{LIBRARY}/site-packages/open_webui"


def test_the_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "open-webui", "open-webui", ["fastapi", "uvicorn"])


def test_the_page_is_built(host: Host) -> None:
    assert host.file(f"{PACKAGE}/frontend/index.html").is_file


def test_the_changelog_it_parses_holds_the_newest_release_only(host: Host) -> None:
    ours = host.file(f"{LIBRARY}/CHANGELOG.md").content_string
    whole = host.file(f"{PACKAGE}/CHANGELOG.md").content_string
    assert re.findall(r"^## .*", ours, re.MULTILINE) == re.findall(r"^## .*", whole, re.MULTILINE)[:1]
    assert whole.startswith(ours.rstrip())


def test_that_is_where_it_looks_first(host: Host) -> None:
    source = host.file(f"{PACKAGE}/env.py").content_string
    assert "changelog_path = BASE_DIR / 'CHANGELOG.md'" in source
    read = f"from pathlib import Path; print(Path('{PACKAGE}/env.py').resolve().parent.parent.parent)"
    assert host.check_output(f'python3 -c "{read}"') == LIBRARY
