"""All services of one sandbox, made once and handed to routers."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandbox_api.health import Service
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings


class Services:
    """Attributes are services; those that use others get them here, so that no module reaches for a global."""

    def __init__(self, settings: Settings) -> None:
        # Here, because a service's package brings its router, which imports `Injected` from this module.
        from sandbox_api.access.service import AccessService
        from sandbox_api.browser.service import BrowserService
        from sandbox_api.code.service import CodeService
        from sandbox_api.desktop.service import DesktopService
        from sandbox_api.entry.service import EntryService
        from sandbox_api.file.service import FileService
        from sandbox_api.mcp.service import McpService
        from sandbox_api.shell.service import ShellService
        from sandbox_api.skills.service import SkillsService
        from sandbox_api.system.service import SystemService
        from sandbox_api.util.service import UtilService

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
        self.mcp = McpService(self)
        self.system = SystemService(self)

    @cached_property
    def all(self) -> dict[str, Service]:
        """By name, in the order in which capabilities are listed."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Service)}


async def _services(connection: HTTPConnection) -> Services:  # async: FastAPI gives other dependencies to a thread
    services: Services = connection.app.state.services
    return services


Injected = Annotated[Services, Depends(_services)]
"""Parameter of a route that receives the services."""
