"""Main process of vllm.service: imports vLLM at power-on, waits for the located deployment, then serves it.

    python -m aisandbox.instance.serve.engine              run the engine
    python -m aisandbox.instance.serve.engine bake FOLDER  fill a vLLM cache for `AISANDBOX_BAKED_CACHE`

The fast start (`engine_start`) forks the engine core from this process. When it fails before it ever served, this
process replaces itself and starts vLLM the plain way (`engine_plain`), unless the cause is one that this cannot help.
A model that fails for want of memory is tried once more with less. One that cannot be served leaves its place to the
first of its fallbacks that can, and is not tried again until a person or another deployment asks for it
(`fallbacks`). Without a usable GPU the last of them is served from the processor (`engine_processor`).
When nothing can be served, everything is tried again, ever more rarely.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from aisandbox.instance.deployment import LOCATED, Deployment, DocumentError
from aisandbox.instance.last_words import describe
from aisandbox.instance.serve import engine_causes, engine_files, engine_plain, engine_start, fallbacks
from aisandbox.instance.serve.engine_args import build_argv, environment, is_cpu_build
from aisandbox.instance.serve.engine_files import Phase, Status
from aisandbox.instance.serve.fallbacks import CONTEXT, VARIABLE, Attempt, Cause, Memory, Mode

PROCESSOR = "aisandbox.instance.serve.engine_processor"
REASON = "AISANDBOX_ENGINE_REASON"
DEVICES = "AISANDBOX_ENGINE_DEVICES"
"""GPUs that this program uses, as `CUDA_VISIBLE_DEVICES` names them; all that it imports sees no others."""
REWRITE = "Have it written again: sudo systemctl restart aisandbox-model"
LONGEST_REST_SECONDS = 600.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Settings:
    """What the unit may set; the defaults are those of the appliance."""

    run: Path
    port: int
    plain: bool
    baked_cache: Path
    timeout: float
    retry: float

    @classmethod
    def from_environment(cls, cpu: bool) -> Settings:
        get = os.environ.get
        return cls(
            run=Path(get("AISANDBOX_RUN", "/run/aisandbox")),
            port=int(get("AISANDBOX_API_PORT", "8001")),
            plain=get("AISANDBOX_ENGINE", "fast") == "plain",
            baked_cache=Path(get("AISANDBOX_BAKED_CACHE", "/opt/aisandbox/cache/vllm")),
            # A fork that hangs is what this guards against; large models load and compile for long on a GPU.
            timeout=float(get("AISANDBOX_ENGINE_TIMEOUT", "600" if cpu else "1800")),
            # When nothing can be served, trying on and on would only keep the processors busy.
            retry=float(get("AISANDBOX_ENGINE_RETRY", "30")),
        )


class Engine:
    """One run of the program; the process may run it several times, once for every attempt."""

    def __init__(self, settings: Settings, cpu: bool, original_environment: dict[str, str]) -> None:
        self.settings = settings
        self.cpu = cpu
        self.original_environment = original_environment
        self.located = settings.run / LOCATED
        self.status = Status(settings.run / "status" / "engine.json")
        if VARIABLE in original_environment:
            self.status.carry_on()
        self.memory = Memory.load(settings.run / "status" / "engine-memory.json")

    def run(self) -> int:
        """Serve until stopped; returns the exit code."""
        deployment = self._config_now()
        if deployment:
            self._see_only(deployment.hardware.devices)
        attempt = self.memory.next(deployment, self.settings.plain) if deployment else None
        if deployment and not attempt:
            self._rest(deployment)
        self.status.mode = attempt.mode if attempt else "plain" if self.settings.plain else "fast"
        self._prepare_environment(self.status.mode)
        if self.status.mode == "fast":
            self._import(attempt, deployment)
        # Not what there was before the imports: it may have changed meanwhile.
        deployment = self._config_now() or self._wait()
        self._see_only(deployment.hardware.devices)
        attempt = self.memory.next(deployment, self.settings.plain)
        if not attempt or attempt.mode != self.status.mode:
            self._again()
        self.status.config = deployment.digest
        if cause := engine_causes.missing_files(attempt.candidate):
            self._failed(attempt, deployment, cause)
        return self._serve(attempt, deployment)

    def _config_now(self) -> Deployment | None:
        try:
            return engine_files.read(self.located)
        except DocumentError:
            return None

    def _see_only(self, devices: tuple[str, ...]) -> None:
        """Go on with these GPUs: vLLM looks at those that it sees while it is imported."""
        if (wanted := ",".join(devices)) != self.original_environment.get(DEVICES, ""):
            self._again(**{DEVICES: wanted})

    def _prepare_environment(self, mode: Mode) -> None:
        if devices := self.original_environment.get(DEVICES):
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
        for key, value in environment(mode, self.cpu).items():
            os.environ.setdefault(key, value)
        engine_start.seed_cache(self.settings.baked_cache, Path(os.environ["VLLM_CACHE_ROOT"]))

    def _import(self, attempt: Attempt | None, deployment: Deployment | None) -> None:
        if attempt and deployment and (attempt.candidate != deployment.attempts[0] or attempt.record.retry):
            self._tell("import", attempt, deployment)
        else:
            self.status.publish("import", "running", "Loading the engine's program code")
        try:
            engine_start.import_vllm(self.cpu)
        except Exception as error:
            traceback.print_exc()
            self._again(AISANDBOX_ENGINE="plain", **{REASON: f"the fast start failed: {describe(error)}"})
        engine_start.freeze_heap()

    def _wait(self) -> Deployment:
        def invalid(error: DocumentError) -> None:
            self.status.publish("wait", "failed", f"{self.located.name} cannot be used: {error}", REWRITE)

        self.status.publish("wait", "running", "Waiting for the model")
        return engine_files.wait(self.located, invalid)

    def _serve(self, attempt: Attempt, deployment: Deployment) -> int:
        """Start the candidate and serve it to the end; does not return when it cannot be started."""
        served = False

        def healthy() -> None:
            nonlocal served
            served = True
            self._tell("serve", attempt, deployment)

        self._tell("load", attempt, deployment)
        lines = self._serve_fast(attempt, healthy) if attempt.mode == "fast" else self._serve_plain(attempt, healthy)
        if not lines:
            return 0
        cause = engine_causes.explain(lines, attempt.candidate)
        if not served:
            self._failed(attempt, deployment, cause)
        ended = f"{attempt.candidate.model} stopped and is started again: {cause.message}"
        self.status.publish("serve", "failed", ended, cause.fix)
        return 1

    def _serve_fast(self, attempt: Attempt, healthy: Callable[[], None]) -> list[str]:
        argv = build_argv(attempt, self.settings.port, self.cpu)
        errors = engine_start.ErrorLog()
        try:
            engine_start.serve(argv, self.settings.timeout, healthy, errors)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            return [*errors.lines, *f"{type(error).__name__}: {error}".splitlines()]
        return []

    def _serve_plain(self, attempt: Attempt, healthy: Callable[[], None]) -> list[str]:
        port, candidate = self.settings.port, attempt.candidate
        if candidate.processor:
            argv = ["--model", candidate.folder, "--port", str(port), "--served-model-name", *candidate.served_names]
            return engine_plain.serve(PROCESSOR, argv, port, healthy)
        return engine_plain.serve(engine_plain.SERVER, build_argv(attempt, port, self.cpu), port, healthy)

    def _failed(self, attempt: Attempt, deployment: Deployment, cause: Cause) -> NoReturn:
        print(f"engine: {attempt.mode} start of {attempt.candidate.model} failed: {cause.message}", flush=True)
        self.memory.failed(attempt, cause, deployment)
        self._again()

    def _rest(self, deployment: Deployment) -> NoReturn:
        """Nothing can be served: say so, and try again later, or at once when something else is asked for."""
        self.status.mode, self.status.config = "plain", deployment.digest
        pause = min(self.settings.retry * 2**self.memory.rounds, LONGEST_REST_SECONDS)
        message = f"{self._asked_failed(deployment)} It is tried again in {pause:.0f} s."
        self.status.publish("load", "failed", message, self.memory.record(deployment.attempts[0]).fix, serving=None)
        until = time.monotonic() + pause
        while time.monotonic() < until and (self._config_now() or deployment).served == deployment.served:
            time.sleep(min(LOOK_SECONDS, pause))
        self.memory.start_over()
        self._again()

    def _again(self, **changes: str) -> NoReturn:
        """Go on in a fresh process image under the same process id."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(
            sys.executable,
            [sys.executable, "-m", "aisandbox.instance.serve.engine"],
            self.original_environment | self.memory.environment | changes,
        )

    def _asked_failed(self, deployment: Deployment) -> str:
        """One sentence on why what was asked for is not served; empty when nothing speaks against it."""
        reason = self.memory.record(deployment.attempts[0]).failed
        return f"{deployment.attempts[0].model} cannot be served: {reason}." if reason else ""

    def _tell(self, phase: Phase, attempt: Attempt, deployment: Deployment) -> None:
        """Publish what this attempt is at."""
        candidate, record = attempt.candidate, attempt.record
        failure = self._asked_failed(deployment)
        as_asked = not failure and not record.retry
        doing = f"{'Serving' if phase == 'serve' else 'Loading'} {candidate.model}"
        if candidate.processor:
            doing += " on the processor"
        elif attempt.mode == "plain":
            reason = os.environ.get(REASON) or (
                f"the fast start failed: {record.fast}" if record.fast else "asked for by AISANDBOX_ENGINE=plain"
            )
            doing += f", started the plain way ({reason})"
        if as_asked:
            self.status.publish(phase, "done" if phase == "serve" else "running", doing)
            return
        asked = self.memory.record(deployment.attempts[0])
        if candidate.folder != deployment.attempts[0].folder:
            message = f"{failure} {doing} instead."
        else:
            message = f"{doing} with {_less(attempt, bool(failure))} instead: {asked.failed or record.why}."
        serving = candidate.model if phase == "serve" else None
        self.status.publish(phase, "failed", message, candidate.fix or asked.fix or record.fix, serving=serving)


def _less(attempt: Attempt, other_arguments: bool) -> str:
    """What the model is started with instead of what was asked for."""
    if not other_arguments and CONTEXT not in attempt.record.retry:
        return " ".join(attempt.record.retry)
    context = fallbacks.context(replace(attempt.candidate, args=attempt.args))
    return f"{context} tokens of context" if context else "less context"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["bake"] and len(arguments) == 2:
        return engine_start.bake(Path(arguments[1]))
    if arguments:
        print("usage: python -m aisandbox.instance.serve.engine [bake FOLDER]", file=sys.stderr)
        return 2
    cpu = is_cpu_build()
    return Engine(Settings.from_environment(cpu), cpu, dict(os.environ)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
