"""The builder's commands: `python -m aisandbox.builder …`. The Makefile is the everyday front to them."""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from aisandbox import manifest
from aisandbox.builder import archive, sandbox, seed, up, virtual
from aisandbox.builder.bake import bake as bake_layers
from aisandbox.builder.commands import check, listing, publish, release, supply, targets
from aisandbox.builder.commands.options import Flavour, FlavourOption
from aisandbox.builder.errors import BuildError
from aisandbox.builder.image import IMAGES
from aisandbox.builder.layers import cache_directory
from aisandbox.builder.machine import Machine, machines
from aisandbox.builder.progress import Phases
from aisandbox.builder.targets.images import make

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)
INTERRUPTED = 130
"""The exit status that typer makes of Ctrl-C."""


class Via(StrEnum):
    nspawn = "nspawn"
    kvm = "kvm"
    tcg = "tcg"


NameOption = Annotated[str, typer.Option(help="Name of the machine.")]
PortOption = Annotated[int, typer.Option(help="Port on loopback where the sandbox is to be reached.")]


@app.command()
def bake(
    flavour: FlavourOption = Flavour.cpu, until: Annotated[str, typer.Option(help="Stop at this layer.")] = "appliance"
) -> None:
    """Bake the missing layers of the root file system."""
    with Phases(console) as phases:
        bake_layers(flavour.value, phases, until)


@app.command()
def image(
    flavour: FlavourOption = Flavour.cpu,
    target: Annotated[str, typer.Option(help="Platform to bake for; without it, all files of the local bake.")] = "",
    source: Annotated[str, typer.Option(help="Image to start from, in place of the platform's Debian 12.")] = "",
) -> None:
    """Bake on this host or on a platform, and write the image's files or its record to build/image/."""
    with Phases(console) as phases:
        for result in make(target, flavour.value, source, phases):
            print(result)


@app.command(name="up")
def up_command(
    model: Annotated[str, typer.Option(help="Hugging Face model to serve, as ORGANISATION/NAME.")] = "",
    user_data: Annotated[Path | None, typer.Option(help="File with cloud-init user-data.")] = None,
    flavour: FlavourOption = Flavour.cpu,
    name: NameOption = "default",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for chat and API.")] = 300,
) -> None:
    """Bake what is missing, boot it, wait until chat and API answer, and print the addresses."""
    choice = _user_data(model, user_data)
    with Phases(console) as phases:
        top = bake_layers(flavour.value, phases)
        machine = up.boot(Machine(name), top, choice, phases, timeout)
    up.publish(machine)
    print(up.summary(machine))


@app.command()
def boot(
    model: Annotated[str, typer.Option(help="Hugging Face model to serve, as ORGANISATION/NAME.")] = "",
    user_data: Annotated[Path | None, typer.Option(help="File with cloud-init user-data.")] = None,
    flavour: FlavourOption = Flavour.cpu,
    via: Annotated[
        Via, typer.Option(help="kvm and tcg: QEMU, with virtualisation or in software (slow).")
    ] = Via.nspawn,
    name: NameOption = "default",
) -> None:
    """Start a machine from the baked image and return as soon as it can be reached by SSH."""
    choice = _user_data(model, user_data)
    with Phases(console) as phases:
        top = bake_layers(flavour.value, phases)
        if via is Via.nspawn:
            machine = Machine(name)
            machine.start(top, choice, narrowed=True)
            with phases.phase("boot", 8):
                machine.wait_for_ssh()
            print(up.summary(machine))
        else:
            print(virtual.summary(virtual.boot(name, top, choice, "kvm" if via is Via.kvm else "tcg", phases)))


def _user_data(model: str, path: Path | None) -> str | None:
    """The deployer's choice as one cloud-config: a file, a model, or the file with the model set in it."""
    text = None
    if path:
        try:
            text = path.read_text()
        except OSError as error:
            raise BuildError(f"user-data {path} cannot be read: {error.strerror}", "make up USER_DATA=FILE") from error
        # Before minutes of baking.
        if text.strip():
            seed.check_user_data(text)
    if not model:
        return text
    product = manifest.load()
    rule = product.options_by_key["model"]
    if rule.pattern and not re.fullmatch(rule.pattern, model):
        raise BuildError(f"{model!r} is not a model name", f"ORGANISATION/NAME, such as {rule.example}")
    if text is None:
        return "#cloud-config\n" + yaml.safe_dump({"aisandbox": {"model": model}})
    if not text.startswith("#cloud-config"):
        raise BuildError(
            "MODEL= can only be combined with user-data of the kind #cloud-config", "set the model in that file"
        )
    config = yaml.safe_load(text) or {}
    config.setdefault("aisandbox", {})["model"] = model
    return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False)


AllOption = Annotated[bool, typer.Option("--all", help="Every machine of this checkout.")]


@app.command()
def down(name: NameOption = "default", everything: AllOption = False) -> None:
    """Power the machine off. Its disk and its data stay."""
    for machine in _named(name, everything):
        machine.stop()
        virtual.stop(machine.name)
        console.print(f"machine {machine.name} is down", highlight=False)


@app.command()
def remove(name: NameOption = "default", everything: AllOption = False) -> None:
    """Stop the machine and delete its disk and its data."""
    for machine in _named(name, everything):
        machine.remove()
        virtual.stop(machine.name, remove=True)


def _named(name: str, everything: bool) -> list[Machine]:
    if not everything:
        return [Machine(name)]
    return [Machine(known) for known in sorted({machine.name for machine in machines()} | set(virtual.names()))]


@app.command()
def ssh(name: NameOption = "default", command: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Log in to the machine, or run a command on it."""
    argv = _running(name).ssh_command(*(command or []))
    os.execvp(argv[0], argv)


@app.command()
def tunnel(name: NameOption = "default", port: PortOption = sandbox.PORT) -> None:
    """Show the machine's sandbox at a port of this host, until interrupted."""
    *options, host = _running(name).ssh_command()
    forward = f"127.0.0.1:{port}:localhost:{manifest.load().ports['sandbox'].port}"
    argv = [*options, "-N", "-o", "ExitOnForwardFailure=yes", "-L", forward, host]
    print(f"The sandbox is at http://localhost:{port} until you press Ctrl-C.", flush=True)
    os.execvp(argv[0], argv)


@app.command()
def status(name: NameOption = "default") -> None:
    """Show the state of the machine and of its services."""
    machine = Machine(name)
    if not machine.running:
        print(f"machine {name} is not running   (start it: make up)")
        raise typer.Exit(1)
    print(up.summary(machine), flush=True)
    argv = machine.ssh_command("sudo", "aisandbox", "status")
    os.execvp(argv[0], argv)


@app.command()
def logs(name: NameOption = "default", follow: Annotated[bool, typer.Option("--follow", "-f")] = False) -> None:
    """Show the journal of the machine's services, or its console when SSH does not answer."""
    machine = Machine(name)
    if machine.running and machine.run("true", check=False).returncode == 0:
        argv = machine.ssh_command("sudo", "aisandbox", "logs", *(["--follow"] if follow else []))
        os.execvp(argv[0], argv)
    console.print(f"no SSH; the console of machine {name} ({machine.console}):", highlight=False)
    if machine.console.exists():
        print(machine.console.read_text(errors="replace"))


WorkspaceOption = Annotated[Path, typer.Option(help="Folder of this host that is /workspace inside.")]
ContainerOption = Annotated[str, typer.Option("--name", help="Name of the container.")]


@app.command()
def sandbox_up(
    port: PortOption = sandbox.PORT,
    workspace: WorkspaceOption = sandbox.WORKSPACE,
    name: ContainerOption = sandbox.Container.name,
    memory: Annotated[str, typer.Option(help="Most memory that the container may use.")] = sandbox.Container.memory,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for all its parts.")] = 120,
) -> None:
    """Bake what is missing of the sandbox's container, start it, wait until it works, and print the addresses."""
    container = sandbox.Container(name, port, workspace.absolute(), memory)
    with Phases(console) as phases:
        sandbox.up(container, archive.bake_image(phases), phases, timeout)
    print(sandbox.summary(container))


@app.command()
def sandbox_down(name: ContainerOption = sandbox.Container.name) -> None:
    """Stop the sandbox's container. Its workspace and its state stay."""
    there = sandbox.down(sandbox.Container(name))
    console.print(f"container {name} is down" if there else f"there is no container {name}", highlight=False)


@app.command()
def sandbox_image(
    output: Annotated[Path, typer.Option(help="File to write.")] = IMAGES / "sandbox.tar",
) -> None:
    """Bake the sandbox's container and write its image as an archive for `docker load` and `podman load`."""
    with Phases(console) as phases:
        image = archive.bake_image(phases)
        archive.write(image, output.absolute(), phases, compressed=True)
    print(f"{output}   {output.stat().st_size / 2**20:.0f} MiB   {image.reference}")


for module in (targets, check, supply, listing, publish, release):
    module.register(app)


def _running(name: str) -> Machine:
    machine = Machine(name)
    if not machine.running:
        raise BuildError(f"machine {name} is not running", "make up")
    return machine


UNMOUNTABLE = ",:\\"
"""Characters that the options of an overlay mount cannot hold in a path."""


def _check_paths() -> None:
    for path in (manifest.REPOSITORY, cache_directory()):
        if set(UNMOUNTABLE).intersection(str(path)):
            raise BuildError(
                f"the path {path} contains a comma, a colon or a backslash, which overlay mounts do not allow",
                "move the checkout to another folder, or set AISANDBOX_CACHE",
            )


def main() -> None:
    """Run a command; what a person can mend is told in two lines, without a traceback."""
    # Messages of other programs are read here, and what is made here is for the image's services, too.
    os.environ["LC_ALL"] = "C.UTF-8"
    os.umask(0o022)
    try:
        _check_paths()
        app()
    except BuildError as error:
        console.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        console.print(f"  fix: {error.fix}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except manifest.ManifestError as error:
        console.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            console.print(
                "interrupted: nothing is left mounted or running; the same command goes on from here",
                highlight=False,
                soft_wrap=True,
            )
        raise
