"""The services of the container, as supervisord sees them: what `systemd` is on a machine.

A unit of the machine is the program of its name here. Those that have none, such as the firewall, are left alone.
"""

from __future__ import annotations

import functools
import http.client
import socket
import xmlrpc.client
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aisandbox.instance.run.container.catalogue import Catalogue, Runs
from aisandbox.instance.run.container.catalogue import clock as clock
from aisandbox.instance.run.services import NGINX, Crashes, Unit, last_words

TIMEOUT_S = 60.0
"""A program may take its time to stop."""
NOT_RUNNING, ALREADY_STARTED = 70, 60
"""supervisord's faults that are none: it has ended by itself, or been started again."""
RELOADS = {NGINX: "HUP"}
"""Signals that have a service read its configuration again; the others are restarted."""
LAST_BYTES = 16 * 1024
STATES = {
    "STARTING": ("activating", "start"),
    "RUNNING": ("active", "running"),
    "BACKOFF": ("activating", "auto-restart"),
    "STOPPING": ("deactivating", "stop"),
    "STOPPED": ("inactive", "dead"),
    "EXITED": ("inactive", "exited"),
    "FATAL": ("failed", "failed"),
}
"""systemd's words for supervisord's."""


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(_catalogue().socket)


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection("supervisor")


@functools.cache
def _catalogue() -> Catalogue:
    return Catalogue.here()


def _ask(method: str, *arguments: Any, unless: Iterable[int] = ()) -> Any:
    """Call a method of supervisord's.

    Args:
        unless: faults that are none.

    Raises:
        OSError: it refused or cannot be asked.
    """
    with xmlrpc.client.ServerProxy("http://supervisor", transport=_Transport()) as server:
        try:
            return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in unless:
                return None
            raise OSError(f"{method} {' '.join(map(str, arguments))}: {fault.faultString}") from fault
        except (xmlrpc.client.Error, http.client.HTTPException) as error:
            raise OSError(f"supervisord: {error}") from error


def _programs() -> dict[str, dict[str, Any]]:
    """What supervisord knows of each program, by the name of its unit."""
    return {f"{program['name']}.service": program for program in _ask("getAllProcessInfo")}


def _full(program: dict[str, Any]) -> str:
    return f"{program['group']}:{program['name']}"


def units(names: tuple[str, ...]) -> tuple[Unit, ...]:
    """States of those of the units that exist here; none where supervisord cannot be asked, as for others than root."""
    try:
        found = _programs()
    except OSError:
        return ()
    return tuple(_unit(name, found[name]) for name in names if name in found)


def watch(names: tuple[str, ...]) -> Callable[[], tuple[Unit, ...]]:
    """`units` for somebody who asks all the time; asking supervisord costs little."""
    return functools.partial(units, names)


def _unit(name: str, told: dict[str, Any]) -> Unit:
    active, sub = STATES.get(told["statename"], ("failed", told["statename"].lower()))
    # The launcher's own status for "not now" counts as an orderly end.
    crashed = told["statename"] == "EXITED" and told["exitstatus"] not in _expected(told["name"])
    runs = Runs.read(_catalogue().run_count(told["name"]))
    return Unit(
        name=name,
        active="failed" if crashed else active,
        sub=sub,
        result="exit-code" if crashed or active == "failed" else "success",
        restarts=runs.restarts if runs else 0,
        entered_s=round(clock() - runs.began, 1) if runs else None,
    )


def _expected(name: str) -> tuple[int, ...]:
    from aisandbox.instance.run.container.program import NOT_NOW

    return (0, NOT_NOW) if _catalogue().programs[name].success else (NOT_NOW,)


def crashes(name: str) -> Crashes:
    """A unit's crashes: supervisord starts again what has ended."""
    program = name.removesuffix(".service")
    runs = Runs.read(_catalogue().run_count(program))
    if not runs:
        return Crashes()
    try:
        with _catalogue().log(program).open("rb") as log:
            log.seek(max(log.seek(0, 2) - LAST_BYTES, 0))
            said = log.read().decode(errors="replace").splitlines()
    except OSError:
        said = []
    return Crashes(runs.times, last_words(said))


def restart(*names: str) -> None:
    """Restart the programs side by side. Waits until they have stopped, not until they run.

    Raises:
        OSError: supervisord refused or cannot be asked.
    """
    _act(names, _restart)


def reload(*names: str) -> None:
    """Have the programs read their configuration again.

    Raises:
        OSError: supervisord refused or cannot be asked.
    """
    _act(names, _reload)


def refresh(*names: str) -> None:
    """Like `reload`, of those only that run already; while the container starts, there is nobody to ask.

    Raises:
        OSError: supervisord refused.
    """
    try:
        found = _programs()
    except OSError:
        return
    reload(*(name for name in names if name in found and found[name]["statename"] == "RUNNING"))


def reload_now(name: str) -> None:
    """Have the program, if it runs, read its configuration again.

    Raises:
        OSError: supervisord refused.
    """
    refresh(name)


def _act(names: Iterable[str], act: Callable[[str, dict[str, Any]], None]) -> None:
    found = _programs()
    known = [name for name in names if name in found]
    if not known:
        return
    with ThreadPoolExecutor(len(known)) as pool:
        for done in [pool.submit(act, name, found[name]) for name in known]:
            done.result()


def _restart(name: str, program: dict[str, Any]) -> None:
    _ask("stopProcess", _full(program), True, unless=(NOT_RUNNING,))
    # Its next start is somebody's wish, not a crash.
    _catalogue().run_count(program["name"]).unlink(missing_ok=True)
    _ask("startProcess", _full(program), False, unless=(ALREADY_STARTED,))


def _reload(name: str, program: dict[str, Any]) -> None:
    signal = RELOADS.get(name)
    if signal and program["statename"] == "RUNNING":
        _ask("signalProcess", _full(program), signal, unless=(NOT_RUNNING,))
    else:
        _restart(name, program)
