"""The layers of the image: which change bakes which layer again, and what the store keeps."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from aisandbox.builder import appliance_container, archive, layers
from aisandbox.builder.layers import Layer, Store
from aisandbox.manifest import REPOSITORY

OF_BASE = "roles/vllm/tasks/packages.yml"
TOPS = {layers.TOP, appliance_container.TOP}


def layer(name: str, *parents: Layer, inputs: tuple[str, ...] = ()) -> Layer:
    return Layer(name=name, flavour="cpu", parents=parents, inputs=inputs, seconds=1)


def test_the_real_definitions_load_and_end_in_the_appliance_and_the_containers() -> None:
    real = layers.load("cpu")
    names = list(real)
    assert names[0] == "debian"
    assert real[appliance_container.TOP].parents == (real[layers.TOP],)
    stack = [below.name for below in real[layers.TOP].stack]
    container = [below.name for below in layers.stack((real[archive.BASE], real[archive.SOURCE]))]
    assert {*stack, *container, appliance_container.TOP} == set(names)
    assert stack.index("desktop") < stack.index("machine") < stack.index("appliance")
    assert stack.index("base") < stack.index("vllm") < stack.index("guide") < stack.index("appliance")


def test_layers_that_install_debian_packages_form_one_chain_in_every_image() -> None:
    """Two package databases cannot be stacked."""
    real = layers.load("cpu")
    installing = ["debian", *(name for name in real if _installs_packages(name))]
    images = {
        "machine": ["debian", "base", "desktop", "machine", "appliance"],
        "container": ["debian", "base", "desktop", "container"],
        "appliance's container": ["debian", "base", "desktop", "machine", "appliance", "appliance-container"],
    }
    tops = zip(images, ("appliance", "container", "appliance-container"), strict=True)
    for image, top in tops:
        chain = [layer.name for layer in real[top].stack if layer.name in installing]
        assert chain == images[image]
        for below, above in pairwise(chain):
            assert below in {layer.name for layer in real[above].stack}, f"{above} does not build on {below}"


def test_the_container_has_nothing_of_a_machine() -> None:
    """It is baked from its own base, so that nothing of a machine has to be removed again."""
    real = layers.load("cpu")
    stack = layers.stack((real[archive.BASE], real[archive.SOURCE]))
    assert not {"machine", "appliance"} & {layer.name for layer in stack}


def test_what_vllm_needs_of_debian_is_installed_in_the_layer_base() -> None:
    """The file belongs to the role vllm, roles/base runs it, and a change of it bakes `base` again: on cuda alone."""
    base = yaml.safe_load((REPOSITORY / "roles" / "base" / "tasks" / "main.yml").read_text())
    included = [task for task in base if task.get("ansible.builtin.include_role", {}).get("name") == "vllm"]
    assert [(task["ansible.builtin.include_role"]["tasks_from"], task["when"]) for task in included] == [
        ("packages", "flavour == 'cuda'")
    ]
    inputs = {flavour: " ".join(layers.load(flavour)["base"].inputs) for flavour in ("cpu", "cuda")}
    assert OF_BASE in inputs["cuda"] and OF_BASE not in inputs["cpu"]
    others = [path for path in (REPOSITORY / "roles" / "vllm" / "tasks").glob("*.yml") if path.name != "packages.yml"]
    assert not any("packages.yml" in path.read_text() for path in others), "the layer vllm must not run it, too"


def test_files_of_one_flavour_are_inputs_of_it_alone() -> None:
    inputs = {flavour: " ".join(layers.load(flavour)["vllm"].inputs) for flavour in ("cpu", "cuda")}
    assert "locks/flashinfer-cuda.txt" in inputs["cuda"]
    assert "locks/flashinfer-cuda.txt" not in inputs["cpu"]


def _installs_packages(name: str) -> bool:
    play = yaml.safe_load(layers.PLAYBOOK.read_text())[0]
    roles = [REPOSITORY / "roles" / entry["role"] / "tasks" for entry in play["roles"] if name in entry["tags"]]
    files = [file for folder in roles for file in folder.glob("*.yml") if str(file.relative_to(REPOSITORY)) != OF_BASE]
    return any("ansible.builtin.apt:" in file.read_text() for file in files)


def test_a_change_of_the_sandboxs_source_bakes_only_quick_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = layers.load("cpu")
    real = layers._digest_tree

    def changed(path: Path):  # type: ignore[no-untyped-def]
        yield from real(path)
        if path.name == "sandbox_api":
            yield "one more line"

    monkeypatch.setattr(layers, "_digest_tree", changed)
    after = layers.load("cpu")
    assert {name for name in before if before[name].key != after[name].key} == {"sandbox", *TOPS}


def test_other_packages_of_the_bootstrap_bake_everything_again() -> None:
    debian = layers.load("cpu")["debian"]
    assert debian.packages
    assert debian.key != replace(debian, packages=(*debian.packages, "systemd")).key


def test_flavours_share_no_key() -> None:
    cpu, cuda = layers.load("cpu"), layers.load("cuda")
    assert not {x.key for x in cpu.values()} & {x.key for x in cuda.values()}


def test_a_change_reaches_only_what_stands_on_it() -> None:
    base = layer("base")
    left, right = layer("left", base), layer("right", base)
    changed = layer("left", base, inputs=("x",))
    assert layer("top", left, right).key != layer("top", changed, right).key
    assert right.key == layer("right", layer("base")).key


def test_late_role_leaves_early_layers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = layers.load("cpu")
    real = layers._digest_tree

    def changed(path: Path):  # type: ignore[no-untyped-def]
        yield from real(path)
        if path.name == "motd":
            yield "one more line"

    monkeypatch.setattr(layers, "_digest_tree", changed)
    after = layers.load("cpu")
    assert {name for name in before if before[name].key != after[name].key} == TOPS


def test_marketplaces_texts_are_no_input_of_the_image() -> None:
    inputs = layers.load("cpu")["appliance"].inputs
    assert any(line.startswith("templates/nginx/") for line in inputs)
    assert not any(line.startswith("templates/listing/") for line in inputs)


def test_molecule_scenarios_are_no_input() -> None:
    assert not any("molecule" in line for x in layers.load("cpu").values() for line in x.inputs)


def test_shared_parents_are_stacked_once() -> None:
    base = layer("base")
    top = layer("top", layer("left", base), layer("right", base))
    assert [below.name for below in top.stack] == ["base", "left", "right", "top"]


def test_a_layer_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    store, one = Store(tmp_path), layer("one")
    with pytest.raises(RuntimeError), store.create(one) as work:
        (work / "root" / "half").write_text("")
        raise RuntimeError
    assert not store.has(one)
    with store.create(one) as work:
        assert not (work / "root" / "half").exists(), "what the interrupted bake left must be gone"
        (work / "overlay").mkdir()
        (work / "layer.json").write_text('{"seconds": 1}')
    assert store.has(one)
    assert store.info(one) == {"seconds": 1}
    assert not (store.path(one) / "overlay").exists()


def test_lower_directories_are_uppermost_first(tmp_path: Path) -> None:
    base = layer("base")
    top = layer("top", base)
    store = Store(tmp_path)
    assert store.lower_directories(top) == f"{store.rootfs(top)}:{store.rootfs(base)}"


def test_prune_keeps_the_two_newest_and_what_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    versions = [layer("one", inputs=(str(number),)) for number in range(5)]
    for age, version in enumerate(versions):
        with store.create(version) as work:
            (work / "layer.json").write_text("{}")
        os.utime(store.path(version), (1000 + age, 1000 + age))
    removed = store.prune(keep={versions[0].id})
    assert sorted(removed) == sorted([versions[1].id, versions[2].id])
    assert all(store.has(version) for version in (versions[0], versions[3], versions[4]))


def test_bakes_that_end_together_prune_one_after_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(200):
        with store.create(layer("one", inputs=(str(number),))) as work:
            (work / "layer.json").write_text("{}")
    with ThreadPoolExecutor(4) as pool:
        removed = [name for names in pool.map(store.prune, [set[str]()] * 4) for name in names]
    assert len(removed) == len(set(removed)) == 198


def test_prune_removes_what_a_killed_bake_left_but_not_one_under_way(tmp_path: Path) -> None:
    store, dead, alive = Store(tmp_path), layer("dead"), layer("alive")
    with store.lock(dead):
        (store.root / f".partial-{dead.id}").mkdir()
    with store.lock(alive):
        (store.root / f".partial-{alive.id}").mkdir()
        store.prune(keep=set())
        assert not (store.root / f".partial-{dead.id}").exists()
        assert (store.root / f".partial-{alive.id}").exists()


def test_mounted_layers_are_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lower, other = layer("lower"), layer("other")
    for one in (lower, other):
        with store.create(one) as work:
            (work / "layer.json").write_text("{}")
    assert store.in_use() == set()
    second = tmp_path / "second"
    second.mkdir()
    options = f"lowerdir={store.lower_directories(lower)}:{second}"
    mount = f"mount -t overlay overlay -o {options} /mnt && echo up && read x"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == "up\n"
        assert store.in_use() == {lower.id}
        holder.communicate("\n")
    assert store.in_use() == set()
