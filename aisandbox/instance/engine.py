"""Main process of vllm.service: imports vLLM at power-on, waits for `engine.json`, then serves it.

    python -m aisandbox.instance.engine              run the engine
    python -m aisandbox.instance.engine bake FOLDER  fill a vLLM cache for `AISANDBOX_BAKED_CACHE`

The fast start (`engine_start`) forks the engine core from this process. When it fails before it ever
served, this process replaces itself and starts vLLM the plain way (`engine_plain`). It stays with that until
reboot or until it is told to serve something else.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from aisandbox.instance import engine_plain, engine_start, files
from aisandbox.instance.engine_args import build_argv, environment, is_cpu_build
from aisandbox.instance.engine_files import (
    ConfigError,
    EngineConfig,
    FastFailure,
    Mode,
    Status,
    read_config,
    wait_for_config,
)
from aisandbox.instance.engine_watch import describe

FIX = "aisandbox configure --model …; aisandbox logs vllm"
REASON = "AISANDBOX_ENGINE_REASON"


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
            # A model that cannot be served would otherwise keep a core busy with its restarts.
            retry=float(get("AISANDBOX_ENGINE_RETRY", "30")),
        )


class Engine:
    """One run of the service, from power-on to its end."""

    def __init__(self, settings: Settings, cpu: bool, original_environment: dict[str, str]) -> None:
        self.settings = settings
        self.cpu = cpu
        self.original_environment = original_environment
        self.config_path = settings.run / "engine.json"
        self.status = Status(settings.run / "status" / "engine.json")
        self.fast_failure = FastFailure(settings.run / "status" / "engine-fast-failed.json")

    def run(self) -> int:
        """Serve until stopped; returns the exit code."""
        config = self._config_now()
        reason = self._reason_for_plain(config)
        self._prepare_environment("plain" if reason else "fast")
        if reason:
            return self._run_plain(config or self._wait(), reason)
        return self._run_fast()

    def _config_now(self) -> EngineConfig | None:
        try:
            return read_config(self.config_path)
        except ConfigError:
            return None

    def _reason_for_plain(self, config: EngineConfig | None) -> str:
        """Why this run must be a plain one; empty when it need not be."""
        if self.settings.plain:
            return os.environ.get(REASON) or "asked for by AISANDBOX_ENGINE=plain"
        failure = self.fast_failure.reason(config.digest) if config else ""
        return f"the fast start failed: {failure}" if failure else ""

    def _prepare_environment(self, mode: Mode) -> None:
        for key, value in environment(mode, self.cpu).items():
            os.environ.setdefault(key, value)
        engine_start.seed_cache(self.settings.baked_cache, Path(os.environ["VLLM_CACHE_ROOT"]))

    def _wait(self) -> EngineConfig:
        def invalid(error: ConfigError) -> None:
            self.status.publish("wait", "failed", f"engine.json: {error}", FIX)

        self.status.publish("wait", "running", "Waiting for the model")
        return wait_for_config(self.config_path, invalid)

    def _run_fast(self) -> int:
        self.status.publish("import", "running", "Loading the engine's program code")
        try:
            engine_start.import_vllm(self.cpu)
        except Exception as error:
            traceback.print_exc()
            self._fall_back(describe(error))
        engine_start.freeze_heap()
        config = self._wait()
        self.status.config = config.digest
        if reason := self.fast_failure.reason(config.digest):
            self._fall_back(reason)

        served = False

        def healthy() -> None:
            nonlocal served
            served = True
            self.status.publish("serve", "done", _serving(config))

        self.status.publish("load", "running", f"Loading {_name(config)}")
        try:
            engine_start.serve(build_argv(config, self.settings.port, "fast", self.cpu), self.settings.timeout, healthy)
        except (Exception, SystemExit) as error:
            reason = describe(error)
            if served:
                self.status.publish("serve", "failed", f"Restarting: {reason}", "aisandbox logs vllm")
                return 1
            traceback.print_exc()
            self.fast_failure.remember(config.digest, reason)
            self._fall_back(reason)
        return 0

    def _fall_back(self, reason: str) -> NoReturn:
        """Start over as a plain run, in a fresh process image under the same process id."""
        print(f"engine: fast start failed, starting vLLM the plain way: {reason}", flush=True)
        fallback = {"AISANDBOX_ENGINE": "plain", REASON: f"the fast start failed: {reason}"}
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(
            sys.executable,
            [sys.executable, "-m", "aisandbox.instance.engine"],
            self.original_environment | fallback,
        )

    def _run_plain(self, config: EngineConfig, reason: str) -> int:
        previous = files.read_json(self.status.path) or {}
        self.status.mode, self.status.config = "plain", config.digest
        message = f"Loading {_name(config)} the plain way ({reason})"
        if previous.get("state") == "failed" and previous.get("config") == config.digest:
            # A retry of the same: keep showing the error instead of blinking between "failed" and "running".
            self.status.publish("load", "failed", str(previous.get("message")), FIX)
            time.sleep(self.settings.retry)
        else:
            self.status.publish("load", "running", message)

        served = False

        def healthy() -> None:
            nonlocal served
            served = True
            self.status.publish("serve", "done", f"{_serving(config)}, started the plain way ({reason})")

        code, error = engine_plain.serve(
            build_argv(config, self.settings.port, "plain", self.cpu), self.settings.port, healthy
        )
        if not error:
            return 0
        self.status.publish("serve" if served else "load", "failed", error, FIX)
        return code if 0 < code < 256 else 1


def _name(config: EngineConfig) -> str:
    return config.served_names[0] if config.served_names else config.model


def _serving(config: EngineConfig) -> str:
    return f"Serving {_name(config)}"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["bake"] and len(arguments) == 2:
        return engine_start.bake(Path(arguments[1]))
    if arguments:
        print("usage: python -m aisandbox.instance.engine [bake FOLDER]", file=sys.stderr)
        return 2
    cpu = is_cpu_build()
    return Engine(Settings.from_environment(cpu), cpu, dict(os.environ)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
