"""What the driver's own program, nvidia-smi, says: the GPUs, and their memory and power while something runs."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from types import TracebackType
from xml.etree import ElementTree

PROGRAM = "nvidia-smi"
ANSWER_SECONDS = 60
SAMPLE_MS = 200
SAMPLED = "index,memory.used,power.draw"


class NoGpu(Exception):
    """There is no GPU to prove anything with; the message says how that shows."""


@dataclass(frozen=True)
class Card:
    """One GPU. Memory in MiB; `reserved` is the driver's own part of it, `used` what programs have of the rest."""

    name: str
    memory: int
    reserved: int
    used: int


@dataclass(frozen=True)
class Machine:
    driver: str
    cuda: str
    cards: tuple[Card, ...]


def look() -> Machine:
    """Ask nvidia-smi.

    Raises:
        NoGpu: it is not there, fails, or knows no GPU.
    """
    try:
        told = subprocess.run([PROGRAM, "-q", "-x"], capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except FileNotFoundError as error:
        raise NoGpu("nvidia-smi is not installed: there is no NVIDIA driver") from error
    except subprocess.TimeoutExpired as error:
        raise NoGpu(f"nvidia-smi does not answer within {ANSWER_SECONDS} s") from error
    if told.returncode:
        raise NoGpu(f"nvidia-smi failed: {(told.stdout + told.stderr).strip() or told.returncode}")
    machine = parse(told.stdout)
    if not machine.cards:
        raise NoGpu(f"driver {machine.driver} runs, and finds no GPU")
    return machine


def parse(log: str) -> Machine:
    """The machine in the output of `nvidia-smi -q -x`.

    Raises:
        NoGpu: it is not that.
    """
    try:
        root = ElementTree.fromstring(log)  # noqa: S314 - the driver's own program wrote it
    except ElementTree.ParseError as error:
        raise NoGpu(f"the answer of nvidia-smi -q -x is not XML: {error}") from error
    return Machine(
        driver=root.findtext("driver_version", "?"),
        cuda=root.findtext("cuda_version", "?"),
        cards=tuple(
            Card(
                name=gpu.findtext("product_name", "?"),
                memory=_mib(gpu.findtext("fb_memory_usage/total")),
                reserved=_mib(gpu.findtext("fb_memory_usage/reserved")),
                used=_mib(gpu.findtext("fb_memory_usage/used")),
            )
            for gpu in root.iterfind("gpu")
        ),
    )


def _mib(text: str | None) -> int:
    number = (text or "").removesuffix("MiB").strip()
    return int(number) if number.isdigit() else 0


class Sampler:
    """Samples memory and power of all GPUs while the context lasts; does nothing unless `there`."""

    def __init__(self, there: bool) -> None:
        self._there = there
        self._peaks: dict[str, list[float]] = {}

    def __enter__(self) -> Sampler:
        if self._there:
            query = [f"--query-gpu={SAMPLED}", "--format=csv,noheader,nounits", f"--loop-ms={SAMPLE_MS}"]
            self._process = subprocess.Popen([PROGRAM, *query], stdout=subprocess.PIPE, text=True)
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._there:
            self._process.kill()
            self._process.wait()
            self._reader.join(1)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            index, *values = (part.strip() for part in line.split(","))
            peaks = self._peaks.setdefault(index, [0.0, 0.0])
            # What this GPU cannot measure is "[N/A]".
            for place, value in enumerate(values[:2]):
                if value.replace(".", "", 1).isdigit():
                    peaks[place] = max(peaks[place], float(value))

    @property
    def memory_gib(self) -> float | None:
        """Most memory in use, of all GPUs together."""
        return sum(peaks[0] for peaks in self._peaks.values()) / 1024 or None

    @property
    def watts(self) -> float | None:
        """Most power drawn, of all GPUs together."""
        return sum(peaks[1] for peaks in self._peaks.values()) or None
