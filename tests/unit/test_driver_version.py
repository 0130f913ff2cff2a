"""The driver that is baked, the oldest that is accepted and vLLM's CUDA stand in three places, and agree."""

from __future__ import annotations

import re

import yaml

from aisandbox.instance.fit import hardware
from aisandbox.manifest import REPOSITORY

VERSIONS = REPOSITORY / "ansible" / "versions.yml"
PINNED = yaml.safe_load(VERSIONS.read_text())["nvidia_driver"]
DEFAULTS = REPOSITORY / "roles" / "nvidia" / "defaults" / "main.yml"
OLDEST = yaml.safe_load(DEFAULTS.read_text())["nvidia_minimum_driver"]


def test_the_pin_is_one_exact_version_of_a_branch_that_serves_cuda() -> None:
    assert re.fullmatch(r"\d{3}\.\d+\.\d+", PINNED)
    assert int(PINNED.split(".")[0]) >= hardware.LEAST_DRIVER


def test_bake_and_instance_accept_the_same_drivers() -> None:
    assert OLDEST == hardware.LEAST_DRIVER


def test_the_cuda_of_the_lock_is_the_one_that_the_driver_is_chosen_for() -> None:
    lock = (REPOSITORY / "locks" / "vllm-cuda.txt").read_text()
    (runtime,) = re.findall(r"^nvidia-cuda-runtime==(\S+)", lock, re.MULTILINE)
    assert runtime.split(".")[0] == hardware.CUDA
