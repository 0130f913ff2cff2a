"""Commands that change what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, need_root, say

if TYPE_CHECKING:
    from aisandbox.instance.configure import Outcome


def configure(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Model to serve, as ORGANISATION/NAME.")] = None,
    max_model_len: Annotated[str | None, typer.Option(help="Context length in tokens.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option.")] = None,
    unset: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Return an option to its default.")] = None,
    boot: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Change options, or apply the options file again after editing it."""
    from aisandbox.instance import configure as configuring
    from aisandbox.instance.options import InvalidOptionError

    places, manifest = context.obj.places, context.obj.manifest
    if boot:
        _tell(configuring.apply_safely(places, manifest))
        return
    need_root(places)
    try:
        values = dict(_assignment(text) for text in assignments or ())
        values |= {
            key: value for key, value in (("model", model), ("max_model_len", max_model_len)) if value is not None
        }
        if values or unset:
            edit = configuring.edit(places, manifest, values, tuple(unset or ()))
            if edit.diff:
                print(edit.diff)
                configuring.save(places, edit)
    except InvalidOptionError as invalid:
        say(f"{invalid} {invalid.fix} Nothing was changed.")
        raise typer.Exit(BAD_INPUT) from None
    outcome = configuring.apply(places, manifest)
    _tell(outcome)
    services = configuring.services_to_restart(places, outcome)
    if not outcome.changed and not services:
        print("Nothing changed.")
    if services and places.live:
        from aisandbox.instance import systemd

        systemd.restart(*services)
    if services:
        print(f"Restarting {', '.join(services)}. Follow it with: aisandbox status --watch")


def _assignment(text: str) -> tuple[str, str]:
    from aisandbox.instance.options import InvalidOptionError

    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidOptionError(f"--set {text} has no value.", "Write it as --set KEY=VALUE.")
    return key.strip(), value


def _tell(outcome: Outcome) -> None:
    for problem in outcome.plan.problems:
        say(f"{problem}. {problem.fix}")
    say(f"Configured to serve {outcome.plan.model}.")
