"""The desktop: its programs run, fonts cover what pages show, and Chromium renders."""

from __future__ import annotations

import pytest
import yaml
from testinfra.host import Host

from aisandbox.manifest import REPOSITORY

ROLE = REPOSITORY / "roles" / "desktop"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
PACKAGES = {name for key in ("browser", "packages", "fonts", "tools") for name in DEFAULTS[f"desktop_{key}"]}


def test_packages_are_installed(host: Host) -> None:
    listing = host.check_output("dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\\n'")
    assert {line.split()[1] for line in listing.splitlines() if line.startswith("ii")} >= PACKAGES
    assert host.run("dpkg --audit").stdout == ""


@pytest.mark.parametrize(
    "program", ["chromium", "Xtigervnc", "openbox", "xdotool", "xclip", "scrot", "rg", "git", "g++"]
)
def test_programs_are_found(host: Host, program: str) -> None:
    assert host.exists(program)


def test_the_page_of_novnc_is_there_without_its_server(host: Host) -> None:
    assert host.file("/usr/share/novnc/vnc.html").is_file
    assert host.package("novnc").is_installed
    for name in ("nodejs", "websockify", "python3-numpy"):
        assert not host.package(name).is_installed, name


@pytest.mark.parametrize(
    ("text", "character"),
    [("Latin", "0041"), ("Chinese", "4e2d"), ("Japanese", "3042"), ("Korean", "d55c"), ("emoji", "1f600")],
)
def test_a_font_has_the_character(host: Host, text: str, character: str) -> None:
    assert host.check_output(f"fc-list ':charset={character}' family") != "", text


def test_chromium_renders_a_page(host: Host) -> None:
    page = "data:text/html,<script>document.write(6*7)</script>"
    shown = host.run(f"HOME=/tmp chromium --headless --no-sandbox --disable-gpu --dump-dom '{page}'")
    assert "42" in shown.stdout, shown.stderr
