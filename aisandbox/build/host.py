"""What the host hands to the bake: pip's index settings, CA bundle and proxies, passed on as behind a company proxy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
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

    @property
    def paths(self) -> tuple[str, ...]:
        """Local paths named by the settings, which a container must see too."""
        locations = [location for location in (self.index_url, *self.extra_index_urls, *self.find_links) if location]
        local = [_local_path(location) for location in locations]
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


def _pip_settings() -> dict[str, list[str]]:
    """pip's effective settings: files first, environment variables over them, as pip itself merges them."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, list[str]] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rsplit(".", 1)[-1].lower()] = value.strip().strip("'\"").replace("\\n", " ").split()
    return settings


def _npm_registry() -> str | None:
    """npm's registry as configured on this host; npm itself need not be installed."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if value := os.environ.get(name):
            return value
    for path in (Path.home() / ".npmrc", Path("/etc/npmrc")):
        if path.is_file() and (found := re.search(r"^\s*registry\s*=\s*(\S+)", path.read_text(), re.MULTILINE)):
            return found[1]
    return None


def read() -> HostSettings:
    """Read the settings of this host."""
    settings = _pip_settings()
    certificates = [os.environ[name] for name in CA_VARIABLES if os.environ.get(name)] + settings.get("cert", [])
    proxies = {
        name: value for name in PROXY_VARIABLES if (value := os.environ.get(name) or os.environ.get(name.upper()))
    }
    return HostSettings(
        index_url=next(iter(settings.get("index-url", [])), None),
        extra_index_urls=tuple(settings.get("extra-index-url", [])),
        find_links=tuple(settings.get("find-links", [])),
        ca_bundle=next(iter(certificates), None),
        proxies=proxies,
        npm_registry=_npm_registry(),
    )


def main() -> None:
    """Run the command given as arguments with uv's sources set as pip's are on this host."""
    os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, **read().uv_environment()})


if __name__ == "__main__":
    main()
