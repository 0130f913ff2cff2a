"""`make test-gpu`: looks for a GPU, sets up vLLM's environment, and runs the kit in it.

    python3 -m tests.gpu [--model ORG/NAME|FOLDER] [--flavour cpu] [--python PYTHON] [--seconds N]

Exit status: 0 when all was proved, 1 when something failed or missed its bar, 2 when nothing was proved.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.gpu import setup, smi

NOTHING_PROVED = 2
SECONDS = 600
MODEL_SECONDS = 1800
"""For a model's download, and what is done once beside it."""
LAST_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="", help="ORG/NAME or a folder; default: the best that can be had here")
    parser.add_argument("--flavour", choices=("cuda", "cpu"), default="cuda", help="cpu: a check of the kit itself")
    parser.add_argument(
        "--python", type=Path, help="Python of an environment with vLLM, instead of one of the kit's own"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time for all runs")
    options = parser.parse_args()
    try:
        if options.flavour == "cuda":
            smi.look()
        environment = setup.cuda(options.python) if options.flavour == "cuda" else setup.cpu(options.python)
    except smi.NoGpu as missing:
        print(f"no GPU: nothing was proved ({missing})", file=sys.stderr)
        print("Run it on a machine with an NVIDIA GPU and its driver. The kit itself: FLAVOUR=cpu", file=sys.stderr)
        return NOTHING_PROVED
    except setup.SetUpError as error:
        print(f"no environment: nothing was proved ({error})", file=sys.stderr)
        return NOTHING_PROVED
    return run(environment, options)


def run(environment: setup.Environment, options: argparse.Namespace) -> int:
    """Run the kit in vLLM's environment; it ends in time, whatever hangs."""
    python = environment.python
    command = [python, "-m", "tests.gpu.kit", "--flavour", options.flavour, "--uv", environment.uv]
    command += ["--seconds", str(options.seconds), "--model", options.model]
    variables = environment.variables | {
        "PYTHONPATH": str(setup.REPOSITORY),
        "PATH": f"{python.parent}:{os.environ.get('PATH', os.defpath)}",
    }
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    kit = subprocess.Popen(command, env=os.environ | variables, cwd=setup.REPOSITORY)
    try:
        return kit.wait(MODEL_SECONDS + options.seconds + LAST_SECONDS)
    except subprocess.TimeoutExpired:
        print("the kit hangs and is ended", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        end(kit)


def end(kit: subprocess.Popen[bytes]) -> None:
    """Have it end its servers. They end with it, too, should it hang."""
    kit.terminate()
    try:
        kit.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        kit.kill()


if __name__ == "__main__":
    sys.exit(main())
