"""Units' states for somebody who asks all the time: systemd is asked again when its signals tell of a change.

Starting `systemctl` twice a second took three hundredths of a processor on an idle instance; a signal costs nothing
while nothing happens.
"""

from __future__ import annotations

import re
import time

from jeepney import DBusAddress, DBusErrorResponse, MatchRule, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from aisandbox.instance.run import systemd
from aisandbox.instance.run.services import Unit
from aisandbox.instance.run.systemctl import PATIENCE_S, Properties

MANAGER = DBusAddress(
    "/org/freedesktop/systemd1", "org.freedesktop.systemd1", interface="org.freedesktop.systemd1.Manager"
)
PROPERTIES = "org.freedesktop.DBus.Properties"
LONGEST_S = 5.0
"""Age at which what was shown is asked for anyway: systemd forgets who listens when it is started anew."""


class UnitWatch:
    """The states of some units."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._shown: Properties = {}
        self._asked_at = float("-inf")
        self._bus: DBusConnection | None = None

    def units(self) -> tuple[Unit, ...]:
        """What `systemd.units` says, from what it said before where nothing has changed since."""
        if self._changed() or time.monotonic() - self._asked_at > LONGEST_S:
            self._asked_at = time.monotonic()
            self._shown = systemd.show(self._names)
        return systemd.parse(self._shown)

    def _changed(self) -> bool:
        """Whether a unit may have changed since the last call; always, where there is no bus to hear of it."""
        try:
            if self._bus is None:
                self._bus = _listen(self._names)
                return True
            return _take_all(self._bus)
        except (OSError, ValueError, DBusErrorResponse):  # there is no bus, it has ended, or it refuses
            self._bus = None
            return True


def _listen(names: tuple[str, ...]) -> DBusConnection:
    """A connection that receives the signals of these units.

    Raises:
        OSError, ValueError, DBusErrorResponse: there is no bus, or it refuses.
    """
    bus = open_dbus_connection(bus="SYSTEM")
    rules = (
        MatchRule(type="signal", interface=PROPERTIES, member="PropertiesChanged", path=_path(name)) for name in names
    )
    for call in (new_method_call(MANAGER, "Subscribe"), *map(message_bus.AddMatch, rules)):
        unwrap_msg(bus.send_and_get_reply(call, timeout=PATIENCE_S))
    return bus


def _take_all(bus: DBusConnection) -> bool:
    """Take what has arrived; whether it was anything."""
    arrived = False
    while True:
        try:
            bus.receive(timeout=0)
        except TimeoutError:
            return arrived
        arrived = True


def _path(name: str) -> str:
    """A unit's object on the bus, by systemd's rule for names."""
    escaped = re.sub(r"^[0-9]|[^A-Za-z0-9]", lambda char: f"_{ord(char[0]):02x}", name)
    return f"{MANAGER.object_path}/unit/{escaped}"
