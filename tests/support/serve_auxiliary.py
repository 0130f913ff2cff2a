"""Serves the auxiliary models by settings of a test (`python -m tests.support.serve_auxiliary JSON`)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    # Imported here, as in the program itself: workers start anew from this module.
    from aisandbox.auxiliary.documents import Documents
    from aisandbox.auxiliary.server import Settings, serve

    told = json.loads(sys.argv[1])
    settings = Settings(
        models=Path(told["models"]),
        embedding=told["embedding"],
        speech=told["speech"],
        upstream=told["upstream"],
        documents=Documents(Path(told["python"]), os.environ),
        idle_s=told["idle_s"],
    )
    serve(settings, told["port"])


if __name__ == "__main__":
    main()
