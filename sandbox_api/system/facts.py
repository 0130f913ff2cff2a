"""Facts about the machine that are slow to learn and seldom change."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from sandbox_api import privileges
from sandbox_api.environment import child_environment
from sandbox_api.settings import Settings
from sandbox_api.system.models import AvailableTool, Package, RuntimeEnv, SystemEnv, ToolCategory, ToolSpec
from sandbox_api.unicode import loads

TOOLS: dict[str, dict[str, str]] = {
    "shell": {"bash": "shell", "tmux": "terminal sessions", "jq": "JSON filter", "rg": "fast text search"},
    "build": {
        "git": "version control",
        "make": "builds",
        "gcc": "C compiler",
        "uv": "Python packages",
        "npm": "Node.js",
    },
    "network": {"curl": "HTTP requests", "wget": "downloads", "ssh": "remote shell"},
    "documents": {"pandoc": "document conversion", "pdftotext": "text of PDF files", "sqlite3": "database"},
    "media": {"ffmpeg": "audio and video", "convert": "pictures"},
}
QUESTION_S = 20
# What a Python says of its packages, without pip, which need not be installed.
PYTHON_PACKAGES = (
    "import importlib.metadata as m, json;"
    "print(json.dumps(sorted({(d.metadata['Name'] or '', d.version or '') for d in m.distributions()})))"
)


def _ask(settings: Settings, *command: str) -> str:
    """What a program prints; nothing when it cannot be asked."""
    try:
        answer = subprocess.run(
            privileges.dropped(command), env=child_environment(settings), capture_output=True, text=True,
            errors="replace", timeout=QUESTION_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return (answer.stdout or answer.stderr).strip() if answer.returncode == 0 else ""


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def home(settings: Settings) -> str:
    return child_environment(settings).get("HOME", str(settings.root))


def runtime(settings: Settings) -> RuntimeEnv:
    python = _ask(settings, str(settings.python), "--version").removeprefix("Python ")
    node = _ask(settings, str(settings.node), "--version").removeprefix("v") if settings.node else ""
    return RuntimeEnv(
        python=[ToolSpec(ver=python, bin=str(settings.python), alias=["python", "python3"])] if python else [],
        nodejs=[ToolSpec(ver=node, bin=str(settings.node), alias=["node"])] if node else [],
    )


def _there(name: str, path: str | None) -> bool:
    return shutil.which(name, path=path) is not None


def tools(settings: Settings) -> list[ToolCategory]:
    path = child_environment(settings).get("PATH")
    found = {
        category: [AvailableTool(name=name, description=text) for name, text in named.items() if _there(name, path)]
        for category, named in TOOLS.items()
    }
    return [ToolCategory(category=category, tools=listed) for category, listed in found.items() if listed]


def system(settings: Settings) -> SystemEnv:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return SystemEnv(
        os=release.get("NAME", platform.system()),
        os_version=release.get("VERSION_ID", platform.release()),
        arch=platform.machine(),
        user=user(),
        home_dir=home(settings),
        workspace=str(settings.workspace_path),
        timezone=time.strftime("%Z"),
        occupied_ports=[],
    )


def listening_ports() -> list[str]:
    """TCP ports with a listener, as far as this user may see them."""
    import psutil

    try:
        found = {
            item.laddr.port
            for item in psutil.net_connections("tcp")
            if item.status == psutil.CONN_LISTEN and item.laddr
        }
    except (psutil.Error, OSError):
        return []
    return [str(port) for port in sorted(found)]


def python_packages(settings: Settings) -> list[Package]:
    answer = _ask(settings, str(settings.python), "-c", PYTHON_PACKAGES)
    return [Package(name=name, version=version) for name, version in loads(answer or "[]")]


def node_packages(settings: Settings) -> list[Package]:
    """Packages that Node.js finds everywhere, and those of the workspace."""
    if settings.node is None:
        return []
    places = [settings.node.resolve().parent.parent / "lib" / "node_modules", settings.workspace_path / "node_modules"]
    found: dict[str, str] = {}
    for manifest in (file for place in places for glob in ("*", "@*/*") for file in place.glob(f"{glob}/package.json")):
        try:
            package = loads(Path(manifest).read_bytes())
            found[str(package["name"])] = str(package.get("version", ""))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [Package(name=name, version=version) for name, version in sorted(found.items())]
