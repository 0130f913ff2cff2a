"""`sandbox-api`: serve the sandbox. Settings come from `SANDBOX_*` variables; `--help` lists them."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from sandbox_api import __version__, privileges


def _help(documentation: list[dict[str, str]]) -> str:
    rows = (f"  {row['name']:34} {row['meaning']} [{row['default']}]".replace(" []", "") for row in documentation)
    return "settings, from the environment:\n" + "\n".join(rows)


def main() -> int:
    privileges.keep()
    privileges.hide()
    # Nothing that is made while it starts becomes garbage; looking for some would cost a tenth of the start.
    gc.disable()
    from pydantic import ValidationError

    from sandbox_api.settings import Settings, unknown_variables

    parser = argparse.ArgumentParser(
        "sandbox-api",
        description=__doc__,
        epilog=_help(Settings.documentation()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--host", help="address to listen on, in place of SANDBOX_HOST")
    parser.add_argument("--port", type=int, help="port to listen on, in place of SANDBOX_PORT")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if unknown := unknown_variables(os.environ):
        for name, nearest in unknown.items():
            fix = f"did you mean {nearest}?" if nearest else "sandbox-api --help lists the settings"
            print(f"sandbox-api: {name} is not a setting; {fix}", file=sys.stderr)
        return 2
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(map(str, problem["loc"])).upper()
            print(f"sandbox-api: SANDBOX_{name}: {problem['msg']}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sandbox-api: a file named in the settings cannot be read: {error}", file=sys.stderr)
        return 2
    from sandbox_api.environment import withdraw_secrets
    from sandbox_api.serve import serve

    withdraw_secrets()
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
