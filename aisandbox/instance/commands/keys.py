"""The command that shows what people and programs need to get in."""

from __future__ import annotations

import typer

from aisandbox.instance.commands.console import need_root


def keys(context: typer.Context) -> None:
    """Show the keys and the login of this instance. Nothing else prints them."""
    from aisandbox.instance.choose import access, configure, options

    places, manifest = context.obj.places, context.obj.manifest
    need_root(places)
    choice, _ = options.read(places, manifest)
    kept = configure.secrets_of(places)
    email = choice.chat_email or manifest.options_by_key["chat_email"].default
    password = access.chat_password(choice, kept)
    rows = {
        manifest.ports["api"].label: access.api_key(choice, kept) or "asks for no key",
        manifest.ports["sandbox"].label: {
            "off": "is off",
            "local": f"asks for no key unless SANDBOX_AUTH=1 is set, then for {kept['sandbox_key']}",
            "public": kept["sandbox_key"],
        }[choice.sandbox],
        manifest.ports["chat"].label: f"{email} {password}" if password else "asks for no login",
    }
    for label, value in rows.items():
        print(f"{label:34} {value}")
