"""Where everything of the appliance lies; the one owner of file names below the manifest's four folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aisandbox.instance.deployment import LOCATED, RESOLVED
from aisandbox.manifest import REPOSITORY, Manifest

MODEL_PREFIX = "models--"
METADATA = "http://169.254.169.254"
"""Where every cloud has its metadata service."""
PROGRAMS = REPOSITORY.parent / "container" / "programs.json"
"""What supervisord runs in the container of the whole appliance; machines have no such file."""


def cache_name(model: str) -> str:
    """Name of a model's folder in a Hugging Face cache."""
    return MODEL_PREFIX + model.replace("/", "--")


@dataclass(frozen=True)
class Places:
    """Folders of one appliance. With another root than `/`, the same tree lies below that folder (tests)."""

    opt: Path
    etc: Path
    data: Path
    run: Path
    root: Path
    metadata: str | None = None
    """Address of the cloud's metadata service; None asks none."""

    @classmethod
    def of(cls, manifest: Manifest, root: Path = Path("/")) -> Places:
        """The manifest's places, below `root`."""
        paths = manifest.paths
        opt, etc, data, run = (root / path.relative_to("/") for path in (paths.opt, paths.etc, paths.data, paths.run))
        return cls(opt, etc, data, run, root, METADATA if root == Path("/") and not PROGRAMS.exists() else None)

    @property
    def live(self) -> bool:
        """Whether this is the machine itself, whose services can be asked and restarted."""
        return self.root == Path("/")

    @property
    def container(self) -> bool:
        """Whether this is the container of the whole appliance: no systemd, no firewall, no cloud-init."""
        return (self.opt / PROGRAMS.parent.name / PROGRAMS.name).exists()

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
        """The user's file. Of a container only the data outlive an update."""
        return (self.data / "options" if self.container else self.etc) / "options.yaml"

    @property
    def last_good_options(self) -> Path:
        """Copy of the options file as it was when it last could be read."""
        return self.options.with_name("options.last-good.yaml")

    @property
    def environment(self) -> Path:
        """What the container was given in environment variables, for root only."""
        return self.run / "environment.json"

    @property
    def udf(self) -> Path:
        """Variables of a deployment form, written by our StackScript."""
        return self.etc / "udf.env"

    @property
    def kept_metadata(self) -> Path:
        """What the metadata service last answered; it belongs to this instance, and so not to its data."""
        return self.etc / "metadata.json"

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

    @property
    def tls(self) -> Path:
        """certbot's folder: the account with the certificate authority, certificates and their keys."""
        return self.data / "tls"

    # Live facts
    @property
    def resolved(self) -> Path:
        """The deployment as configure resolved it."""
        return self.run / RESOLVED

    @property
    def located(self) -> Path:
        """The deployment as the model step left it to the engine."""
        return self.run / LOCATED

    @property
    def configure_lock(self) -> Path:
        return self.run / "configure.lock"

    @property
    def volume(self) -> Path:
        """What kept the chosen data volume from being mounted, if anything did."""
        return self.run / "volume.json"

    @property
    def gateway(self) -> Path:
        """Parts of nginx's configuration that come and go with the certificate."""
        return self.run / "gateway"

    @property
    def acme(self) -> Path:
        """Where nginx finds what a certificate authority asks for."""
        return self.gateway / "acme"

    @property
    def published_status(self) -> Path:
        return self.run / "www" / "status.json"

    @property
    def published_ready(self) -> Path:
        """There while chat and API answer."""
        return self.published_status.with_name("ready")

    @property
    def published_loading(self) -> Path:
        """What the API answers until the model serves."""
        return self.published_status.with_name("loading.json")

    @property
    def published_loading_messages(self) -> Path:
        """The same as Anthropic's clients read it."""
        return self.published_status.with_name("loading-messages.json")

    @property
    def published_clients(self) -> Path:
        """What clients of the API are told, without the key; there while chat and API answer."""
        return self.published_status.with_name("connect.json")

    @property
    def published_motd(self) -> Path:
        """The login message."""
        return self.published_status.with_name("motd")

    @property
    def timeline(self) -> Path:
        """Where the time to the first answer went, kept from then on."""
        return self.run / "status" / "timeline.json"

    def status(self, service: str) -> Path:
        """What the service (configure, model, engine, certificate, publish, gpu, fabric) last reported."""
        return self.run / "status" / f"{service}.json"

    # cloud-init's files
    @property
    def cloud_run(self) -> Path:
        return self.root / "run" / "cloud-init"

    @property
    def cloud_instance(self) -> Path:
        return self.root / "var" / "lib" / "cloud" / "instance"

    @property
    def instance_id(self) -> Path:
        return self.root / "var" / "lib" / "cloud" / "data" / "instance-id"

    # The system's files
    @property
    def hostname(self) -> Path:
        return self.root / "etc" / "hostname"

    @property
    def hosts(self) -> Path:
        return self.root / "etc" / "hosts"

    # The kernel's files
    @property
    def kernel_command_line(self) -> Path:
        return self.root / "proc" / "cmdline"

    @property
    def dmi(self) -> Path:
        """What the firmware says about the machine."""
        return self.root / "sys" / "class" / "dmi" / "id"
