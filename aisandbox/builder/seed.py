"""The NoCloud seed: the user-data, name and network of a local machine, handed to cloud-init as a marketplace would."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from email import message_from_string
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import yaml

from aisandbox.builder import tools
from aisandbox.builder.errors import BuildError

# First lines that cloud-init knows, longest first where one begins another, and the part type of each.
HEADERS = {
    "#!": "x-shellscript",
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config-jsonp": "cloud-config-jsonp",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#include-once": "x-include-once-url",
    "#include": "x-include-url",
    "#part-handler": "part-handler",
    "## template: jinja": "jinja2",
}

# Lists are joined, mappings are filled in, and what is there already stays. It governs the part that carries it.
MERGE = "list(append)+dict(no_replace,recurse_list)+str()"

BOUNDARY = "==aisandbox-user-data=="
FAT_LABEL = "CIDATA"


class UserDataError(BuildError):
    """The deployer's user-data would not do what it says: `line` (from 1) is where, `fix` is what would be right."""

    def __init__(self, line: int, message: str, fix: str) -> None:
        super().__init__(f"user-data, line {line}: {message}", fix)
        self.line = line


def ssh_user_data(public_key: str, user: str, extra: str | None = None) -> str:
    """User-data that lets `public_key` log in as `user`, the default user, and does all that `extra` asks for.

    With `extra` the result has two parts: the deployer's file as it is, then the key, merged so that neither loses.

    Args:
        public_key: one line of an OpenSSH public key file.
        user: name of the default user, made by cloud-init where the image has none of that name.
        extra: the deployer's own user-data: `#cloud-config`, a script, or anything else that cloud-init takes.

    Raises:
        BuildError: the key or the user name is none.
        UserDataError: `extra` is malformed.
    """
    public_key = public_key.strip()
    if not re.fullmatch(r"[a-z][\w.@-]+ [A-Za-z0-9+/]+=*( [^\n]*)?", public_key):
        raise BuildError("this is no OpenSSH public key", "give the content of a .pub file, one line")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise BuildError(f"{user!r} is no user name", "use lower-case letters, digits, - and _")
    access = "#cloud-config\n" + yaml.safe_dump(
        {"user": {"name": user}, "ssh_authorized_keys": [public_key]}, width=10**6
    )
    if extra is None or not extra.strip():
        return access
    kind = check_user_data(extra)
    message = MIMEMultipart(boundary=BOUNDARY)
    for part in _parts(extra) if kind == "mime" else [_part(extra, kind, "deployer")]:
        message.attach(part)
    key_part = _part(access, "cloud-config", "ssh-key")
    key_part["Merge-Type"] = MERGE
    message.attach(key_part)
    return message.as_string()


def check_user_data(text: str) -> str:
    """Check that cloud-init will understand some user-data, and tell its kind.

    Returns:
        The MIME subtype of the part it becomes, such as `cloud-config`, or `mime` for a message of several parts.

    Raises:
        UserDataError: unknown header, invalid YAML, or a `#cloud-config` that is no mapping.
    """
    blank = len(text) - len(text.lstrip())
    first = text[:blank].count("\n") + 1
    body = text[blank:]
    header = body.split("\n", 1)[0].rstrip()
    if re.match(r"(content-type|mime-version):", header, re.IGNORECASE):
        if not list(_parts(text)):
            raise UserDataError(first, "this MIME message has no parts", "write one with: cloud-init devel make-mime")
        return "mime"
    kind = next((kind for start, kind in HEADERS.items() if header.lower().startswith(start)), None)
    if kind is None:
        raise UserDataError(first, f"unknown header {header[:60]!r}", _right_header(header))
    if kind == "cloud-config":
        _check_mapping(text)
    return kind


def narrowed_to(address: str) -> str:
    """Vendor-data by which chat, API and sandbox answer to this address alone, unless user-data says otherwise."""
    return "#cloud-config\n" + yaml.safe_dump({"aisandbox": {"allowed_cidrs": address}})


def write_seed_dir(
    directory: Path,
    *,
    instance_id: str,
    hostname: str,
    user_data: str,
    vendor_data: str = "",
    network_config: str | None = None,
    public_keys: tuple[str, ...] = (),
) -> None:
    """Write the seed as a directory, to be seen in the machine as /var/lib/cloud/seed/nocloud.

    Args:
        instance_id: cloud-init runs its once-per-instance steps again when this changes.
        vendor_data: as a platform gives to all its machines; user-data wins over it.
        network_config: version 1 or 2 network configuration, YAML; without one cloud-init uses DHCP.
        public_keys: keys given the way clouds do, beside the user-data instead of in it.
    """
    # User-data may carry tokens: nobody else reads it.
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in _files(instance_id, hostname, user_data, vendor_data, network_config, public_keys).items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(text)
    if network_config is None:
        (directory / "network-config").unlink(missing_ok=True)


def write_seed_disk(
    path: Path,
    *,
    instance_id: str,
    hostname: str,
    user_data: str,
    network_config: str | None = None,
    public_keys: tuple[str, ...] = (),
) -> None:
    """Write the seed as a small FAT disk labelled CIDATA; the arguments are those of `write_seed_dir`.

    Raises:
        BuildError: mtools or dosfstools is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-seed-", dir=path.parent) as folder:
        files = Path(folder, "files")
        write_seed_dir(
            files,
            instance_id=instance_id,
            hostname=hostname,
            user_data=user_data,
            network_config=network_config,
            public_keys=public_keys,
        )
        image = Path(folder, "disk")
        content = sum(file.stat().st_size for file in files.iterdir())
        os.close(os.open(image, os.O_CREAT | os.O_WRONLY, 0o600))
        os.truncate(image, 2 * 2**20 + content)
        tools.run("mkfs.vfat", "-n", FAT_LABEL, image)
        tools.run("mcopy", "-i", image, *sorted(files.iterdir()), "::")
        shutil.move(image, path)


def _files(
    instance_id: str,
    hostname: str,
    user_data: str,
    vendor_data: str,
    network_config: str | None,
    public_keys: tuple[str, ...],
) -> dict[str, str]:
    meta: dict[str, object] = {"instance-id": instance_id, "local-hostname": hostname}
    if public_keys:
        meta["public-keys"] = list(public_keys)
    files = {"meta-data": yaml.safe_dump(meta, width=10**6), "user-data": user_data, "vendor-data": vendor_data}
    if network_config is not None:
        files["network-config"] = network_config
    return files


def _part(text: str, kind: str, name: str) -> MIMEText:
    part = MIMEText(text.removeprefix("\ufeff"), kind, "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def _parts(text: str) -> list[Message]:
    """The parts of a MIME message; a message of one part is its own."""
    message = message_from_string(text.lstrip())
    if message.is_multipart():
        payload = message.get_payload()
        return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []
    return [message] if str(message.get_payload()).strip() else []


def _right_header(header: str) -> str:
    if re.match(r"#+\s*cloud[-_ ]?config", header, re.IGNORECASE):
        return "write the first line exactly so: #cloud-config"
    if re.match(r"[\w-]+\s*:", header):
        return "put #cloud-config on a line of its own before it"
    return "start the file with #cloud-config (settings) or with #!/bin/sh (a script)"


def _check_mapping(text: str) -> None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        fix = (
            "indent with spaces, not with tabs" if "\\t" in reason else "correct the YAML there, or on the line before"
        )
        raise UserDataError(mark.line + 1 if mark else 1, f"invalid YAML: {reason}", fix) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserDataError(line, f"invalid YAML: {error.reason}", "remove that character") from None
    if node is None:
        raise UserDataError(1, "there is nothing after #cloud-config", "add a setting, such as  aisandbox: {model: …}")
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "plain text"
        raise UserDataError(
            node.start_mark.line + 1,
            f"#cloud-config holds {found}; cloud-init wants a mapping",
            "write   key: value   lines, such as  aisandbox: {model: …}",
        )
