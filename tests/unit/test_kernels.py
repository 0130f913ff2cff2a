"""FlashInfer's kernels: what is locked agrees, a mirror serves, and what is missing is said with its cure."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from rich.console import Console

from aisandbox import manifest
from aisandbox.builder import bake, host, kernels, lock
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Store, load
from aisandbox.builder.progress import Phases
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.targets import baking
from aisandbox.manifest import REPOSITORY
from tests.support import flashinfer_index

VERSION, LABEL = "0.7.0.post1", "cu130"
REQUIREMENTS = kernels.LOCK.with_suffix(".in").read_text()


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the lock's source, beside nothing else."""
    folder = tmp_path / "locks"
    folder.mkdir()
    shutil.copy(kernels.LOCK.with_suffix(".in"), folder)
    monkeypatch.setattr(lock, "LOCKS", folder)
    monkeypatch.setattr(kernels, "LOCK", folder / "flashinfer-cuda.txt")
    monkeypatch.setattr("sys.argv", ["lock", "flashinfer-cuda"])
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    return folder


def pin(name: str, text: str) -> str:
    found = re.search(rf"^{name}==([^ \\\n]+)", text, re.MULTILINE)
    assert found, name
    return found[1]


def test_the_kernels_are_those_of_the_locked_flashinfer_and_cuda() -> None:
    vllm = (REPOSITORY / "locks" / "vllm-cuda.txt").read_text()
    flashinfer = pin("flashinfer-python", vllm)
    major, minor, *_ = pin("nvidia-cuda-runtime", vllm).split(".")
    assert pin("flashinfer-cubin", REQUIREMENTS) == flashinfer
    assert pin("flashinfer-jit-cache", REQUIREMENTS) == f"{flashinfer}+cu{major}{minor}"
    for name, version in re.findall(r"^(flashinfer[a-z0-9-]*)==(\S+)", kernels.LOCK.read_text(), re.MULTILINE):
        assert version.partition("+")[0] == flashinfer, name


def test_cuda_is_there_once_and_its_compiler_is_of_the_runtimes_version() -> None:
    vllm = (REPOSITORY / "locks" / "vllm-cuda.txt").read_text()
    assert re.findall(r"^\S*cu12\S*==", vllm, re.MULTILINE) == []
    names = ("nvidia-cuda-runtime", "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
    assert {".".join(pin(name, vllm).split(".")[:2]) for name in names} == {"13.0"}
    assert len(re.findall(r"^nvidia-cudnn-cu\d+==", vllm, re.MULTILINE)) == 1


def test_the_lock_has_hashes_of_both_indexes(locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = flashinfer_index.build(tmp_path / "index", VERSION, LABEL)
    monkeypatch.setenv("FLASHINFER_INDEX", index.as_uri())
    assert lock.main() == 0
    text = (locks / "flashinfer-cuda.txt").read_text()
    names = ["cubin", "jit-cache", *(f"jit-cache-{tag}" for tag in flashinfer_index.TAGS)]
    assert re.findall(r"^flashinfer-(\S+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE) == names
    assert "://" not in text


def test_an_index_out_of_reach_leaves_the_lock_and_says_what_helps(
    locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (locks / "flashinfer-cuda.txt").write_text("# as it was\n")
    monkeypatch.setenv("FLASHINFER_INDEX", "http://127.0.0.1:9")
    assert lock.main() == 1
    assert (locks / "flashinfer-cuda.txt").read_text() == "# as it was\n"
    said = capsys.readouterr().err
    assert "locks/flashinfer-cuda.txt stays as it is" in said and "fix: set FLASHINFER_INDEX to a mirror" in said


def test_an_unknown_lock_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["lock", "flashinfer"])
    assert lock.main() == 2
    assert "no lock flashinfer; choose from" in capsys.readouterr().err


def test_what_an_image_lacks_is_said_with_its_cure(
    locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHINFER_INDEX", "https://mirror.test/whl")
    packages = tmp_path / "opt/aisandbox/envs/vllm/lib/python3.11/site-packages"
    (packages / "flashinfer_cubin").mkdir(parents=True)
    kernels.LOCK.write_text("# nothing\n")
    said = str(kernels.missing(tmp_path))
    assert "compiles them for minutes" in said
    assert "make lock ONLY=flashinfer-cuda` where https://mirror.test/whl can be reached" in said
    kernels.LOCK.write_text("flashinfer-cubin==1\n")
    assert "https://mirror.test/whl could not be reached: set FLASHINFER_INDEX" in str(kernels.missing(tmp_path))
    (packages / "flashinfer_jit_cache").mkdir()
    assert kernels.missing(tmp_path) is None


def test_the_manifest_names_the_version_or_none() -> None:
    def package(name: str, place: str = "vllm") -> Package:
        return Package(Kind.python, name, "1+cu130", places=(place,))

    both = (package("flashinfer-cubin"), package("flashinfer-jit-cache"))
    assert kernels.version(Inventory("x", "1", both)) == "1+cu130"
    assert kernels.version(Inventory("x", "1", both[1:])) is None
    assert kernels.version(Inventory("x", "1", tuple(package(p.name, "other") for p in both))) is None


def test_the_vendors_index_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASHINFER_INDEX", raising=False)
    assert kernels.index() == yaml.safe_load(kernels.DEFAULTS.read_text())["vllm_flashinfer_index"]


def test_mirrors_reach_the_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISANDBOX_CACHE", str(tmp_path))
    monkeypatch.setenv("NVIDIA_REPOSITORY", "https://mirror.test/cuda/debian12/x86_64/")
    monkeypatch.setenv("FLASHINFER_INDEX", f"{tmp_path}/")
    job = bake.job("vllm", "", "cuda", tmp_path / "work", tmp_path / "log")
    assert job.variables["nvidia_repository"] == "https://mirror.test/cuda/debian12/x86_64"
    assert job.variables["vllm_flashinfer_index"] == str(tmp_path)
    assert str(tmp_path) in job.read_only, "the container must see the folder"
    remote = baking.without_local_files(host.read()).mirrors
    assert remote == {"nvidia_repository": "https://mirror.test/cuda/debian12/x86_64"}


@pytest.mark.parametrize("value", ["mirror.test/whl", "ftp://mirror.test", "/nowhere/at/all", "file:///nowhere"])
def test_a_mirror_that_is_no_place_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLASHINFER_INDEX", value)
    with pytest.raises(BuildError, match="FLASHINFER_INDEX") as refused:
        host.read()
    assert "unset" in refused.value.fix


def environment(flavour: str) -> dict[str, str]:
    """Environment of vllm.service as Ansible renders it."""
    command = ["--inventory=localhost,", "--connection=local", "localhost", "--module-name=debug"]
    command += ["--args=var=services.vllm.environment", f"--extra-vars=flavour={flavour}", "--playbook-dir=ansible"]
    variables = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "AISANDBOX_REPO": str(REPOSITORY)}
    program = Path(sys.executable).with_name("ansible")
    said = subprocess.run(
        [program, *command], cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, str] = json.loads(said[said.index("{") :])["services.vllm.environment"]
    return found


def test_the_fall_back_is_named_on_the_flavour_cuda_alone() -> None:
    cpu, cuda = environment("cpu"), environment("cuda")
    assert {name: value for name, value in cuda.items() if name in cpu} == cpu
    defaults = yaml.safe_load(kernels.DEFAULTS.read_text())
    env = defaults["vllm_env"].replace("{{ manifest.paths.opt }}", "/opt/aisandbox")
    added = {name: value for name, value in cuda.items() if name not in cpu}
    assert added["CUDA_HOME"] == f"{env}/cuda"
    assert added["PATH"].endswith(f":{env}/bin"), "its programs come last: none of them is to hide one of the system"
    caches = {value for name, value in added.items() if name not in ("AISANDBOX_ENGINE", "CUDA_HOME", "PATH")}
    assert all(f"{place}/".startswith("/var/cache/aisandbox/") for place in caches), "all else is read-only to it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_the_first_boot_gives_vllm_what_triton_compiled_in_the_bake(tmp_path: Path, flavour: str) -> None:
    catalogue = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())
    template = jinja2.Template((REPOSITORY / "roles" / "appliance" / "templates" / "tmpfiles.conf.j2").read_text())
    text = template.render(
        manifest=manifest.load(),
        flavour=flavour,
        vllm_environment_of=catalogue["vllm_environment_of"],
        sandbox_account={"home": "/x"},
        sandbox_sockets="/x",
    )
    lines = [line for line in text.splitlines() if " /var/cache/aisandbox" in line]
    baked = tmp_path / "opt/aisandbox/cache/triton/KEY"
    baked.mkdir(parents=True)
    (baked / "cuda_utils.so").write_text("baked")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("vllm:x:970:970::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("vllm:x:970:\n")
    (tmp_path / "cache.conf").write_text("\n".join(lines) + "\n")
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", tmp_path / "cache.conf"], check=True)
    cache = tmp_path / catalogue["vllm_environment_of"]["cuda"]["TRITON_CACHE_DIR"].lstrip("/")
    assert cache.parent.stat().st_uid == 970
    assert cache.exists() == (flavour == "cuda")
    if flavour == "cuda":
        assert (cache / "KEY" / "cuda_utils.so").read_text() == "baked"
        assert cache.stat().st_uid == 970


@pytest.mark.parametrize(("flavour", "warns"), [("cuda", True), ("cpu", False)])
def test_a_bake_ends_with_the_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, warns: bool
) -> None:
    """Also one that finds everything baked already."""
    monkeypatch.setenv("AISANDBOX_CACHE", str(tmp_path))
    vllm, store = load(flavour)["vllm"], Store()
    for layer in vllm.stack:
        with store.create(layer) as work:
            (work / "layer.json").write_text("{}")
    output = io.StringIO()
    with Phases(Console(file=output)) as phases:
        bake.bake(flavour, phases, until="vllm")
    assert ("WARNING: the image has no FlashInfer kernels" in output.getvalue()) == warns
