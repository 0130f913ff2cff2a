"""Carries an upgrade or rollback out, and puts things right after a power cut.

systemd runs this, from a copy that no release touches: `python3 -m aisandbox.instance.keep.upgrade.worker STEP`, where
STEP is `recover` (early at boot, before any service), `database` (before the chat page starts) or `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from aisandbox.instance import files, lock
from aisandbox.instance.keep.upgrade import database, switch
from aisandbox.instance.keep.upgrade.health import Probe, from_json
from aisandbox.instance.keep.upgrade.services import Services, Unfit, enabled
from aisandbox.instance.keep.upgrade.state import Phase, State, Upgrades

LOCK_WAIT_S = 60
PLACES = "places.json"
"""In the folder of upgrades: the instance's places, which only the manifest knows."""
CUT = "the machine was restarted or lost power before the new release had proved itself"
SILENCE = "To stop being told: sudo aisandbox upgrade --forget"
DOCTOR = "sudo aisandbox doctor"


class Worker:
    """Everything that it needs, and the steps."""

    def __init__(self, upgrades: Upgrades, services: Services, probe: Probe, run: Path) -> None:
        self._upgrades = upgrades
        self._services = services
        self._probe = probe
        self._lock = run / "configure.lock"

    def run(self) -> None:
        """Go on from wherever the state says."""
        state = self._upgrades.load()
        if state is None:
            return
        if state.phase == "ready" and not state.reason:
            self._perform(state)
        elif state.phase == "undone":
            # It was put back at boot: its services are starting already.
            self._end(state, lambda: self._prove(state, state.ports))
        elif state.phase == "committing":
            self._commit(state)
        else:
            self._undo(state, state.reason or CUT)

    def recover(self) -> None:
        """At boot, before any service: have one whole release in place."""
        state = self._upgrades.load()
        if state is None:
            return
        if state.phase == "ready":
            switch.clear(self._upgrades, state)
            message = f"The {state.operation} to {state.to_version} had not begun when the machine was restarted."
            self._upgrades.finish(state, "undone", f"{message} Version {state.from_version} serves.", SILENCE)
        elif state.phase == "switching":
            self._say(f"Putting version {state.from_version} back: {state.reason or CUT}.")
            state.reason = state.reason or CUT
            switch.switch(self._upgrades, state, state.former)
            self._enter(state, "undone")
            self._services.reload_early()

    def restore_database(self) -> None:
        """At boot, before the chat page starts: give the former release its database back."""
        state = self._upgrades.load()
        if state and state.phase == "undone":
            self._restore(state, state.backup, state.to_version)

    def _perform(self, state: State) -> None:
        noun = "Upgrading" if state.operation == "upgrade" else "Going back"
        self._say(f"{noun} from {state.from_version} to {state.to_version}.")
        try:
            # `aisandbox configure` restarts services on files that are being exchanged: one waits for the other.
            with lock.held(self._lock, LOCK_WAIT_S):
                self._exchange(state)
            self._bring_up(state, state.new_ports)
        except lock.BusyError:
            switch.clear(self._upgrades, state)
            message = f"The {state.operation} to {state.to_version} did not begin: aisandbox configure is at work."
            self._upgrades.finish(state, "undone", message, "Run it again when that has ended.")
            self._say(message)
        except (Unfit, OSError) as error:
            self._undo(state, _reason(error), getattr(error, "detail", ""))
        else:
            self._commit(state)

    def _exchange(self, state: State) -> None:
        health = self._probe.look(state.ports)
        state.before = asdict(health)
        if not health.completion:
            self._say("The engine did not answer before, so it will not be asked to afterwards.")
        self._say("Stopping the services. What is being answered right now is broken off.")
        self._upgrades.save(state)
        self._services.stop(state.units)
        if state.chat_changes:
            state.backup = database.back_up(self._upgrades, state.from_version)
        switch.remember(self._upgrades, state)
        self._enter(state, "switching")
        self._say(f"Exchanging {len(state.paths)} files and folders.")
        switch.switch(self._upgrades, state, state.target)
        if state.restore:
            self._restore(state, state.restore, state.from_version)

    def _bring_up(self, state: State, ports: dict[str, int]) -> None:
        """Start the services of the release that is in place, and wait until they serve."""
        self._say("Starting the services.")
        self._services.settle(state.paths)
        self._services.start(enabled(self._upgrades.root, state.units))
        self._say(f"Checking that everything answers that did before (for up to {state.timeout_s:.0f} s).")
        self._prove(state, ports)

    def _prove(self, state: State, ports: dict[str, int]) -> None:
        if state.before:
            units = enabled(self._upgrades.root, state.units)
            self._probe.wait(from_json(state.before), ports, units, state.timeout_s, self._say)

    def _commit(self, state: State) -> None:
        self._enter(state, "committing")
        switch.commit(self._upgrades, state)
        message = f"Version {state.to_version} serves."
        self._upgrades.finish(state, "done", message)
        self._say(message)

    def _undo(self, state: State, reason: str, detail: str = "") -> None:
        self._say(f"Version {state.to_version} does not serve: {reason}. {detail}".strip())
        self._say(f"Putting version {state.from_version} back.")
        state.detail = detail
        self._enter(state, state.phase, reason=reason)
        with suppress(Unfit):
            self._services.stop(state.units)
        if state.phase == "switching":
            switch.switch(self._upgrades, state, state.former)
        self._enter(state, "undone")
        self._restore(state, state.backup, state.to_version)
        self._end(state, lambda: self._bring_up(state, state.ports))

    def _end(self, state: State, prove: Callable[[], None]) -> None:
        """Record that it was undone, and whether the former release serves again."""
        failure: Exception | None = None
        try:
            prove()
        except (Unfit, OSError) as error:
            failure = error
        switch.clear(self._upgrades, state)
        what = f"The {state.operation} to {state.to_version} was undone: {state.reason}."
        if failure is None:
            message = f"{what} Version {state.from_version} serves again."
            self._upgrades.finish(
                state, "undone", message, f"See why: sudo journalctl -u aisandbox-upgrade . {SILENCE}"
            )
        else:
            message = f"{what} Version {state.from_version} is back in place, but {_reason(failure)}."
            self._upgrades.finish(state, "broken", message, DOCTOR)
        self._say(message)

    def _restore(self, state: State, backup: str | None, newer: str) -> None:
        if not backup:
            return
        aside = database.restore_if_changed(self._upgrades, backup, newer)
        if aside:
            where = self._upgrades.backups
            self._say(
                f"Version {newer} had changed the form of the chat page's database. The copy that was made before is in"
                f" place ({where / backup}); chats since then are in {where / aside}."
            )

    def _enter(self, state: State, phase: Phase, reason: str = "") -> None:
        state.phase = phase
        state.reason = reason or state.reason
        self._upgrades.save(state)

    def _say(self, text: str) -> None:
        """To the journal, and to whoever follows."""
        print(text, flush=True)
        with suppress(OSError), self._upgrades.log.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}{f' ({error.filename})' if error.filename else ''}"
    return str(error)


def live(base: Path) -> Worker:
    """The worker of this machine, whose folder of upgrades is `base`."""
    places = files.read_json(base / PLACES) or {}
    upgrades = Upgrades(Path("/"), Path(places["data"]))
    services = Services()
    run = Path(places["run"])
    return Worker(upgrades, services, Probe(services, run), run)


def main() -> None:
    tool = Path(__file__).resolve().parents[4]
    worker = live(tool.parent)
    steps: dict[str, Callable[[], None]] = {
        "recover": worker.recover,
        "database": worker.restore_database,
        "run": worker.run,
    }
    steps[sys.argv[1]]()


if __name__ == "__main__":
    main()
