"""The text of a document, by a process of its own: parsers of untrusted files get little memory and little time."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aisandbox.auxiliary.errors import RequestError

SECONDS = 180
MEMORY = 4 * 2**30
AT_ONCE = 2


class Documents:
    """Runs `aisandbox.auxiliary.extraction`.

    Args:
        python: interpreter of the environment that has the parsers, which is Open WebUI's.
        environment: its variables.
    """

    def __init__(self, python: Path, environment: Mapping[str, str]) -> None:
        self._python, self._environment = python, dict(environment)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def parts(self, file: Path, name: str) -> list[dict[str, Any]]:
        """The document's parts, such as pages: `page_content`, and `metadata` with what is known of each.

        Args:
            name: as the document was called where it comes from; its content tells what it is.

        Raises:
            RequestError: it has no text that can be read; the message is for whoever sent it.
        """
        async with self._turns:
            process = await asyncio.create_subprocess_exec(
                str(self._python), "-P", "-m", "aisandbox.auxiliary.extraction", str(file), name,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=None,
                env=self._environment, preexec_fn=_limit,
            )  # fmt: skip
            try:
                said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
            except TimeoutError as error:
                raise RequestError(
                    f"The document could not be read within {SECONDS // 60} minutes. Send it in parts."
                ) from error
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
        if process.returncode:
            raise RequestError("The document cannot be read: it is damaged, or needs too much memory. Save it anew.")
        answer: dict[str, Any] = json.loads(said)
        if "refusal" in answer:
            raise RequestError(answer["refusal"])
        parts: list[dict[str, Any]] = answer["parts"]
        return parts


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
