"""Speech as text, in the worker's process."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATE = 16_000
"""Samples a second that the model hears."""
LONGEST_S = 2 * 3600
FORMATS = "aac,aiff,amr,au,caf,flac,matroska,mov,mp3,ogg,w64,wav"
"""Containers of sound, as ffmpeg names them; others can make it open further files."""
TEMPERATURES = (0.0, 0.4, 0.8)
"""The next is tried where what came of one says that it cannot be right (Whisper's rule and limits, in fewer steps)."""
REPETITIVE, UNLIKELY, SILENT = 1.35, -1.0, 0.6
QUIET = 0.003
"""Nobody speaks where no sample is larger (-50 dB)."""

_loaded: dict[str, Any] = {}


@dataclass(frozen=True)
class Segment:
    """Some words; times in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Heard:
    """What is said in a recording; `problem` says, in words, why nothing could be heard."""

    duration: float = 0.0
    segments: tuple[Segment, ...] = ()
    problem: str = ""


def load(folder: Path) -> None:
    """Prepare this process."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    _loaded["model"] = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    _loaded["features"] = WhisperFeatureExtractor.from_pretrained(folder)
    _loaded["tokenizer"] = WhisperTokenizerFast.from_pretrained(folder)


def transcribe(path: Path, *, prompt: str = "", temperature: float | None = None) -> Heard:
    """What is said in the recording.

    Args:
        prompt: words that come before it, which set spelling and style.
        temperature: 0 always takes the likeliest word; None begins there, and tries more where that fails.
    """
    samples = _decode(path)
    if isinstance(samples, str):
        return Heard(problem=samples)
    duration = len(samples) / RATE
    if duration > LONGEST_S:
        return Heard(problem=f"The recording is longer than {LONGEST_S // 3600} hours. Send it in parts.")
    return Heard(duration, tuple(_segments(samples, prompt, temperature)))


def _decode(path: Path) -> Any:
    """Samples from -1 to 1 in one channel; or, in words, why there are none."""
    import numpy as np

    said = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS,
         "-i", f"file:{path}", "-vn", "-t", str(LONGEST_S + 1), "-ac", "1", "-ar", str(RATE), "-f", "f32le", "pipe:1"],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    if not said.stdout:
        return "No sound could be read from the file: WAV, MP3, M4A, MP4, OGG, WebM, FLAC and AAC are understood."
    return np.frombuffer(said.stdout, dtype=np.float32)


def _segments(samples: Any, prompt: str, temperature: float | None) -> list[Segment]:
    import torch

    prepared = _loaded["features"](
        samples, sampling_rate=RATE, return_tensors="pt", truncation=False, padding="longest",
        return_attention_mask=True,
    )  # fmt: skip
    features, mask = prepared.input_features, prepared.attention_mask
    if features.shape[-1] < 3000:
        short = _loaded["features"](samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        features, mask = short.input_features, short.attention_mask
    more = {"prompt_ids": _loaded["tokenizer"].get_prompt_ids(prompt, return_tensors="pt")} if prompt.strip() else {}
    # The same recording gives the same words, whatever the temperature.
    torch.manual_seed(0)
    with torch.inference_mode():
        found = _loaded["model"].generate(
            features, attention_mask=mask, return_timestamps=True, return_segments=True,
            temperature=TEMPERATURES if temperature is None else temperature,
            compression_ratio_threshold=REPETITIVE, logprob_threshold=UNLIKELY, no_speech_threshold=SILENT, **more,
        )  # fmt: skip
    segments = []
    for segment in found["segments"][0]:
        text = _loaded["tokenizer"].decode(segment["tokens"], skip_special_tokens=True)
        start, end = float(segment["start"]), float(segment["end"])
        sound = samples[int(start * RATE) : int(end * RATE) + 1]
        # Whisper hears a word or two in silence.
        if text.strip() and len(sound) and abs(sound).max() > QUIET:
            segments.append(Segment(start, end, text))
    return segments
