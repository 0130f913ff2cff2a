"""Keys, tokens and other secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from aisandbox.check.model import Finding, Subject, check, entries
from aisandbox.check.tree import Entry

KEY_NAMES = re.compile(
    r"\.(pem|key|priv|p12|pfx|p8|ppk|jks|keystore|kdbx?)$|/(id_\w+|\w*_key|identity)$", re.IGNORECASE
)
KEY_BINARY = re.compile(r"\.(p12|pfx|ppk|jks|keystore|kdbx?)$", re.IGNORECASE)
PRIVATE = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----\s*[A-Za-z0-9+/=]")
FIXTURES = re.compile(r"/(site-packages|dist-packages|node_modules)/.*/(tests?|testdata|fixtures)/")
"""Samples that packages publish for their own tests: no secrets."""
LARGEST_TEXT = 2**20
TOKENS: dict[str, re.Pattern[bytes]] = {
    "a key of AWS": re.compile(rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a secret key of AWS": re.compile(rb"(?i)aws_secret_access_key\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}"),
    "a token of DigitalOcean": re.compile(rb"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    "a token of GitHub": re.compile(rb"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})"),
    "a token of GitLab": re.compile(rb"\bglpat-[A-Za-z0-9_-]{20}"),
    "a token of Hugging Face": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "a token of npm": re.compile(rb"\bnpm_[A-Za-z0-9]{36}\b|:_authToken\s*="),
    "a token of PyPI": re.compile(rb"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
    "a token of Slack": re.compile(rb"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    "a key of Google": re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b"),
    "an account of a service of Google": re.compile(rb"\"type\"\s*:\s*\"service_account\""),
    "a key of an API": re.compile(rb"\bsk-(proj-|ant-)?[A-Za-z0-9_-]{40,}"),
    "an address with a password": re.compile(
        rb"\b(https?|ftp|s3)://[^\s/:@'\"<>]{1,64}:[^\s/:@'\"<>{$]{3,}@[A-Za-z0-9]"
    ),
}
SSH_FOLDERS = (".ssh/*", ".ssh2/*", ".rhosts", ".shosts")
MOK = re.compile(r"^/root/(MOK|[^/]*\.priv$)")
LOGINS = (
    ".aws/*", ".azure/*", ".boto", ".config/doctl/*", ".config/gcloud/*", ".config/gh/hosts.yml", ".config/hcloud/*",
    ".config/linode-cli", ".docker/config.json", ".git-credentials", ".gnupg/private-keys-v1.d/*", ".huggingface/token",
    ".kube/config", ".netrc", ".npmrc", ".packer.d/*", ".pgpass", ".pypirc", ".s3cfg",
    ".vault-token",
)  # fmt: skip
SEARCHED = ("/etc", "/root", "/home", "/srv", "/usr/local", "/var", "/opt", "/boot", "/mnt", "/media")
NOT_SEARCHED = re.compile(r"^/var/lib/dpkg/info/|/(site-packages|dist-packages|node_modules|__pycache__)/")
"""Published code and its notes. Its private keys are looked for all the same, by their names."""


@check(
    "No SSH host keys",
    why="All instances would have the same identity, and whoever has the image could pretend to be them.",
    fix="rm /etc/ssh/ssh_host_*",
    sources=("image-builder", "DigitalOcean cleanup", "AWS", "Azure"),
)
def ssh_host_keys(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/etc/ssh/ssh_host_*", "/etc/ssh/*_key", "/etc/dropbear/*_key"))


@check(
    "Nothing in root's .ssh",
    why="A key there lets the builder into every instance; known hosts tell where the builder has been.",
    fix="rm -r /root/.ssh",
    sources=("DigitalOcean 14", "AWS"),
)
def root_ssh_files(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob(*(f"/root/{name}" for name in SSH_FOLDERS)))


@check(
    "Nothing in anybody's .ssh",
    why="A key there lets the builder into every instance. DigitalOcean's own script looks for a file named '*'.",
    fix="rm -r HOME/.ssh",
    sources=("DigitalOcean 11", "AWS"),
)
def user_ssh_files(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob(*(f"{home}/{name}" for home in subject.homes for name in SSH_FOLDERS)))


@check(
    "No list of SSH keys anywhere else",
    why="sshd can be told to look in other places, and authorities can be trusted; a search of the homes misses both.",
    fix="rm the file; remove AuthorizedKeysFile, AuthorizedKeysCommand and TrustedUserCAKeys",
    sources=("AWS", "stricter than the vendors"),
)
def authorized_keys(subject: Subject) -> Iterator[Finding]:
    homes = tuple(f"{home}/.ssh/" for home in ("/root", *subject.homes))
    for entry in subject.tree.entries:
        name = entry.path.rpartition("/")[2]
        if name in ("authorized_keys", "authorized_keys2") and entry.size and not entry.path.startswith(homes):
            yield Finding(entry.path)
    for setting in ssh_settings(subject):
        if setting.name in ("authorizedkeysfile", "authorizedkeyscommand", "trustedusercakeys"):
            yield Finding(setting.path, f"sets {setting.name}")


@check(
    "No private key",
    why="A key that is in an image is known to everybody who has the image.",
    fix="rm it, and replace it where it was in use",
    sources=("AWS", "Azure"),
)
def private_keys(subject: Subject) -> Iterator[Finding]:
    for entry in _key_files(subject):
        if KEY_BINARY.search(entry.path):
            yield Finding(entry.path, "a store of keys")
        elif PRIVATE.search(subject.tree.read(entry.path, LARGEST_TEXT) or b""):
            yield Finding(entry.path)


@check(
    "No Machine Owner Key",
    why="Whoever enrols it trusts what it signs. Shared with everybody, it signs anybody's kernel modules.",
    fix="rm -r /var/lib/shim-signed/mok /var/lib/dkms/mok.*",
    sources=("GPU: kairos#1065", "Forge-OS#66"),
)
def mok_keys(subject: Subject) -> Iterator[Finding]:
    yield from entries(
        subject.tree.glob(
            "/var/lib/shim-signed/mok/*", "/var/lib/dkms/mok.*", "/root/*.priv", "/root/MOK*", "/etc/dkms/mok*"
        )
    )


@check(
    "No token and no password in text files",
    why="AWS scans for them and refuses the image; everybody who has the image has them.",
    fix="rm the file or the line, and revoke the token",
    sources=("AWS", "azhpc-images"),
)
def tokens(subject: Subject) -> Iterator[Finding]:
    keys = {entry.path for entry in _key_files(subject)}
    for entry in subject.tree.files(*SEARCHED):
        if not 0 < entry.size <= LARGEST_TEXT or NOT_SEARCHED.search(entry.path):
            continue
        content = subject.tree.read(entry.path, LARGEST_TEXT) or b""
        if b"\0" in content[:1024]:
            continue
        for what, pattern in TOKENS.items():
            if match := pattern.search(content):
                line = content.count(b"\n", 0, match.start()) + 1
                yield Finding(entry.path, f"line {line}: {what}")
        if entry.path not in keys and PRIVATE.search(content):
            yield Finding(entry.path, "a private key")


@check(
    "No login to another service",
    why="Tools keep the builder's logins in the home folder.",
    fix="rm it",
    sources=("AWS", "azhpc-images"),
)
def credential_files(subject: Subject) -> Iterator[Finding]:
    places = ("/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*", "/etc/docker/key.json", "/etc/kubernetes/admin.conf")
    yield from entries(e for e in subject.tree.glob(*subject.in_homes(*LOGINS), *places) if e.size)


@dataclass(frozen=True)
class SshSetting:
    """One setting of the SSH server."""

    path: str
    name: str
    """In small letters."""
    value: str
    condition: str = ""
    """The words of the Match block that it stands in; empty where it is for everybody."""


def ssh_settings(subject: Subject) -> Iterator[SshSetting]:
    """The SSH server's settings in the order in which they count.

    The first of a name wins among those for everybody, and one in a Match block over all of them.
    """
    yield from _ssh_settings(subject, "/etc/ssh/sshd_config", "", 0)


def _ssh_settings(subject: Subject, path: str, condition: str, depth: int) -> Iterator[SshSetting]:
    for line in subject.tree.lines(path):
        name, *values = _words(line)
        name, value = name.lower(), " ".join(values)
        if name == "match":
            condition = value
        elif name == "include" and depth < 16:
            patterns = (p if p.startswith("/") else f"/etc/ssh/{p}" for p in values)
            for entry in sorted(subject.tree.glob(*patterns)):
                yield from _ssh_settings(subject, entry.path, condition, depth + 1)
        else:
            yield SshSetting(path, name, value, condition)


def _words(line: str) -> list[str]:
    """The words of a line of sshd_config: a = may follow the name, quotes hold blanks, and a # begins a comment."""
    name, *rest = re.split(r"\s*=\s*|\s+", line, maxsplit=1)
    try:
        return [name, *shlex.split(" ".join(rest), comments=True)]
    except ValueError:  # a quote that does not end, at which sshd does not start
        return [name, *rest]


def _key_files(subject: Subject) -> Iterator[Entry]:
    """Files that look like keys, published samples left out."""
    for entry in subject.tree.entries:
        if entry.is_file and entry.size and KEY_NAMES.search(entry.path) and not FIXTURES.search(entry.path):
            yield entry
