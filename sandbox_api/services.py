"""All services of one sandbox, made once and handed to routers."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandbox_api.access.service import AccessService
from sandbox_api.browser.service import BrowserService
from sandbox_api.code.service import CodeService
from sandbox_api.desktop.service import DesktopService
from sandbox_api.entry.service import EntryService
from sandbox_api.file.service import FileService
from sandbox_api.health import Capabilities, Service
from sandbox_api.mcp.service import McpService
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings
from sandbox_api.shell.service import ShellService
from sandbox_api.skills.service import SkillsService
from sandbox_api.system.service import SystemService
from sandbox_api.util.service import UtilService


class Services:
    """Attributes are services. One that uses others gets them here, so that no module reaches for a global."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.paths = Confinement(settings)
        self.access = AccessService(settings)
        self.shell = ShellService(settings, self.paths)
        self.file = FileService(settings, self.paths)
        self.code = CodeService(settings, self.paths)
        self.desktop = DesktopService(settings, self.paths)
        self.browser = BrowserService(settings, self.paths, self.desktop)
        self.entry = EntryService(settings)
        self.util = UtilService(settings, self.paths)
        self.skills = SkillsService(settings, self.paths)
        self.capabilities = Capabilities()
        self.mcp = McpService(settings, self.shell, self.file, self.code, self.browser, self.desktop, self.capabilities)
        self.system = SystemService(settings, self.shell, self.capabilities)
        self.capabilities.probes = {
            "shell": self.shell.health,
            "file": self.file.health,
            "code": self.code.health,
            "browser": self.browser.health,
            "desktop": self.desktop.health,
            "vnc": self.desktop.vnc_health,
            "cdp": self.entry.cdp_health,
            "jupyter": self.entry.jupyter_health,
            "code-server": self.entry.code_server_health,
            "proxy": self.entry.health,
            "mcp": self.mcp.health,
            "skills": self.skills.health,
            "util": self.util.health,
            "auth": self.access.health,
        }

    @cached_property
    def all(self) -> dict[str, Service]:
        """By name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Service)}


async def _services(connection: HTTPConnection) -> Services:  # async: FastAPI gives other dependencies to a thread
    services: Services = connection.app.state.services
    return services


Injected = Annotated[Services, Depends(_services)]
"""Parameter of a route that receives the services."""
