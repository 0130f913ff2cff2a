"""Addresses of local machines: shared by all checkouts of a host, freed with the process that held them."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aisandbox.builder import network
from aisandbox.builder.network import Network
from aisandbox.manifest import REPOSITORY

TOGETHER = """
import multiprocessing, pathlib, sys
from aisandbox.builder import network

def make(start):
    start.wait()
    sys.exit(0 if network.up().gateway == "10.213.77.1" else 1)

network.LEASES = pathlib.Path(sys.argv[1])
fork = multiprocessing.get_context("fork")
for _ in range(3):
    start = fork.Barrier(6)
    makers = [fork.Process(target=make, args=(start,)) for _ in range(6)]
    [maker.start() for maker in makers], [maker.join() for maker in makers]
    assert not any(maker.exitcode for maker in makers)
    network.down()
"""


@pytest.fixture(autouse=True)
def no_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of the test's own, and no bridge: that one is the boot tests' business."""
    monkeypatch.setattr(network, "LEASES", tmp_path / "leases")
    monkeypatch.setattr(network, "INTERFACES", tmp_path / "interfaces")
    monkeypatch.setattr(network, "_up", lambda: Network(ipaddress.IPv4Network("10.213.77.0/24")))
    monkeypatch.setattr(network, "down", lambda: None)


def test_machines_get_different_addresses() -> None:
    assert [network.lease(), network.lease()] == ["10.213.77.2", "10.213.77.3"]


def test_an_address_is_free_again_when_its_process_is_gone() -> None:
    address = network.lease()
    with subprocess.Popen(["sleep", "60"]) as process:
        network.hold(address, process.pid)
        assert network.lease() != address
        process.kill()
    assert network.lease() == address


def test_only_the_holder_gives_an_address_back() -> None:
    address = network.lease()
    network.hold(address, 1)
    network.release(address, 2)
    assert network.lease() != address
    network.release(address, 1)
    assert network.lease() == address


def test_an_address_is_not_free_while_its_interface_lingers(tmp_path: Path) -> None:
    address = network.lease()
    network.release(address, os.getpid())
    lingering = tmp_path / "interfaces" / f"vb-{network.machine_name(address)}"
    lingering.mkdir(parents=True)
    assert network.lease() != address
    lingering.rmdir()
    assert network.lease() == address


def test_a_machine_gets_its_former_address_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = network.lease(), network.lease()
    network.release(first, os.getpid())
    network.release(second, os.getpid())
    assert network.lease(second) == second
    # Another machine has it by now.
    assert network.lease(second) == first
    # Of a network that is not this one.
    assert network.lease("192.0.2.7") == "10.213.77.4"


def test_a_machine_waits_for_its_own_interface_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = network.lease()
    network.release(address, os.getpid())
    lingering = tmp_path / "interfaces" / f"vb-{network.machine_name(address)}"
    lingering.mkdir(parents=True)
    monkeypatch.setattr("time.sleep", lambda _: lingering.rmdir())
    assert network.lease(address) == address


def test_the_first_machines_may_start_at_once(tmp_path: Path) -> None:
    """Each makes the bridge when there is none: here really, in a network of the test's own."""
    command = ["unshare", "--net", sys.executable, "-c", TOGETHER, str(tmp_path / "together")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert not done.returncode, done.stderr
