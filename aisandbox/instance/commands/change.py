"""`aisandbox configure`: what is served, and who may use it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from aisandbox.instance.commands.console import BAD_INPUT, need_root, say

if TYPE_CHECKING:
    from aisandbox.instance.choose.configure import Outcome
    from aisandbox.instance.choose.editing import Edit
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest, Option

WAIT_S = 20
"""How long a run waits for another one to finish."""
TRUST = "--trust-remote-code"
ASK = "-"
"""In place of a secret: read it from standard input, where no other user of the machine sees it."""


def command(manifest: Manifest) -> Callable[..., None]:
    """The command, with a flag for every option of the manifest."""

    def configure(
        context: typer.Context,
        assignments: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option.")
        ] = None,
        unset: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Return an option to its default.")] = None,
        edit: Annotated[bool, typer.Option("--edit", help="Edit the options file, checked before it counts.")] = False,
        show: Annotated[bool, typer.Option("--show", help="Print the choice in force and where it was made.")] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")
        ] = False,
        boot: Annotated[bool, typer.Option(hidden=True)] = False,
        **flags: str | None,
    ) -> None:
        """Change options, or apply the options file again after editing it."""
        places = context.obj.places
        if boot:
            _boot(places, manifest)
            return
        need_root(places)
        if show:
            _show(places, manifest)
            return
        values = _values(manifest, assignments or [], flags)
        if edit and (values or unset):
            _refuse("--edit takes no other changes.")
        edited = _edited(places, manifest) if edit else None
        _carry_out(places, manifest, lambda at: edited or _change(at, manifest, values, unset or []), dry_run)

    signature = inspect.signature(configure, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    context, *others = parameters
    configure.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[context, *(_flag(option) for option in manifest.options), *others]
    )
    return configure


def _flag(option: Option) -> inspect.Parameter:
    """The option as a flag. Its value is checked by the option's own rules, so the flag takes any text."""
    notes = f" Give {ASK} to be asked for it." if option.type == "secret" else ""
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    flag = typer.Option(
        f"--{option.key.replace('_', '-')}",
        metavar=option.type.upper(),
        help=f"{option.help}{choices}{notes}",
        rich_help_panel="Choices",
        show_default=False,
    )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(option.key, kind, default=None, annotation=Annotated[str | None, flag])


def _boot(places: Places, manifest: Manifest) -> None:
    import contextlib

    from aisandbox.instance import lock
    from aisandbox.instance.choose import configure

    with contextlib.ExitStack() as stack:
        # Nobody holds the lock for long; and coming up matters more than who is first.
        with contextlib.suppress(lock.BusyError):
            stack.enter_context(lock.held(places.configure_lock, WAIT_S))
        outcome = configure.apply_safely(places, manifest)
    _tell(outcome)
    configure.bring_up(places, outcome, boot=True)


def _values(manifest: Manifest, assignments: list[str], flags: Mapping[str, str | None]) -> dict[str, str]:
    """What was given on the command line; secrets that are to be asked for are asked for now."""
    values = dict(_assignment(text) for text in assignments)
    values |= {key: value for key, value in flags.items() if value is not None}
    for key, value in values.items():
        option = manifest.options_by_key.get(key)
        if not option or option.type != "secret":
            continue
        if value == ASK:
            values[key] = _ask(option)
        elif value:
            flag = f"--{key.replace('_', '-')} {ASK}"
            say(f"{option.label}: a command line can be seen by others and is remembered. Next time: {flag}")
    return values


def _ask(option: Option) -> str:
    """A secret from the terminal, without echo, or else the next line of standard input."""
    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"{option.label}: ")
    else:
        value = sys.stdin.readline().rstrip("\r\n")
    if not value.strip():
        _refuse(f"No {option.label.lower()} was given.")
    return value


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        _refuse(f"--set {text} has no value. Write it as --set KEY=VALUE.")
    return key.strip(), value


def _edited(places: Places, manifest: Manifest) -> Edit:
    from aisandbox.instance.commands import editor

    return editor.edit(places, manifest)


def _change(places: Places, manifest: Manifest, values: Mapping[str, str], unset: list[str]) -> Edit | None:
    """The change of the file that the command line asks for, if it asks for one."""
    from aisandbox.instance.choose import editing
    from aisandbox.instance.choose.options import InvalidOptionError

    if not values and not unset:
        return None
    try:
        change = editing.edit(places, manifest, values, tuple(unset))
    except InvalidOptionError as invalid:
        _refuse(f"{invalid} {invalid.fix}")
    if not change.diff:
        return None
    if change.dropped:
        say("These comments get lost (--edit keeps them):\n" + "\n".join(change.dropped))
    return change


def _carry_out(places: Places, manifest: Manifest, made: Callable[[Places], Edit | None], dry_run: bool) -> None:
    """Make the change, if there is one, save it, and apply what the file says then."""
    from aisandbox.instance import lock
    from aisandbox.instance.choose import configure

    if dry_run:
        from aisandbox.instance.choose import editing

        with editing.rehearsal(places) as stage:
            _save(stage, made(stage))
            outcome = configure.apply(stage, manifest)
            units = (*configure.services_to_reload(outcome), *configure.services_to_restart(stage, outcome))
        _tell(outcome)
        print(f"Would touch: {', '.join(units) or 'no service'}. Nothing was changed.")
        return
    try:
        with lock.held(places.configure_lock, WAIT_S):
            saved = _save(places, made(places))
            outcome = configure.apply(places, manifest)
            told = configure.bring_up(places, outcome)
    except lock.BusyError:
        _refuse("Another aisandbox configure is at work. Try again when it has ended.")
    _tell(outcome)
    for verb, units in told.items():
        print(f"{verb} {', '.join(units)}.")
    if told:
        print("Follow it with: aisandbox status --watch")
    elif not outcome.changed and not saved:
        print("Nothing changed.")


def _save(places: Places, change: Edit | None) -> bool:
    """Show and make the change. Returns whether there was one."""
    from aisandbox.instance.choose import editing

    if not change:
        return False
    if change.diff:
        print(change.diff, flush=True)
    if TRUST in change.diff:
        say(f"With {TRUST}, Python code that comes with the model runs on this instance.")
    try:
        return editing.save(places, change)
    except editing.ConflictError as conflict:
        draft = editing.draft(places, change.text)
        _refuse(f"{conflict} Your text is kept until the next restart: {draft}.")


def _show(places: Places, manifest: Manifest) -> None:
    """The choice in force: every option that has a value, and where it was given."""
    from aisandbox.instance.choose import options

    decision = options.decide(options.sources(places, manifest), manifest, options.unavailable(places))
    rows = []
    for key, option in manifest.options_by_key.items():
        value = getattr(decision.choice, key)
        if value is None and key not in decision.choice.closed:
            continue
        text = "(generated)" if value is None else options.MASK if option.type == "secret" else str(value)
        if key == "allowed_cidrs" and value is None:
            text = "(nobody)"
        rows.append((key, text, decision.origins.get(key, "mistake" if key in decision.choice.closed else "default")))
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for key, text, origin in rows:
        print(f"{key:{widths[0]}}  {text:{widths[1]}}  {origin}")
    for problem in decision.problems:
        say(f"{problem}. {problem.fix}")


def _tell(outcome: Outcome) -> None:
    for problem in (*outcome.deployment.problems, *outcome.deployment.hardware.problems):
        say(f"{problem}. {problem.fix}")
    if outcome.changed and outcome.deployment.access.chat_login:
        say("The chat page asks for a login. To see address and password: sudo aisandbox keys")
    say(f"Configured to serve {outcome.deployment.model}.")


def _refuse(reason: str) -> NoReturn:
    say(f"{reason} Nothing was changed.")
    raise typer.Exit(BAD_INPUT)
