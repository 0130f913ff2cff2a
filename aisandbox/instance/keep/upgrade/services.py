"""The instance's services during an upgrade."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from aisandbox.instance.keep.upgrade import rules
from aisandbox.instance.last_words import last_words
from aisandbox.instance.run import systemctl

CONFIGURE = "aisandbox-configure.service"
WORKER = "aisandbox-upgrade.service"
KEPT = frozenset({WORKER, "aisandbox-upgrade-recover.service", "aisandbox-data.service", "aisandbox-volume.service"})
"""Never stopped: the upgrade itself, and what holds the data volume."""
STOP_TIMEOUT_S = 180
CRASHES = 3
"""After this many failed starts the service counts as broken."""
WANTS = re.compile(rf"{rules.UNITS}/[^/]+\.wants/(?P<unit>[^/]+\.service)")
UNIT = re.compile(rf"{rules.UNITS}/(?P<unit>[^/]+\.service)")


class Unfit(Exception):
    """The release that was put in place does not serve. `detail` are last words, which may quote what users wrote."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def units_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The services whose unit files are among these paths."""
    names = {found["unit"] for path in paths if (found := UNIT.fullmatch(path))}
    return tuple(sorted(names - KEPT))


def enabled(root: Path, units: Sequence[str]) -> tuple[str, ...]:
    """Those of the services that start with the machine."""
    links = {link.name for link in (root / rules.UNITS).glob("*.wants/*.service")}
    return tuple(unit for unit in units if unit in links)


class Services:
    """Asks systemd."""

    def active(self, units: Sequence[str]) -> tuple[str, ...]:
        """Those of the services that run or are being started."""
        shown = systemctl.show(units, "ActiveState")
        return tuple(unit for unit, state in shown.items() if state["ActiveState"] not in ("inactive", "failed"))

    def failed(self) -> tuple[str, ...]:
        """All units of the machine that have failed."""
        listed = _run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--full", check=False)
        return tuple(line.split()[0] for line in listed.splitlines() if line.strip())

    def stop(self, units: Sequence[str]) -> None:
        """Stop the services and wait for it.

        Raises:
            Unfit: one does not stop.
        """
        known = self._known(units)
        if known:
            self._do("stop", *known, timeout=STOP_TIMEOUT_S)
            _run("systemctl", "reset-failed", *known, check=False)

    def settle(self, paths: Sequence[str]) -> None:
        """Have the machine take up the files that were exchanged, and configure the instance anew.

        Raises:
            Unfit: it refuses them.
        """
        self._do("daemon-reload")
        self._try("systemd-tmpfiles", "--create", "aisandbox.conf")
        for path in paths:
            if path.startswith("etc/sysctl.d/") and Path("/", path).exists():
                # In a container the kernel is not ours to set.
                _run("sysctl", "--quiet", f"--load=/{path}", check=False)
        self._do("restart", CONFIGURE, timeout=120)
        if any(path.startswith(("etc/nginx/", f"{rules.UNITS}/nginx", f"{rules.OPT}/www")) for path in paths):
            self._try("nginx", "-t", "-q")
            self._do("reload-or-restart", "nginx.service")
        if "etc/nftables.conf" in paths:
            self._try("nft", "--check", "--file", "/etc/nftables.conf")
            self._do("reload-or-restart", "nftables.service")
        if any(path.startswith("etc/ssh/") for path in paths):
            self._try("sshd", "-t")
            self._do("try-reload-or-restart", "ssh.service")
        if any(path.startswith("etc/systemd/resolved") for path in paths):
            self._do("try-restart", "systemd-resolved.service")

    def start(self, units: Sequence[str]) -> None:
        """Start the services without waiting for them.

        Raises:
            Unfit: systemd refuses.
        """
        known = self._known(units)
        if known:
            self._do("start", "--no-block", *known)

    def broken(self, units: Sequence[str]) -> tuple[str, str] | None:
        """A service that has failed or keeps crashing, and its last words."""
        for unit, state in systemctl.show(units, "ActiveState", "NRestarts", "Result").items():
            if state["ActiveState"] == "failed":
                return f"{unit} has failed ({state['Result']})", self._last_words(unit)
            if int(state["NRestarts"] or 0) >= CRASHES:
                return f"{unit} does not start", self._last_words(unit)
        return None

    def reload_early(self) -> None:
        """Make systemd see units that changed under it at boot, and start those that it had not known."""
        _run("systemctl", "daemon-reload", check=False)
        _run("systemctl", "start", "--no-block", "multi-user.target", check=False)

    def _known(self, units: Sequence[str]) -> tuple[str, ...]:
        shown = systemctl.show(units, "LoadState")
        return tuple(unit for unit, state in shown.items() if state["LoadState"] == "loaded")

    def _last_words(self, unit: str) -> str:
        """The last line that names an error, else the last of all."""
        said = _run("journalctl", "--boot", "--quiet", "--output=cat", "--lines=60", f"--unit={unit}", check=False)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return (last_words(lines) or (lines or [""])[-1])[:300]

    def _do(self, *arguments: str, timeout: float = 60) -> None:
        self._try("systemctl", *arguments, timeout=timeout)

    def _try(self, *command: str, timeout: float = 60) -> None:
        try:
            _run(*command, timeout=timeout)
        except subprocess.CalledProcessError as error:
            words = (error.stderr or error.stdout or "").strip().splitlines()
            raise Unfit(f"{' '.join(command[:2])} failed", words[-1] if words else "") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unfit(f"{' '.join(command[:2])} failed", str(error)) from error


def _run(*command: str, check: bool = True, timeout: float = 60) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=check)
    return done.stdout
