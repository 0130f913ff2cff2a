"""The NoCloud seed: what cloud-init is given, and what a deployer hears about a malformed file."""

from __future__ import annotations

import stat
import subprocess
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml

from aisandbox.builder import seed
from aisandbox.builder.errors import BuildError
from aisandbox.instance.choose.options import cloud_init, decide
from tests.support import appliance

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBlRMLHZ3V0cTZtMWqVKwM2i0OS5rVfUT2dLLzMzVDmX someone@somewhere"


def parts(text: str) -> list[tuple[str, str, str | None]]:
    """Type, content and merge rule of each part."""
    message = message_from_string(text)
    assert message.is_multipart()
    found = []
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((part.get_content_type(), content.decode(), part["Merge-Type"]))
    return found


def test_key_alone_is_plain_cloud_config() -> None:
    text = seed.ssh_user_data(KEY + "\n", "sandbox", None)
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {"user": {"name": "sandbox"}, "ssh_authorized_keys": [KEY]}
    assert seed.check_user_data(text) == "cloud-config"
    assert seed.ssh_user_data(KEY, "sandbox", " \n") == text


def test_deployers_cloud_config_is_kept_and_the_key_is_added() -> None:
    extra = "#cloud-config\naisandbox:\n  model: a/b # größer\nssh_authorized_keys: [theirs]\nmerge_how: list()\n"
    (kind, content, _), (key_kind, key, merge) = parts(seed.ssh_user_data(KEY, "sandbox", extra))
    assert (kind, content) == ("text/cloud-config", extra)
    assert key_kind == "text/cloud-config"
    assert KEY in key
    # The part with the key comes last and carries its own rule, so that no `merge_how` of the first part governs it.
    assert merge == seed.MERGE


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("#!/bin/sh\necho hi\n", "text/x-shellscript"),
        ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        ("## template: jinja\n#cloud-config\nhostname: {{ v1.cloud_name }}\n", "text/jinja2"),
        ("#include\nhttp://localhost/more\n", "text/x-include-url"),
        ("#cloud-config-archive\n- content: x\n", "text/cloud-config-archive"),
    ],
)
def test_other_kinds_become_parts_of_their_own(extra: str, kind: str) -> None:
    first, last = parts(seed.ssh_user_data(KEY, "sandbox", extra))
    assert first[:2] == (kind, extra)
    assert KEY in last[1]


def test_a_message_of_parts_gets_one_more() -> None:
    inner = seed.ssh_user_data(KEY.replace("someone", "other"), "sandbox", "#!/bin/sh\n")
    assert [kind for kind, _, _ in parts(seed.ssh_user_data(KEY, "sandbox", inner))] == [
        "text/x-shellscript",
        "text/cloud-config",
        "text/cloud-config",
    ]


@pytest.mark.parametrize(
    ("text", "line", "says", "fix"),
    [
        ("aisandbox:\n  model: a/b\n", 1, "unknown header 'aisandbox:'", "#cloud-config on a line of its own"),
        ("\n\n# cloud-config\na: 1\n", 3, "unknown header", "exactly so: #cloud-config"),
        ("hello", 1, "unknown header", "#!/bin/sh"),
        ("", 1, "unknown header", "#cloud-config"),
        ("#cloud-config\na: 1\nb: [1, 2\nc: 3\n", 4, "invalid YAML", "correct the YAML"),
        ("#cloud-config\na:\n\tb: 1\n", 3, "invalid YAML", "tabs"),
        ("#cloud-config\na: 1\n b: 2\n", 3, "invalid YAML", "correct the YAML"),
        ("#cloud-config\na: x\x07y\n", 2, "invalid YAML", "remove that character"),
        ("#cloud-config\n# more\n- a\n- b\n", 3, "holds a list", "key: value"),
        ("#cloud-config\nmodel\n", 2, "holds plain text", "key: value"),
        ("#cloud-config\n# only this\n", 1, "nothing after", "add a setting"),
        ("Content-Type: text/plain\n\n", 1, "no parts", "make-mime"),
    ],
)
def test_malformed_user_data_names_line_and_fix(text: str, line: int, says: str, fix: str) -> None:
    with pytest.raises(seed.UserDataError) as caught:
        seed.check_user_data(text)
    assert caught.value.line == line
    assert f"line {line}:" in str(caught.value)
    assert says in str(caught.value)
    assert fix in caught.value.fix


@pytest.mark.parametrize(("key", "user"), [("nonsense", "sandbox"), (KEY + "\n" + KEY, "sandbox"), (KEY, "Not a user")])
def test_bad_key_or_user_is_refused(key: str, user: str) -> None:
    with pytest.raises(BuildError):
        seed.ssh_user_data(key, user)


def arguments(**more: Any) -> dict[str, Any]:
    return {"instance_id": "i-1", "hostname": "sandbox", "user_data": "#cloud-config\n{}\n"} | more


def test_directory_is_private_and_follows_its_arguments(tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    seed.write_seed_dir(folder, **arguments(network_config="version: 2\n", public_keys=(KEY,)))
    assert {file.name for file in folder.iterdir()} == {"meta-data", "user-data", "vendor-data", "network-config"}
    assert yaml.safe_load((folder / "meta-data").read_text()) == {
        "instance-id": "i-1",
        "local-hostname": "sandbox",
        "public-keys": [KEY],
    }
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    seed.write_seed_dir(folder, **arguments())
    assert not (folder / "network-config").exists()
    assert (folder / "vendor-data").read_text() == ""


def test_a_machine_can_be_narrowed_to_its_host(tmp_path: Path) -> None:
    """As a platform would: by vendor-data, which the deployer's own options win over."""
    seed.write_seed_dir(tmp_path, **arguments(vendor_data=seed.narrowed_to("192.0.2.1")))
    places = appliance.make(tmp_path / "instance")
    instance = places.cloud_instance
    instance.mkdir(parents=True, exist_ok=True)
    # What cloud-init makes of it.
    (instance / "vendor-cloud-config.txt").write_text((tmp_path / "vendor-data").read_text())
    for own, networks in (
        ("", "192.0.2.1/32"),
        ("allowed_cidrs: 0.0.0.0/0", "0.0.0.0/0"),
        ("sandbox: public", "192.0.2.1/32"),
    ):
        (instance / "cloud-config.txt").write_text(f"#cloud-config\naisandbox: {{{own}}}\n")
        sources = cloud_init.read(places, list(appliance.MANIFEST.options_by_key))
        decision = decide(sources, appliance.MANIFEST)
        assert (decision.choice.allowed_cidrs, decision.problems) == (networks, ())


def test_disk_reads_back(tmp_path: Path) -> None:
    image = tmp_path / "seed.img"
    user_data = "#cloud-config\n" + "".join(f"# {number}\n" for number in range(100_000)) + "a: ü\n"
    seed.write_seed_disk(image, **arguments(user_data=user_data, network_config="version: 2\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["seed.img"]
    label = subprocess.run(["blkid", "-p", "-s", "LABEL", "-o", "value", image], capture_output=True, check=True)
    assert label.stdout.strip() == b"CIDATA"
    # Something that looks like a partition table would keep programs from seeing the file system.
    table = subprocess.run(["blkid", "-p", "-s", "PTTYPE", "-o", "value", image], capture_output=True, check=False)
    assert table.stdout.strip() == b""
    for name, text in {"user-data": user_data, "network-config": "version: 2\n", "vendor-data": ""}.items():
        read = subprocess.run(["mtype", "-i", image, f"::{name}"], capture_output=True, check=True)
        assert read.stdout.decode() == text
