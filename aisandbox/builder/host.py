"""What the host hands to the bake: pip's index settings, mirrors, CA bundle and proxies, as behind a company proxy."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

from aisandbox.builder.errors import BuildError

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
MIRRORS = {"NVIDIA_REPOSITORY": "nvidia_repository", "FLASHINFER_INDEX": "vllm_flashinfer_index"}
"""Environment variables that replace a vendor's own repository by a mirror, and the role's variable of each."""
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class HostSettings:
    """Package-index settings of this host; `paths` are the local files that they point to."""

    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    ca_bundle: str | None
    proxies: dict[str, str]
    npm_registry: str | None = None
    mirrors: Mapping[str, str] = field(default_factory=dict)
    """Variables for the roles: addresses, or absolute paths of folders on this host."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Local paths named by the settings, which a container must see too."""
        locations = [self.index_url, *self.extra_index_urls, *self.find_links, *self.mirrors.values()]
        local = [_local_path(location) for location in locations if location]
        return tuple(sorted({path for path in (*local, self.ca_bundle) if path and Path(path).exists()}))

    def uv_environment(self, *, cpu_torch: bool = False) -> dict[str, str]:
        """Environment variables that make uv, which reads none of pip's settings, use the same sources.

        Args:
            cpu_torch: the environment wants PyTorch's CPU build. It comes from pip's find-links where one is
                configured, else from PyTorch's own index; no other environment may see either, because there
                `torch==X` would resolve to the `+cpu` wheel.
        """
        extra = list(self.extra_index_urls)
        if cpu_torch and not self.find_links:
            extra.append(PYTORCH_CPU_INDEX)
        environment = {
            "UV_DEFAULT_INDEX": self.index_url or "",
            "UV_INDEX": " ".join(extra),
            "UV_FIND_LINKS": ",".join(self.find_links) if cpu_torch else "",
            "UV_INDEX_STRATEGY": "unsafe-best-match" if extra else "",
            "SSL_CERT_FILE": self.ca_bundle or "",
            "UV_HTTP_TIMEOUT": "180",
            **self.proxies,
        }
        return {name: value for name, value in environment.items() if value}

    def npm_environment(self) -> dict[str, str]:
        """Environment variables that make npm use this host's registry, CA bundle and proxies."""
        environment = {
            "npm_config_registry": self.npm_registry or "",
            "NODE_EXTRA_CA_CERTS": self.ca_bundle or "",
            **self.proxies,
        }
        return {name: value for name, value in environment.items() if value}


def _local_path(location: str) -> str | None:
    url = urlparse(location)
    if url.scheme == "file":
        # An index URL ends in /simple; its files lie beside that folder.
        path = unquote(url.path).rstrip("/")
        return str(Path(path).parent) if path.endswith("/simple") else path
    return location if url.scheme == "" and location.startswith("/") else None


PIP_LEVELS = ("global", "user", "site", "env", "env_var")
"""Where pip reads settings, the strongest last. `pip config list` has them in another order."""
PIP_LINE = re.compile(
    r"(?P<level>\w+):|  /.*, exists: \w+"
    r"|  PIP_(?P<variable>\w+)=(?P<word>.*)"
    r"|    [\w-]+\.(?P<name>[\w-]+): (?P<value>.*)"
)


def _pip_settings() -> dict[str, list[str]]:
    """pip's effective settings, as words."""
    command = [sys.executable, "-m", "pip", "config", "debug"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    levels: dict[str, dict[str, str]] = {level: {} for level in PIP_LEVELS}
    level, name = "", ""
    for line in listing.splitlines():
        found = PIP_LINE.fullmatch(line)
        if not found:
            # A value of several lines goes on.
            levels[level][name] = f"{levels[level].get(name, '')} {line}"
        elif found["level"]:
            level = found["level"]
        elif found["variable"]:
            name = found["variable"].lower().replace("_", "-")
            levels[level][name] = found["word"].strip("'\"")
        elif found["name"]:
            name = found["name"]
            levels[level][name] = found["value"]
    merged = {name: value for level in PIP_LEVELS for name, value in levels[level].items()}
    return {name: value.split() for name, value in merged.items()}


def _mirrors() -> dict[str, str]:
    """The mirrors that the environment names.

    Raises:
        BuildError: one is neither an address nor a folder of this host.
    """
    found = {}
    for name, variable in MIRRORS.items():
        value = os.environ.get(name, "").rstrip("/")
        if value and not value.startswith(("http://", "https://", "file:///")) and not Path(value).is_absolute():
            raise BuildError(
                f"{name} must be an http, https or file address, or the absolute path of a folder: {value!r}",
                f"correct {name}, or unset it to use the vendor's own repository",
            )
        if value and (path := _local_path(value)) and not Path(path).is_dir():
            raise BuildError(f"{name} names {path}, which is not a folder on this host", f"correct or unset {name}")
        if value:
            found[variable] = value
    return found


def _npm_registry() -> str | None:
    """npm's registry as configured on this host; npm itself need not be installed."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if value := os.environ.get(name):
            return value
    for path in (Path.home() / ".npmrc", Path("/etc/npmrc")):
        if path.is_file() and (found := re.search(r"^\s*registry\s*=\s*(\S+)", path.read_text(), re.MULTILINE)):
            return found[1]
    return None


def _proxies(pip_proxy: str | None) -> dict[str, str]:
    """The environment's proxies; where it names none, pip's, then apt's."""
    found = {name: value for name in PROXY_VARIABLES if (value := os.environ.get(name) or os.environ.get(name.upper()))}
    if found.keys() & {"http_proxy", "https_proxy"}:
        return found
    if pip_proxy:
        return {**found, "http_proxy": pip_proxy, "https_proxy": pip_proxy}
    return {**found, **_apt_proxies()}


def _apt_proxies() -> dict[str, str]:
    """Proxies of apt's configuration files, as environment variables."""
    keys = [word for scheme in ("http", "https") for word in (f"{scheme}_proxy", f"Acquire::{scheme}::Proxy")]
    try:
        said = subprocess.run(["apt-config", "shell", *keys], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    pairs = (word.partition("=") for word in shlex.split(said))
    found = {name: value for name, _, value in pairs if value and value != "DIRECT"}
    # apt uses the first for both unless told otherwise.
    return {"https_proxy": found["http_proxy"], **found} if "http_proxy" in found else found


def read() -> HostSettings:
    """Read the settings of this host."""
    settings = _pip_settings()
    certificates = [os.environ[name] for name in CA_VARIABLES if os.environ.get(name)] + settings.get("cert", [])
    return HostSettings(
        index_url=next(iter(settings.get("index-url", [])), None),
        extra_index_urls=tuple(settings.get("extra-index-url", [])),
        find_links=tuple(settings.get("find-links", [])),
        ca_bundle=next(iter(certificates), None),
        proxies=_proxies(next(iter(settings.get("proxy", [])), None)),
        npm_registry=_npm_registry(),
        mirrors=_mirrors(),
    )


def main() -> None:
    """Run the command given as arguments with uv's sources set as pip's are on this host."""
    os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, **read().uv_environment()})


if __name__ == "__main__":
    main()
