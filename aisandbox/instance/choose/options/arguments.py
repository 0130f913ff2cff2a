"""The arguments of vLLM's server that users may change: what only tunes it, by a rule for every value.

Not here, and so refused: what the appliance decides (address, model, names, keys), and whatever names a file, an
address, a plugin or code.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from aisandbox.instance.choose.options.errors import InvalidOptionError


@dataclass(frozen=True)
class Argument:
    """One argument and the rule of its value; without a rule it takes none."""

    name: str
    numbers: tuple[float, float] | None = None
    """Least and greatest number."""
    whole: bool = True
    words: tuple[str, ...] = ()
    pattern: str | None = None
    counts: bool = False
    """Whether the value is a JSON object of numbers."""
    fields: tuple[Argument, ...] = ()
    """What the value, a JSON object, may hold, each under its name and by its rule; the first is needed."""
    negatable: bool = False
    """Whether `--no-NAME` exists, too."""

    @property
    def negation(self) -> str:
        return self.name.replace("--", "--no-", 1)

    @property
    def takes_value(self) -> bool:
        return bool(self.numbers or self.words or self.pattern or self.counts or self.fields)

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        if self.numbers:
            least, greatest = (f"{bound:g}" if bound < 1e6 else str(int(bound)) for bound in self.numbers)
            return f"a {'whole ' if self.whole else ''}number from {least} to {greatest}"
        if self.words:
            return f"one of {', '.join(self.words)}"
        if self.fields:
            return "a JSON object: " + "; ".join(f"{field.name}, {field.rule}" for field in self.fields)
        if self.counts:
            return 'a JSON object of numbers, such as {"image": 2}'
        return "a name of small letters, digits and _" if self.pattern else "no value"

    def accepts(self, value: str) -> bool:
        if self.numbers:
            least, greatest = self.numbers
            form = r"-?\d{1,12}" if self.whole else r"\d{1,6}(\.\d{1,6})?"
            return bool(re.fullmatch(form, value, re.ASCII)) and least <= float(value) <= greatest
        if self.counts:
            return _counts(value)
        if self.fields:
            return self._accepts_fields(value)
        return value in self.words if self.words else bool(re.fullmatch(self.pattern or "", value))

    def _accepts_fields(self, value: str) -> bool:
        rules = {field.name: field for field in self.fields}
        try:
            pairs = json.loads(value, object_pairs_hook=tuple)  # an array is a list
            held = dict(pairs)
            return (
                isinstance(pairs, tuple)
                and len(held) == len(pairs)
                and self.fields[0].name in held
                and all(rules[name].accepts(json.dumps(x) if rules[name].numbers else x) for name, x in pairs)
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return False


_PARSER = r"[a-z0-9_]{1,40}"
ALLOWED = (
    Argument("--max-num-seqs", (1, 4096)),
    Argument("--max-num-batched-tokens", (64, 4194304)),
    Argument("--gpu-memory-utilization", (0.1, 0.98), whole=False),
    Argument("--kv-cache-dtype", words=("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")),
    Argument("--dtype", words=("auto", "half", "float16", "bfloat16", "float", "float32")),
    Argument("--block-size", words=("8", "16", "32", "64", "128")),
    Argument("--cpu-offload-gb", (0, 4096), whole=False),
    Argument("--kv-offloading-size", (0.1, 4096), whole=False),
    Argument("--tensor-parallel-size", (1, 16)),
    Argument("--pipeline-parallel-size", (1, 16)),
    Argument("--enable-expert-parallel", negatable=True),
    Argument("--enable-prefix-caching", negatable=True),
    Argument("--enable-chunked-prefill", negatable=True),
    Argument("--enforce-eager", negatable=True),
    Argument("--async-scheduling", negatable=True),
    Argument("--scheduling-policy", words=("fcfs", "priority")),
    Argument("--optimization-level", words=("0", "1", "2", "3")),
    Argument("--performance-mode", words=("balanced", "interactivity", "throughput")),
    Argument("--stream-interval", (1, 1000)),
    # By the text so far, or by layers of the model itself: other methods need another model, named by file or address.
    Argument(
        "--speculative-config",
        fields=(
            Argument("method", words=("ngram", "mtp")),
            Argument("num_speculative_tokens", (1, 16)),
            Argument("prompt_lookup_min", (1, 64)),
            Argument("prompt_lookup_max", (1, 64)),
        ),
    ),
    Argument("--seed", (0, 4294967295)),
    Argument("--max-logprobs", (0, 1000)),
    Argument("--generation-config", words=("auto", "vllm")),
    Argument("--override-generation-config", counts=True),
    Argument("--limit-mm-per-prompt", counts=True),
    Argument("--mm-processor-cache-gb", (0, 256), whole=False),
    Argument("--skip-mm-profiling", negatable=True),
    Argument("--language-model-only", negatable=True),
    Argument("--enable-auto-tool-choice", negatable=True),
    Argument("--tool-call-parser", pattern=_PARSER),
    Argument("--reasoning-parser", pattern=_PARSER),
    Argument("--enable-prompt-tokens-details", negatable=True),
    Argument("--enable-force-include-usage", negatable=True),
    Argument("--trust-remote-code"),
)
TRUST = "--trust-remote-code"
"""Runs Python that comes with the model: never set by the appliance itself, only by its user."""

_BY_NAME = {argument.name: argument for argument in ALLOWED} | {
    argument.negation: Argument(argument.negation) for argument in ALLOWED if argument.negatable
}
_OPTIONS = {
    "--model": "model",
    "--revision": "revision",
    "--hf-token": "hf_token",
    "--served-model-name": "served_name",
    "--max-model-len": "max_model_len",
    "--quantization": "quantization",
    "--api-key": "api_key",
}
"""Arguments that are options of their own."""


def check(text: str) -> str:
    """The arguments in one spelling: `--name value`, quoted for a shell.

    Raises:
        InvalidOptionError: some are refused; `usable` holds the others.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidOptionError(f"cannot be split into arguments: {error}", "Close every quote.") from None
    good: list[str] = []
    faults: list[InvalidOptionError] = []
    seen: set[str] = set()
    for name, value in _pairs(words):
        try:
            argument = _argument(name, value)
            subject = argument.name.replace("--no-", "--", 1)
            if subject in seen:
                raise InvalidOptionError(f"gives {subject} twice", "Give it once.")
        except InvalidOptionError as fault:
            faults.append(fault)
        else:
            seen.add(subject)
            good += [name] if value is None else [name, value]
    if faults:
        fixes = dict.fromkeys(fault.fix for fault in faults)
        usable = shlex.join(good) or None
        raise InvalidOptionError("; ".join(fault.reason for fault in faults), " ".join(fixes), usable)
    return shlex.join(good)


def split(text: str | None) -> list[str]:
    """The checked arguments, one by one."""
    return shlex.split(text or "")


def _pairs(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Every argument with its value. Words that follow nothing stand alone."""
    words = words[:]
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            yield word, None
            continue
        name = name.replace("_", "-")
        argument = _BY_NAME.get(name)
        if equals:
            yield name, value
        elif words and not words[0].startswith("--") and (argument is None or argument.takes_value):
            yield name, words.pop(0)
        else:
            yield name, None


def _argument(name: str, value: str | None) -> Argument:
    argument = _BY_NAME.get(name)
    if argument is None:
        raise _refused(name)
    if not argument.takes_value and value is not None:
        raise InvalidOptionError(f"{name} takes no value", f"Write {name} alone.")
    if argument.takes_value and (value is None or not argument.accepts(value)):
        what = "needs a value" if value is None else "has a value that is not allowed"
        raise InvalidOptionError(f"{name} {what}", f"Give {name} {argument.rule}.")
    return argument


def _refused(name: str) -> InvalidOptionError:
    import difflib

    if name in _OPTIONS:
        return InvalidOptionError(f"{name} is set by an option of its own", f"Use the option {_OPTIONS[name]}.")
    if not name.startswith("--"):
        return InvalidOptionError("a word is neither an argument nor its value", "Write arguments as --name value.")
    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.8)
    hint = f"Did you mean {near[0]}?" if near else "docs/options.md lists the arguments that are."
    return InvalidOptionError(f"{name[:60]} is not allowed", hint)


def _counts(value: str) -> bool:
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(parsed, dict)
        and 0 < len(parsed) <= 16
        and all(re.fullmatch(r"[a-z_]{1,40}", key) for key in parsed)
        and all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1e7 for x in parsed.values())
    )
