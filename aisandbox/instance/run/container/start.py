"""Entry point of the container: from its environment variables to supervisord, which takes the place of this process.

Does what systemd and cloud-init do on a machine before the services start: makes their places, in a volume that may be
empty, forgets what belongs to the run before, and applies the choice.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from aisandbox import manifest as manifests
from aisandbox.instance import files
from aisandbox.instance.places import PROGRAMS, Places
from aisandbox.instance.run import services
from aisandbox.instance.run.container import environment
from aisandbox.instance.run.container.catalogue import Catalogue
from aisandbox.instance.run.container.program import PATH

MISTAKE = 2
SUPERVISORD = "envs/supervisor/bin/supervisord"


class UnfitError(Exception):
    """The container was started in a way in which it cannot work; the message says which would be right."""


def main() -> None:
    places = Places.of(manifests.load())
    catalogue = Catalogue.here()
    given = dict(os.environ)
    try:
        prepare(places, catalogue, given)
    except UnfitError as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(MISTAKE)
    # Nothing of what may be secret goes on from here but by files.
    kept = {name: value for name, value in given.items() if name not in environment.taken(given)}
    kept["PATH"] = PATH
    debug = {name: given[name] for name in (environment.DEBUG,) if name in given}
    with catalogue.log("aisandbox-configure").open("wb") as log:
        command = ["/usr/local/bin/aisandbox", "configure", "--boot"]
        done = subprocess.run(command, env=kept | debug, stdout=log, stderr=subprocess.STDOUT, check=False)
    print(catalogue.log("aisandbox-configure").read_text(errors="replace"), end="", flush=True)
    if done.returncode:
        print("The choice could not be applied: see above.", file=sys.stderr)
        sys.exit(done.returncode)
    supervisord = str(places.opt / SUPERVISORD)
    configuration = str(PROGRAMS.with_name("supervisord.conf"))
    # Its logger would warn of the working directory otherwise.
    os.chdir("/")
    os.execve(supervisord, [supervisord, "-c", configuration], kept)


def prepare(places: Places, catalogue: Catalogue, given: dict[str, str]) -> None:
    """Have an empty run folder, and every place that the services write to.

    Raises:
        UnfitError: this is not root, or the data volume cannot be used.
    """
    if os.geteuid() != 0:
        raise UnfitError(
            "The container must be started as root, to run each service as a user of its own: leave out --user."
        )
    # A container that is started again finds what it left: on a machine these are in memory.
    for folder in (places.run, catalogue.logs):
        for entry in folder.iterdir() if folder.exists() else ():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    catalogue.logs.mkdir(mode=0o700, exist_ok=True)
    try:
        services.lay_out()
    except (OSError, subprocess.SubprocessError) as error:
        raise UnfitError(f"The places of the services cannot be made ({error}). {_volume(places)}") from error
    for program in catalogue.programs.values():
        home = Path(program.home)
        if places.data in home.parents and home.stat().st_uid != pwd.getpwnam(program.user).pw_uid:
            raise UnfitError(f"{home} does not belong to {program.user}. {_volume(places)}")
    files.write(places.environment, json.dumps(environment.taken(given)), 0o600)


def _volume(places: Places) -> str:
    return (
        f"The volume that is mounted on {places.data} must be writable and keep owners of files: "
        "a Docker volume or a disk with a Linux file system does."
    )


if __name__ == "__main__":
    main()
