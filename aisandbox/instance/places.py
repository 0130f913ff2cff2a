"""Where everything of the appliance lies; the one owner of file names below the manifest's four folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aisandbox.manifest import Manifest

MODEL_PREFIX = "models--"


def cache_name(model: str) -> str:
    """Name of a model's folder in a Hugging Face cache."""
    return MODEL_PREFIX + model.replace("/", "--")


def cached_model(path: str) -> str | None:
    """The model that a path into a Hugging Face cache belongs to."""
    name = next((part for part in Path(path).parts if part.startswith(MODEL_PREFIX)), None)
    return name.removeprefix(MODEL_PREFIX).replace("--", "/", 1) if name else None


@dataclass(frozen=True)
class Places:
    """Folders of one appliance. With another root than `/`, the same tree lies below that folder (tests)."""

    opt: Path
    etc: Path
    data: Path
    run: Path
    root: Path

    @classmethod
    def of(cls, manifest: Manifest, root: Path = Path("/")) -> Places:
        """The manifest's places, below `root`."""
        paths = manifest.paths
        opt, etc, data, run = (root / path.relative_to("/") for path in (paths.opt, paths.etc, paths.data, paths.run))
        return cls(opt, etc, data, run, root)

    @property
    def live(self) -> bool:
        """Whether this is the machine itself, whose services can be asked and restarted."""
        return self.root == Path("/")

    # Baked
    @property
    def release(self) -> Path:
        return self.opt / "release.json"

    @property
    def templates(self) -> Path:
        return self.opt / "templates"

    @property
    def baked_models(self) -> Path:
        """Hugging Face cache folders of the models that came with the image."""
        return self.opt / "models"

    # The user's choice and what is rendered from it
    @property
    def options(self) -> Path:
        return self.etc / "options.yaml"

    @property
    def hf_token(self) -> Path:
        """The access token, or an empty file; systemd hands it to the model service as a credential."""
        return self.etc / "secrets" / "hf_token"

    # User data
    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def hub_cache(self) -> Path:
        """Hugging Face's cache folder (`$HF_HOME/hub`)."""
        return self.data / "models" / "hub"

    # Live facts
    @property
    def plan(self) -> Path:
        return self.run / "plan.json"

    @property
    def engine(self) -> Path:
        return self.run / "engine.json"

    @property
    def published_status(self) -> Path:
        return self.run / "www" / "status.json"

    @property
    def published_ready(self) -> Path:
        """There while chat and API answer."""
        return self.published_status.with_name("ready")

    def status(self, service: str) -> Path:
        """What the service (configure, model, engine) last reported."""
        return self.run / "status" / f"{service}.json"

    # cloud-init's files
    @property
    def cloud_run(self) -> Path:
        return self.root / "run" / "cloud-init"

    @property
    def cloud_instance(self) -> Path:
        return self.root / "var" / "lib" / "cloud" / "instance"
