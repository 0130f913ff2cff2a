"""Units for somebody who asks all the time: systemd is asked anew when a signal of it arrives, on a real connection."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, message_bus, new_method_return, new_signal
from jeepney.io.blocking import DBusConnection

from aisandbox.instance.run import unit_watch
from aisandbox.instance.run.unit_watch import UnitWatch
from tests.support.programs import fake

NAMES = ("vllm.service",)
BLOCK = "Id=vllm.service\nLoadState=loaded\nActiveState={state}\nSubState=running\nResult=success\nNRestarts=0\n"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for every time that systemd was asked; it answers with what stands in `shown` beside it."""
    (tmp_path / "shown").write_text(BLOCK.format(state="active"))
    fake(tmp_path, monkeypatch, "systemctl", f"echo asked >> {tmp_path}/asked; cat {tmp_path}/shown")
    return tmp_path / "asked"


@pytest.fixture
def buses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The other ends of the first two connections to the bus, which have been greeted already."""
    pairs = [socket.socketpair() for _ in range(2)]
    hello = message_bus.Hello()
    hello.header.serial = 1
    for _, theirs in pairs:
        theirs.sendall(new_method_return(hello, "s", (":1.1",)).serialise(1))
    waiting = [ours for ours, _ in pairs]
    monkeypatch.setattr(unit_watch, "_listen", lambda names: DBusConnection(waiting.pop(0)))
    yield [theirs for _, theirs in pairs]
    for end in itertools.chain(*pairs):
        end.close()


def told(serial: int) -> bytes:
    """A signal that a unit has changed, as it is sent."""
    unit = DBusAddress("/org/freedesktop/systemd1/unit/vllm_2eservice", interface=unit_watch.PROPERTIES)
    body: tuple[Any, ...] = ("org.freedesktop.systemd1.Unit", {"ActiveState": ("s", "failed")}, [])
    return bytes(new_signal(unit, "PropertiesChanged", "sa{sv}as", body).serialise(serial))


def times(asked: Path) -> int:
    return len(asked.read_text().splitlines())


def test_systemd_is_asked_when_something_has_changed_and_not_else(asked: Path, buses: list[socket.socket]) -> None:
    watch = UnitWatch(NAMES)
    assert [watch.units()[0].active for _ in range(5)] == ["active"] * 5
    assert times(asked) == 1
    asked.with_name("shown").write_text(BLOCK.format(state="failed"))
    buses[0].sendall(told(1) + told(2))
    assert [watch.units()[0].active for _ in range(5)] == ["failed"] * 5
    assert times(asked) == 2


def test_half_a_signal_is_waited_for(asked: Path, buses: list[socket.socket]) -> None:
    watch = UnitWatch(NAMES)
    watch.units()
    buses[0].sendall(told(1)[:40])
    watch.units()
    assert times(asked) == 1
    buses[0].sendall(told(1)[40:])
    watch.units()
    assert times(asked) == 2


def test_it_is_asked_anyway_after_a_while(
    asked: Path, buses: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_watch, "LONGEST_S", 0)
    watch = UnitWatch(NAMES)
    for _ in range(3):
        watch.units()
    assert times(asked) == 3


def test_a_bus_that_ends_is_connected_to_again(asked: Path, buses: list[socket.socket]) -> None:
    watch = UnitWatch(NAMES)
    watch.units()
    buses[0].close()
    for _ in range(4):
        watch.units()
    # At first, when it had ended, and when there was one again.
    assert times(asked) == 3


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "nonsense"])
def test_without_a_bus_systemd_is_asked_every_time(asked: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    watch = UnitWatch(NAMES)
    assert [watch.units()[0].active for _ in range(3)] == ["active"] * 3
    assert times(asked) == 3


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("vllm.service", "vllm_2eservice"),
        ("open-webui.service", "open_2dwebui_2eservice"),
        ("9.service", "_39_2eservice"),
        ("user@1000.service", "user_401000_2eservice"),
    ],
)
def test_a_units_name_on_the_bus_is_systemds(name: str, label: str) -> None:
    """As `bus_label_escape` of systemd's has it: letters stay, digits but for the first, too."""
    assert unit_watch._path(name) == f"/org/freedesktop/systemd1/unit/{label}"
