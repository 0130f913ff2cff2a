"""Fixtures shared by the tests of the baked image: the image itself, and one machine booted from it.

Baking and booting take root and minutes, so both happen once, and only when a test asks for them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from aisandbox.builder import bake
from aisandbox.builder.layers import Layer, Store
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from aisandbox.builder.remote import Remote
from tests.support import machines

LISTING = "%P %i %y %m %U %G %s %T@ %l\\n"
"""What a change of a file would change, for `find -printf`."""


def pytest_configure() -> None:
    # Whoever ends the run early still gets the machines removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell's `&` has interrupts ignored, and every command of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whatever the shell has set; tests/fresh runs the commands themselves under other settings.
    os.environ["LC_ALL"] = "C.UTF-8"
    os.umask(0o022)


@pytest.fixture(scope="session")
def image() -> Layer:
    """The baked image; only layers that are not in the cache are baked."""
    with Phases() as phases:
        return bake.bake("cpu", phases)


@pytest.fixture(scope="session")
def layer_listings(image: Layer) -> dict[str, str]:
    """Every file of every layer, as it was before the first machine was started."""
    return list_layers(image)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest, image: Layer, layer_listings: dict[str, str]) -> Iterator[Machine]:
    """A machine as somebody gets it who chooses nothing; each suite has its own, `e2e` one as `make up` boots it."""
    suite = request.session.items[0].path.parent.name
    with machines.booted(f"test-{suite}", image, narrowed=suite == "e2e") as machine:
        yield machine


def list_layers(image: Layer) -> dict[str, str]:
    command = ["find", ".", "-printf", LISTING]
    folders = {layer.id: Store().rootfs(layer) for layer in image.stack}
    return {
        name: subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        for name, folder in folders.items()
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the journals of a failed test's machines to its report."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for machine in value.values() if isinstance(value, dict) else [value]:
                if isinstance(machine, Remote):
                    report.sections.append((f"journal of machine {machine.name}", machines.journal(machine)))
    return report  # type: ignore[return-value]
