"""What the flows of all clouds share: the image that the clouds offer to build on, package sources, and a model hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aisandbox.builder import bake, host
from aisandbox.builder.host import HostSettings
from aisandbox.builder.layers import load
from aisandbox.builder.progress import Phases
from tests.support import hub, models
from tests.support.bridge import bridge
from tests.support.cloud.hypervisor import stock_image

MODEL = "example/tiny"


@pytest.fixture(scope="session")
def stock() -> tuple[Path, ...]:
    """The stock image; only layers that are not in the cache are baked."""
    with Phases() as phases:
        for layer in load("cpu")["appliance"].parents:
            bake.bake("cpu", phases, until=layer.name)
    return stock_image("cpu")


@pytest.fixture(scope="session")
def package_sources() -> HostSettings:
    """Where this host takes packages from; the pretended clouds show their machines those that are files of it."""
    return host.read()


@pytest.fixture(scope="module")
def model_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub.Hub]:
    """A hub on the machines' network, with a model under the name `MODEL`."""
    folder = tmp_path_factory.mktemp("hub")
    models.write(folder / MODEL)
    with bridge() as network, hub.running(folder, bind=network.gateway) as running:
        yield running
