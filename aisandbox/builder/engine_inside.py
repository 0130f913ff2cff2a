"""Imports all that the engine of the flavour cuda loads; run by vLLM's own Python in a root file system, as `python -`.

Standard library only until then. Arguments: modules, or MODULE:NAME for something that is called. Prints a JSON object.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import Any

SOCKETS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}
SHOWN = 300


def main() -> None:
    asked: list[str] = []
    failed: dict[str, str] = {}

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in SOCKETS:
            asked.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")

    sys.addaudithook(hear)
    for name in sys.argv[1:]:
        module, _, called = name.partition(":")
        try:
            imported = importlib.import_module(module)
            if called:
                getattr(imported, called)()
        except BaseException as error:  # noqa: BLE001 - whatever a module does instead of being imported
            last = traceback.extract_tb(error.__traceback__)[-1]
            failed[name] = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"[:SHOWN]
    from vllm.utils.flashinfer import has_flashinfer

    answer = {"failed": failed, "asked": asked, "flashinfer": has_flashinfer()}
    print(f"\n{json.dumps(answer)}")


if __name__ == "__main__":
    main()
