"""What is told of a bake on a platform that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets import find
from aisandbox.builder.targets.failure import explain

GENERAL = BuildError("packer build digitalocean.pkr.hcl failed (exit 1)", "less log")
SUMMARY = """
Build 'digitalocean.image' errored after 169 milliseconds: {0}

==> Some builds didn't complete successfully and had errors:
--> digitalocean.image: {0}

==> Builds finished but no artifacts were created.
"""


def told(folder: Path, text: str) -> BuildError:
    log = folder / "log"
    log.write_text(text)
    return explain(find("digitalocean"), log, GENERAL)


@pytest.mark.parametrize(
    "reason",
    [
        "Error creating temporary SSH key: POST https://api.test/v2/account/keys: 401 Unable to authenticate you",
        "Error creating droplet: POST https://api.test/v2/droplets: 403 You are not authorized",
    ],
)
def test_refused_credentials_name_their_variable(tmp_path: Path, reason: str) -> None:
    error = told(tmp_path, SUMMARY.format(reason))
    assert "DIGITALOCEAN_TOKEN" in str(error) and reason in str(error)
    assert "https://cloud.digitalocean.com/" in error.fix


def test_a_refusal_is_told_in_the_platforms_words(tmp_path: Path) -> None:
    reason = "Error creating droplet: POST https://api.test/v2/droplets: 422 will exceed your droplet limit"
    error = told(tmp_path, SUMMARY.format(reason))
    assert str(error) == f"DigitalOcean: {reason}"
    assert str(tmp_path / "log") in error.fix


def test_a_failed_task_counts_more_than_packers_summary(tmp_path: Path) -> None:
    report = '{"stderr": "403 Forbidden", "msg": "failed"}'
    tasks = f"x.image: TASK [gateway : Install nginx]\nx.image: fatal: [default]: FAILED! => {report}\n"
    text = tasks + SUMMARY.format("Error executing Ansible")
    assert str(told(tmp_path, text)) == "gateway : Install nginx: 403 Forbidden"


def test_an_image_that_fails_the_check_says_which(tmp_path: Path) -> None:
    report = """    digitalocean.image: ok          machine-id             The machine id is empty
    digitalocean.image: error       host-keys              No SSH host keys
    digitalocean.image:             - /etc/ssh/ssh_host_rsa_key
    digitalocean.image: warning     logs                   Logs are empty
    digitalocean.image: error       histories              No shell histories
"""
    error = told(tmp_path, report + SUMMARY.format("Script exited with non-zero exit status: 1"))
    assert str(error) == "the image does not pass the check: host-keys, histories"
    assert "less" in error.fix


def test_without_words_of_anybody_the_general_error_stays(tmp_path: Path) -> None:
    assert told(tmp_path, "") is GENERAL
    assert explain(find("digitalocean"), tmp_path / "none", GENERAL) is GENERAL
