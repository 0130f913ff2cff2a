"""The machines' network, for servers of tests that machines reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from aisandbox.builder import network
from aisandbox.builder.network import Network


@contextmanager
def bridge() -> Iterator[Network]:
    """The network. It goes with the last address that is leased, so one is held until the block ends."""
    address = network.lease()
    try:
        yield network.up()
    finally:
        network.release(address, os.getpid())
