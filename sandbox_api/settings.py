"""Every setting of the sandbox, from `SANDBOX_*` environment variables, in one place."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sandbox_api import privileges

MIB = 2**20
REPOSITORY = Path(__file__).resolve().parent.parent
PREFIX = "SANDBOX_"
KEY = "SANDBOX_API_KEY"
"""The name that the image of agent-sandbox documents: one more key, and authentication is on."""
SECRETS = ("api_keys", "jwt_secret", "jwt_public_key")
"""Each may be given as a file, and none is shown."""
OF_OTHERS = {"SANDBOX_BROWSER_ARGUMENTS", "SANDBOX_UID", "SANDBOX_GID"}
"""Read by `sandbox_api.launch` and by compose.yaml."""
SERVICE_LINK = re.compile(r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes sets in every container when a service is called `sandbox` or `sandbox-…`."""
LINKED_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def _default_root() -> Path:
    """The checkout that the package runs from, else the current folder."""
    return REPOSITORY if (REPOSITORY / "marketplace.yaml").exists() else Path.cwd()


def _first_program(*names: str) -> Path | None:
    return next((Path(found) for name in names if (found := shutil.which(name))), None)


def _words(value: Any) -> Any:
    """Split a list that is written with commas or line breaks; return other values unchanged."""
    if not isinstance(value, str):
        return value
    return [word.strip() for word in value.replace("\n", ",").split(",") if word.strip()]


Words = Annotated[tuple[str, ...], NoDecode]
"""A list that is written with commas in an environment variable."""


class Settings(BaseSettings):
    """Sizes are bytes, times are seconds. A secret may also be given as a file: `SANDBOX_API_KEYS_FILE` and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    in_container: bool = Field(False, description="Set in the container image, where the published port is the guard.")
    allow_unauthenticated: bool = Field(
        False, description="Listen beyond loopback without authentication, outside the container."
    )
    allowed_hosts: Words = Field((), description="Further names or addresses that `Host` may carry, with commas.")
    allowed_origins: Words = Field((), description="Further web origins whose pages may call, with commas.")
    trusted_proxies: Words = Field(
        ("127.0.0.1", "::1"), description="Addresses of proxies whose `X-Forwarded-*` headers are believed."
    )

    # Authentication
    auth: bool = Field(False, description="Require a JWT or an API key for every route and websocket.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Accepted API keys of 15 or more characters, with commas."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of HS256 tokens.")
    jwt_public_key: str | None = Field(None, description="PEM public key of RS256 tokens.")
    jwks_url: str | None = Field(None, description="Where the keys of RS256 tokens are published.")
    jwt_audience: str | None = Field(
        None, description="Required `aud` of tokens; without it, tokens that have one are refused."
    )
    jwt_issuer: str | None = Field(None, description="Required `iss` of tokens.")
    ticket_ttl_s: float = Field(30, gt=0, le=3600, description="Life of a one-time ticket.")
    cookie_ttl_s: float = Field(12 * 3600, gt=0, description="Life of the cookie that a ticket is exchanged for.")

    # Places
    root: Path = Field(default_factory=_default_root, description="Everything written at run time lies under it.")
    workspace: Path | None = Field(
        None, validate_default=False, description="Folder of the user's files [ROOT/workspace]."
    )
    file_roots: Words = Field((), description="Further folders that the file API may reach, with commas.")

    # Programs and services beside it. An empty value switches the capability off.
    shell: Path | None = Field(default_factory=lambda: _first_program("bash", "sh"), description="Shell of commands.")
    python: Path = Field(
        default_factory=lambda: Path(sys.executable), description="Python of kernels; it needs ipykernel [its own]."
    )
    node: Path | None = Field(default_factory=lambda: _first_program("node"), description="Node.js of JavaScript code.")
    display: str | None = Field(None, description="X display of the desktop, such as :99.")
    vnc_socket: Path | None = Field(None, description="Unix socket where the VNC server speaks RFB.")
    novnc: Path = Field(Path("/usr/share/novnc"), description="Static files of noVNC.")
    cdp_url: str | None = Field(None, description="Where the browser's DevTools answer, such as http://127.0.0.1:9222.")
    jupyter_socket: Path | None = Field(None, description="Unix socket of Jupyter Lab, served under /jupyter.")
    code_server_socket: Path | None = Field(None, description="Unix socket of code-server.")
    web_assets: Path | None = Field(
        None, description="Folder with xterm.js, Swagger UI and acorn (`npm ci` in locks/web)."
    )
    proxy_ports: str = Field("1024-65535", description="Ports that /proxy/{port}/ may reach, as FIRST-LAST.")
    denied_ports: Annotated[tuple[int, ...], NoDecode] = Field((), description="Ports that /proxy must not reach.")
    display_width: int = Field(1280, ge=320, le=7680, description="Width of the desktop in pixels.")
    display_height: int = Field(800, ge=200, le=4320, description="Height of the desktop in pixels.")

    # Limits
    command_timeout_s: float = Field(120, gt=0, description="Soft timeout: the answer comes, the command goes on.")
    command_hard_timeout_s: float = Field(3600, gt=0, description="Hard timeout: ends everything the command started.")
    command_output_bytes: int = Field(16 * MIB, ge=65536, description="Output kept of one command and stream.")
    answer_output_chars: int = Field(
        50_000, ge=1000, description="Characters of output in one answer; the middle is omitted."
    )
    max_commands: int = Field(64, ge=1, description="Commands that run at the same time.")
    max_sessions: int = Field(64, ge=1, description="Sessions of one kind that exist at the same time.")
    session_idle_s: float = Field(1800, gt=0, description="Idle time after which a session or terminal is ended.")
    code_timeout_s: float = Field(30, gt=0, description="Time for a piece of code when the request names none.")
    rich_output_bytes: int = Field(8 * MIB, ge=65536, description="Pictures, tables and the like in one answer.")
    read_bytes: int = Field(32 * MIB, ge=1024, description="Largest content of one file read; downloads have no limit.")
    body_bytes: int = Field(64 * MIB, ge=1024, description="Largest JSON request.")
    search_timeout_s: float = Field(20, gt=0, le=300, description="Time for one search or listing of files.")
    max_watchers: int = Field(32, ge=1, le=1000, description="File watchers that exist at the same time.")
    upload_bytes: int = Field(4096 * MIB, ge=1024, description="Largest upload.")
    disk_reserve_bytes: int = Field(
        1024 * MIB, ge=0, description="Free space that writes leave on a disk, at most a twentieth of it; 0: none."
    )
    skill_bytes: int = Field(64 * MIB, ge=1024, description="Largest upload of skills, and what it may unpack to.")
    convert_bytes: int = Field(64 * MIB, ge=1024, description="Largest document that is turned into Markdown.")
    convert_timeout_s: float = Field(
        60, gt=0, le=600, description="Time to fetch a document and turn it into Markdown."
    )
    screenshot_bytes: int = Field(32 * MIB, ge=65536, description="Largest screenshot.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="What is logged.")

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in SECRETS:
            if path := os.environ.get(f"{PREFIX}{name.upper()}_FILE"):
                values.setdefault(name, privileges.read_secret(path).strip())
        if key := os.environ.get(KEY, "").strip():
            values["api_keys"] = [*_words(values.get("api_keys", ())), key]
        if key or values.get("jwt_public_key"):  # as in the image of agent-sandbox, which has no other switch
            values.setdefault("auth", True)
        return values

    @model_validator(mode="before")
    @classmethod
    def _drop_linked_port(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A service of Kubernetes that is called `sandbox` sets SANDBOX_PORT=tcp://ADDRESS."""
        if LINKED_ADDRESS.match(str(values.get("port", ""))):
            del values["port"]
        return values

    @field_validator("allowed_hosts", "allowed_origins", "trusted_proxies", "file_roots", "api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _words(value)

    @field_validator("denied_ports", mode="before")
    @classmethod
    def _split_numbers(cls, value: object) -> object:
        return [int(word) for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @field_validator(
        "shell",
        "node",
        "display",
        "vnc_socket",
        "cdp_url",
        "jupyter_socket",
        "code_server_socket",
        "web_assets",
        mode="before",
    )
    @classmethod
    def _empty_is_off(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("root", "workspace", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else value

    @property
    def workspace_path(self) -> Path:
        return self.workspace or self.root / "workspace"

    @property
    def cache(self) -> Path:
        """Runtime files: command output, kernels' connection files, profiles, logs."""
        return self.root / ".cache" / "sandbox"

    @cached_property
    def reachable_roots(self) -> tuple[Path, ...]:
        """Folders that the file API may reach, resolved: workspace, runtime root, temporary folder, further ones."""
        roots = [self.workspace_path, self.root, Path(tempfile.gettempdir()), *map(Path, self.file_roots)]
        return tuple(dict.fromkeys(path.resolve() for path in roots))

    @property
    def beyond_loopback(self) -> bool:
        """Whether other machines can reach the address that it listens on."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True

    def public(self) -> dict[str, Any]:
        """The settings in force, secrets left out, for `GET /v1/sandbox`."""
        return {**self.model_dump(mode="json", exclude=set(SECRETS)), "workspace": str(self.workspace_path)}

    @classmethod
    def documentation(cls) -> list[dict[str, str]]:
        """Name, default and meaning of every setting, for `--help`, the docs and `GET /v1/sandbox`."""
        rows = []
        for name, field in cls.model_fields.items():
            default = "" if field.default_factory or field.default in (None, ()) else field.default
            default = ",".join(default) if isinstance(default, tuple) else str(default)
            rows.append({"name": f"{PREFIX}{name.upper()}", "default": default, "meaning": field.description or ""})
        return rows


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """`SANDBOX_*` variables that nothing here reads, each with the setting that its name resembles, if there is one."""
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    settings |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS} | {KEY}
    unknown = sorted(
        name
        for name, value in environment.items()
        if name.upper().startswith(PREFIX)
        and name.upper() not in settings | OF_OTHERS
        and not _is_service_link(name, value)
    )
    words = [name.removeprefix(PREFIX) for name in settings]  # the prefix alone makes every name resemble every other
    found = {name: difflib.get_close_matches(name.upper().removeprefix(PREFIX), words, n=1) for name in unknown}
    return {name: PREFIX + nearest[0] if nearest else None for name, nearest in found.items()}


def _is_service_link(name: str, value: str) -> bool:
    address = name.endswith("_PORT") and LINKED_ADDRESS.match(value)
    return bool(address or SERVICE_LINK.fullmatch(name.removeprefix(PREFIX)))
