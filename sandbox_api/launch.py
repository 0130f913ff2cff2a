"""Starts the programs beside the sandbox, with the flags they need: `python -m sandbox_api.launch PROGRAM`.

One owner of those flags for systemd units, the container's supervisor, tests and a developer's shell. Each launcher
waits until what it builds on is ready, then becomes the program (exec), so that a supervisor sees the program itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from sandbox_api import privileges
from sandbox_api.environment import child_environment, prepare, withdraw_secrets
from sandbox_api.settings import Settings

PATIENCE_S = 30.0
LEFTOVERS_S = 10.0
"""How long an earlier run may take to let go of its socket."""
POLL_S = 0.02


def _fail(message: str) -> NoReturn:
    print(f"sandbox: {message}", file=sys.stderr)
    sys.exit(1)


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    _fail(f"{names[0]} is not installed")


def _listening(path: Path | str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            _fail(f"{what} did not come up within {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)


def _display(settings: Settings) -> str:
    if not settings.display:
        _fail("SANDBOX_DISPLAY is not set")
    return settings.display


def _display_number(settings: Settings) -> str:
    return _display(settings).removeprefix(":").split(".")[0]


def _display_socket(settings: Settings) -> Path:
    return Path(f"/tmp/.X11-unix/X{_display_number(settings)}")  # noqa: S108 - X11's own place


def _wait_for_display(settings: Settings) -> None:
    _wait(lambda: _listening(_display_socket(settings)), f"display {settings.display}")


def _clear_display(settings: Settings) -> None:
    """Remove what a killed X server left: in a restarted container its process id is soon somebody else's."""
    socket_path = _display_socket(settings)
    if not _listening(socket_path):
        socket_path.unlink(missing_ok=True)
        Path(f"/tmp/.X{_display_number(settings)}-lock").unlink(missing_ok=True)  # noqa: S108


def _fresh(path: Path | None, name: str) -> Path:
    """A socket's path, with what an earlier run left there removed.

    Children of a killed run end a moment after it, and remove what is at the path then: the socket of the next run.
    """
    if path is None:
        _fail(f"{name} is not set")
    deadline = time.monotonic() + LEFTOVERS_S
    while _listening(path) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    return path


def display(settings: Settings) -> list[str]:
    """TigerVNC's X server: the desktop, and RFB on a unix socket. No port, so no password: the entry guards it.

    Without its black list, which takes all viewers on the socket for one host, and a few that look whether it is up
    for somebody who tries passwords.
    """
    _clear_display(settings)
    return [
        _program("Xtigervnc", "Xvnc"), _display(settings),
        "-geometry", f"{settings.display_width}x{settings.display_height}", "-depth", "24",
        "-SecurityTypes", "None", "-rfbport", "-1",
        "-rfbunixpath", str(_fresh(settings.vnc_socket, "SANDBOX_VNC_SOCKET")),
        "-rfbunixmode", "0600", "-AlwaysShared", "-AcceptSetDesktopSize", "-UseBlacklist=0", "-nolisten", "tcp",
        "-desktop", "AI Sandbox",
    ]  # fmt: skip


def window_manager(settings: Settings) -> list[str]:
    _wait_for_display(settings)
    return [_program("openbox"), "--sm-disable"]


def _namespaces_work() -> bool:
    """Whether Chromium can build its own sandbox here."""
    return (
        os.getuid() != 0
        and subprocess.run(["unshare", "-Ur", "--root=/", "true"], capture_output=True, check=False).returncode == 0
    )


def browser(settings: Settings) -> list[str]:
    """Chromium with its window on the desktop and DevTools on loopback."""
    _wait_for_display(settings)
    profile = settings.cache / "chromium"
    profile.mkdir(parents=True, exist_ok=True)
    # Left by a Chromium that was killed; they would make the next one refuse the profile.
    for lock in profile.glob("Singleton*"):
        lock.unlink()
    address = urlsplit(settings.cdp_url or "http://127.0.0.1:9222")
    arguments = [
        _program("chromium", "google-chrome", "chrome"),
        f"--remote-debugging-port={address.port or 9222}", "--remote-debugging-address=127.0.0.1",
        f"--user-data-dir={profile}", "--password-store=basic", "--no-first-run", "--no-default-browser-check",
        "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-features=Translate,MediaRouter", "--hide-crash-restore-bubble",
        # Pages that come back from that cache confuse clients of DevTools.
        "--disable-back-forward-cache", "--start-maximized",
    ]  # fmt: skip
    if not _namespaces_work():
        # Containers without user namespaces: there the container is the wall around the browser.
        arguments += ["--no-sandbox", "--test-type"]
    return [*arguments, *os.environ.get("SANDBOX_BROWSER_ARGUMENTS", "").split(), "about:blank"]


def jupyter(settings: Settings) -> list[str]:
    """Jupyter Lab on a unix socket, under the same prefix as behind the entry, which guards it."""
    state = settings.cache / "jupyter"
    options = {
        "ServerApp.sock": _fresh(settings.jupyter_socket, "SANDBOX_JUPYTER_SOCKET"),
        "ServerApp.sock_mode": "0600",
        "ServerApp.base_url": "/jupyter/",
        "ServerApp.root_dir": settings.workspace_path,
        "ServerApp.allow_root": True,
        "ServerApp.allow_remote_access": True,
        "ServerApp.open_browser": False,
        "IdentityProvider.token": "",
        "ServerApp.password": "",
        "ServerApp.disable_check_xsrf": True,
        "ServerApp.terminals_enabled": True,
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    news = state / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    if not (choice := news / "notification.jupyterlab-settings").exists():
        news.mkdir(parents=True, exist_ok=True)
        choice.write_text('{"fetchNews": "false"}\n')  # else it asks every new person
    os.environ.update(
        JUPYTER_RUNTIME_DIR=str(state / "runtime"), JUPYTER_DATA_DIR=str(state / "data"),
        JUPYTER_CONFIG_DIR=str(state / "config"), IPYTHONDIR=str(state / "ipython"),
    )  # fmt: skip
    return [str(settings.python), "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def code_server(settings: Settings) -> list[str]:
    """VS Code in the browser, on a unix socket; the entry guards it."""
    state = settings.cache / "code-server"
    return [
        _program("code-server"), "--socket", str(_fresh(settings.code_server_socket, "SANDBOX_CODE_SERVER_SOCKET")),
        "--socket-mode", "600", "--auth", "none", "--disable-telemetry", "--disable-update-check",
        "--disable-workspace-trust", "--disable-getting-started-override",
        "--user-data-dir", str(state / "data"), "--extensions-dir", str(state / "extensions"),
        "--config", str(state / "config.yaml"), str(settings.workspace_path),
    ]  # fmt: skip


PROGRAMS: dict[str, Callable[[Settings], list[str]]] = {
    "display": display,
    "window-manager": window_manager,
    "browser": browser,
    "jupyter": jupyter,
    "code-server": code_server,
}


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        _fail(f"usage: python -m sandbox_api.launch {'|'.join(PROGRAMS)}")
    privileges.hide()
    settings = Settings()
    withdraw_secrets()
    privileges.drop()
    prepare(settings)
    command = PROGRAMS[sys.argv[1]](settings)
    os.chdir(settings.workspace_path)
    os.execve(command[0], command, child_environment(settings))  # noqa: S606


if __name__ == "__main__":
    main()
