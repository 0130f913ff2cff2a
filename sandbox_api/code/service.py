"""Running code: Python in kernels, JavaScript in Node."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandbox_api.code.models import CodeExecution, CodeInfo, Execution, LanguageInfo, language_of
from sandbox_api.code.node import NodeRuntime
from sandbox_api.code.python import PythonRuntime
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings


class CodeService:
    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._settings = settings
        self._paths = paths
        self.python = PythonRuntime(settings)
        self.node = NodeRuntime(settings)

    async def start(self) -> None:
        await asyncio.gather(self.python.start(), self.node.start())

    async def stop(self) -> None:
        await asyncio.gather(self.python.stop(), self.node.stop(), return_exceptions=True)

    async def health(self) -> Health:
        """Python decides; the details say if Node.js is missing."""
        health, node = await self.python.health(), await self.node.health()
        versions = [f"Python {self.python.version}"] if self.python.version else []
        versions += [f"Node.js {node.version}"] if node.version else []
        details = [health.detail, "" if node.status == "ready" else f"JavaScript: {node.detail}"]
        return Health(
            status=health.status, detail="; ".join(filter(None, details)), version=", ".join(versions) or None
        )

    def folder(self, cwd: str | None) -> Path | None:
        """
        Raises:
            SandboxError: `path_not_absolute`, `file_not_found`, `not_a_directory`.
        """
        return None if cwd is None else self._paths.directory(cwd)

    async def execute(
        self,
        language: str,
        code: str,
        *,
        session_id: str | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        stateful: bool = False,
    ) -> CodeExecution:
        """Run code. With `stateful` or a session's id its state is kept, and the answer has the session's id.

        Args:
            language: python or javascript, or an alias of them.
            cwd: absolute folder; a session stays there.
            timeout: seconds; then status is `timeout`, with the outputs so far.

        Raises:
            SandboxError: `language_unknown`, `code_unavailable`, `kernel_failed` (with the outputs so far as data),
                `limit_reached`, `session_busy`, `path_not_absolute`, `file_not_found`, `not_a_directory`.
        """
        chosen = language_of(language)
        folder = await asyncio.to_thread(self.folder, cwd)
        stateful = stateful or session_id is not None
        runtime: PythonRuntime | NodeRuntime = self.python if chosen == "python" else self.node
        done: Execution = await runtime.execute(
            code, session_id=session_id, cwd=folder, timeout=timeout, stateful=stateful
        )
        # The parts are models already: no need to check them again.
        return CodeExecution.model_construct(language=chosen, **dict(done))

    async def info(self) -> CodeInfo:
        python, node = await self.python.health(), await self.node.health()
        default = max(1, round(self._settings.code_timeout_s))
        return CodeInfo(
            languages=[
                LanguageInfo(
                    language="python",
                    description="Python in a Jupyter kernel: rich results, value of the last expression, sessions.",
                    runtime_version=self.python.version,
                    default_timeout=default,
                    details={
                        "status": python.status,
                        "detail": python.detail,
                        "program": str(self._settings.python),
                        "ipykernel": self.python.ipykernel,
                        "sessions": len(self.python.sessions),
                    },
                ),
                LanguageInfo(
                    language="javascript",
                    description="JavaScript in Node.js: scripts and modules, or sessions that keep their state.",
                    runtime_version=node.version,
                    default_timeout=default,
                    details={
                        "status": node.status,
                        "detail": node.detail,
                        "program": str(self._settings.node or ""),
                        "sessions": len(self.node.sessions),
                    },
                ),
            ]
        )
