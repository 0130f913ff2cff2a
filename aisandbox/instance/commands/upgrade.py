"""`aisandbox upgrade`: a newer release, and the way back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from aisandbox.instance.commands.console import BAD_INPUT, need_root, say

if TYPE_CHECKING:
    from aisandbox.instance.keep.upgrade.prepare import Instance, Plan
    from aisandbox.instance.keep.upgrade.state import State, Upgrades
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest

PUBLIC_KEY = "release.pub"
"""File of `/etc/aisandbox` with the key that releases must be signed by, in place of the image's own."""


def upgrade(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(help="A release: a folder, its tar, or the address of the folder.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell what would be done.")] = False,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="minisign's public key of whoever made the release.")
    ] = None,
    allow_downgrade: Annotated[bool, typer.Option("--allow-downgrade", help="Take an older release, too.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the release before.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show what runs, what is kept, how the last one ended.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove the release before, and free its disk space.")
    ] = False,
    timeout: Annotated[
        int, typer.Option(min=10, max=7200, help="Seconds that the new release has to serve what was served before.")
    ] = 900,
) -> None:
    """Upgrade to a newer release. Data stay; a release that does not serve is undone by itself."""
    from aisandbox.instance.keep.upgrade.errors import UpgradeError

    places, manifest = context.obj.places, context.obj.manifest
    if [source is not None, rollback, status, forget].count(True) != 1:
        say("Give a release, or one of --rollback, --status and --forget.")
        raise typer.Exit(BAD_INPUT)
    try:
        if status:
            _show(places, manifest)
            return
        need_root(places)
        _need_machine()
        if forget:
            _forget(places)
        elif rollback:
            _roll_back(places, manifest, float(timeout))
        else:
            assert source is not None
            _upgrade(places, manifest, source, public_key, float(timeout), check, allow_downgrade)
    except UpgradeError as error:
        say(f"{error}.\nFix: {error.fix}\nNothing was changed.")
        raise typer.Exit(1) from None


def _upgrade(
    places: Places,
    manifest: Manifest,
    name: str,
    public_key: Path | None,
    timeout_s: float,
    check: bool,
    allow_downgrade: bool,
) -> None:
    from aisandbox.instance.keep.upgrade import prepare
    from aisandbox.instance.keep.upgrade.source import open_source

    key = _key(places, manifest, public_key)
    upgrades, instance = _upgrades(places), _instance(places, manifest)
    source = open_source(name)
    with upgrades.locked():
        release = prepare.read_release(source, key, upgrades.download)
        prepare.check(release, instance, places.root, allow_downgrade)
        plan = prepare.compare(release, upgrades, _tell)
        if plan.empty:
            _tell(f"Version {instance.version} is what the release brings: there is nothing to do.")
            return
        _describe(plan, instance)
        prepare.check_space(plan, source, upgrades)
        if check:
            _tell("Nothing was changed.")
            return
        prepare.fetch(plan, source, upgrades, _tell)
        _begin(places, instance, lambda: prepare.upgrade_state(plan, instance, upgrades, timeout_s))


def _roll_back(places: Places, manifest: Manifest, timeout_s: float) -> None:
    from aisandbox.instance.keep.upgrade import prepare

    upgrades, instance = _upgrades(places), _instance(places, manifest)
    with upgrades.locked():
        _begin(places, instance, lambda: prepare.rollback_state(instance, upgrades, timeout_s))


def _begin(places: Places, instance: Instance, made: Callable[[], State]) -> NoReturn:
    """Hand over to the service that makes the exchange, and follow it.

    From here on, the files of this very program may be exchanged: it goes on as a copy of them.
    """
    import aisandbox
    from aisandbox.instance import files
    from aisandbox.instance.keep.upgrade import prepare
    from aisandbox.instance.keep.upgrade.services import WORKER

    upgrades = _upgrades(places)
    state = made()
    prepare.place_tool(upgrades, instance, Path(aisandbox.__file__).parent)
    files.remove(upgrades.log)
    files.remove(upgrades.result_file)
    upgrades.save(state)
    os.sync()
    subprocess.run(["systemctl", "start", "--no-block", WORKER], check=True)
    environment = {**os.environ, "PYTHONPATH": str(upgrades.tool), "PYTHONDONTWRITEBYTECODE": "1"}
    follow = ["/usr/bin/python3", "-P", "-m", "aisandbox.instance.keep.upgrade.follow", str(upgrades.base)]
    os.execve(follow[0], follow, environment)


def _need_machine() -> None:
    from aisandbox.instance.keep.upgrade.errors import UpgradeError
    from aisandbox.instance.places import PROGRAMS

    if PROGRAMS.exists():
        raise UpgradeError("a container is not upgraded from inside", "start the newer image with the same volumes")


def _key(places: Places, manifest: Manifest, given: Path | None) -> str:
    """The key that releases must be signed by: the one given, else the owner's, else the image's."""
    from aisandbox.instance.keep.upgrade import signature
    from aisandbox.instance.keep.upgrade.errors import UpgradeError

    own = places.etc / PUBLIC_KEY
    path = given or (own if own.exists() else None)
    try:
        if path is not None:
            return signature.read_key(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UpgradeError(f"the public key {path} cannot be used: {reason}", "give minisign's .pub file") from error
    if manifest.release.public_key:
        return manifest.release.public_key
    raise UpgradeError(
        "this image does not say whose releases to trust",
        f"get the vendor's public key from a place that you trust, and give it: --public-key FILE, or as {own}",
    )


def _instance(places: Places, manifest: Manifest) -> Instance:
    from aisandbox.instance import files
    from aisandbox.instance.keep.upgrade.prepare import Instance

    baked = files.read_json(places.release) or {}
    return Instance(
        product=manifest.product.id,
        version=str(baked.get("version", manifest.product.version)),
        flavour=str(baked.get("flavour", "")),
        ports={name: port.port for name, port in manifest.ports.items()},
        run=places.run,
        data=places.data,
    )


def _describe(plan: Plan, instance: Instance) -> None:
    _tell(f"Upgrade from {instance.version} to {plan.release.version}:")
    for line in plan.release.notes:
        _tell(f"  - {line}")
    names = ", ".join(component.name for component in plan.changed) or "nothing"
    _tell(f"Changed: {names}. To fetch: {plan.download / 1e6:.1f} MB; unpacked: {plan.unpacked / 1e6:.1f} MB.")


def _show(places: Places, manifest: Manifest) -> None:
    from aisandbox.instance.keep.upgrade import prepare

    upgrades, instance = _upgrades(places), _instance(places, manifest)
    print(f"Version {instance.version} ({instance.flavour}) is installed.")
    state, result, kept = upgrades.load(), upgrades.result, upgrades.kept
    if state:
        print(f"The {state.operation} to {state.to_version} is under way ({state.phase}).")
        if upgrades.log.exists():
            print(upgrades.log.read_text(encoding="utf-8"), end="")
        print("If nothing moves any more: sudo systemctl restart aisandbox-upgrade")
    if kept:
        size = prepare.disk_use(upgrades) if os.geteuid() == 0 else 0
        taken = f" It takes {size / 1e6:.0f} MB." if size else ""
        print(f"Version {kept['version']} is kept: sudo aisandbox upgrade --rollback leads to it.{taken}")
    if result:
        print(f"{result['at']}: {result['message']} {result['detail']}".strip())
        if result["fix"]:
            print(result["fix"])


def _forget(places: Places) -> None:
    from aisandbox.instance.keep.upgrade import prepare

    upgrades = _upgrades(places)
    with upgrades.locked():
        freed = prepare.forget(upgrades)
    print(f"The release before is gone; {freed / 1e6:.0f} MB are free again.")


def _upgrades(places: Places) -> Upgrades:
    from aisandbox.instance.keep.upgrade.state import Upgrades

    return Upgrades(places.root, places.data)


def _tell(text: str) -> None:
    print(text, flush=True)
