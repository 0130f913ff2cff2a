"""`python -m aisandbox.auxiliary`: the service, on loopback."""

from __future__ import annotations

import os
from pathlib import Path


def main() -> None:
    # Imported here: the workers, which are started anew from this module, need none of it.
    from aisandbox import manifest
    from aisandbox.auxiliary.documents import Documents
    from aisandbox.auxiliary.server import Settings, serve

    product = manifest.load()
    opt = Path(product.paths.opt)
    variables = ("PATH", "HOME", "LANG", "PYTHONPATH")
    documents = Documents(
        opt / "envs" / "open-webui" / "bin" / "python",
        {name: os.environ[name] for name in variables if name in os.environ},
    )
    settings = Settings(
        models=opt / "auxiliary",
        embedding=product.auxiliary_models.embedding.id,
        speech=product.auxiliary_models.speech.id,
        upstream=f"http://127.0.0.1:{product.ports['api_upstream'].port}",
        documents=documents,
    )
    serve(settings, product.ports["auxiliary_upstream"].port)


if __name__ == "__main__":
    main()
