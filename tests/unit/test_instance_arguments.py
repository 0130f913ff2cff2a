"""The arguments of vLLM that users may change."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import InvalidOptionError, arguments
from tests.support.appliance import MANIFEST

OPTION = MANIFEST.options_by_key["vllm_args"]
NGRAM = '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}'
WORDS = [argument.name for argument in arguments.ALLOWED]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--max-num-seqs 64 --enable-prefix-caching", "--max-num-seqs 64 --enable-prefix-caching"),
        ("--max_num_seqs=64", "--max-num-seqs 64"),
        ("--no-enable-prefix-caching", "--no-enable-prefix-caching"),
        ("--gpu-memory-utilization 0.85", "--gpu-memory-utilization 0.85"),
        ("--limit-mm-per-prompt '{\"image\": 2}'", "--limit-mm-per-prompt '{\"image\": 2}'"),
        ("--tool-call-parser hermes --enable-auto-tool-choice", "--tool-call-parser hermes --enable-auto-tool-choice"),
        ("--trust-remote-code", "--trust-remote-code"),
        ("--kv-offloading-size 8.5", "--kv-offloading-size 8.5"),
        (f"--speculative-config '{NGRAM}'", f"--speculative-config '{NGRAM}'"),
        ('--speculative-config \'{"method": "mtp"}\'', '--speculative-config \'{"method": "mtp"}\''),
        ("  --seed   1\n --dtype half", "--seed 1 --dtype half"),
    ],
)
def test_good_arguments_come_in_one_spelling(text: str, value: str) -> None:
    assert options.check(OPTION, text) == value
    assert arguments.split(value) == shlex.split(value)


@pytest.mark.parametrize(
    ("text", "reason", "fix", "usable"),
    [
        ("--port 1 --seed 1", "--port is not allowed", "docs/options.md", "--seed 1"),
        ("--model a/b", "is set by an option of its own", "Use the option model.", None),
        ("--api-key=x", "is set by an option of its own", "Use the option api_key.", None),
        ("--max-num-seq 3", "--max-num-seq is not allowed", "Did you mean --max-num-seqs?", None),
        ("--max-num-seqs", "needs a value", "Give --max-num-seqs a whole number from 1 to 4096.", None),
        ("--max-num-seqs 0", "has a value that is not allowed", "from 1 to 4096", None),
        ("--max-num-seqs 1e3", "has a value that is not allowed", "from 1 to 4096", None),
        ("--gpu-memory-utilization nan", "has a value that is not allowed", "from 0.1 to 0.98", None),
        ("--dtype int8", "has a value that is not allowed", "Give --dtype one of auto, half", None),
        ("--enforce-eager=1", "takes no value", "Write --enforce-eager alone.", None),
        ("--seed 1 --seed 2 --dtype half", "gives --seed twice", "once", "--seed 1 --dtype half"),
        ("--enforce-eager --no-enforce-eager", "twice", "once", "--enforce-eager"),
        ("-tp 2", "neither an argument nor its value", "--name value", None),
        ("stray --seed 1", "neither an argument nor its value", "--name value", "--seed 1"),
        ("--seed 1 'open", "cannot be split", "Close every quote.", None),
        ("--limit-mm-per-prompt {image:2}", "not allowed", "a JSON object of numbers", None),
        ('--limit-mm-per-prompt \'{"image": {"count": 1}}\'', "not allowed", "a JSON object of numbers", None),
        ("--reasoning-parser ../x", "not allowed", "small letters", None),
        ("--generation-config /etc", "not allowed", "one of auto, vllm", None),
    ],
)
def test_bad_arguments_are_explained_and_the_good_ones_count(
    text: str, reason: str, fix: str, usable: str | None
) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        options.check(OPTION, text)
    assert reason in caught.value.reason
    assert fix in caught.value.fix
    assert caught.value.usable == usable


@pytest.mark.parametrize(
    "flag",
    [
        "--host", "--port", "--uds", "--root-path", "--api-key", "--model", "--tokenizer", "--served-model-name",
        "--chat-template", "--download-dir", "--load-format", "--hf-config-path", "--hf-overrides", "--lora-modules",
        "--middleware", "--tool-parser-plugin", "--reasoning-parser-plugin", "--io-processor-plugin",
        "--logits-processors", "--worker-cls", "--worker-extension-cls", "--scheduler-cls", "--config",
        "--allowed-local-media-path", "--allowed-media-domains", "--ssl-keyfile", "--otlp-traces-endpoint",
        "--speculative-config", "--compilation-config", "--kv-transfer-config", "--additional-config",
        "--model-loader-extra-config", "--profiler-config", "--log-config-file", "--enable-log-requests",
        "--trust-request-chat-template", "--enable-tokenizer-info-endpoint", "--tool-server", "--grpc-port",
        "--data-parallel-address", "--master-addr", "--distributed-executor-backend", "--enable-sleep-mode",
    ],
)  # fmt: skip
def test_what_names_files_addresses_plugins_or_code_is_refused(flag: str) -> None:
    for text in (f"{flag} value", f"{flag}=value", flag, f"{flag.replace('-', '_').replace('__', '--', 1)} value"):
        with pytest.raises(InvalidOptionError):
            options.check(OPTION, text)


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        "[]",
        "null",
        '"ngram"',
        "[[1, 2]]",
        '["method"]',
        '[["method", "ngram"]]',
        '{"method": 1}',
        '{"method": "ngram", "num_speculative_tokens": "4"}',
        '{"num_speculative_tokens": 3}',
        '{"method": "eagle", "model": "a/b"}',
        '{"method": "ngram", "model": "/etc"}',
        '{"method": "ngram", "num_speculative_tokens": "4"}x',
        '{"method": "ngram", "num_speculative_tokens": 17}',
        '{"method": "ngram", "num_speculative_tokens": 2.5}',
        '{"method": "ngram", "num_speculative_tokens": true}',
        '{"method": "ngram", "num_speculative_tokens": null}',
        '{"method": "ngram", "method": "mtp"}',
        '{"method": {"method": "ngram"}}',
        '{"method": ["ngram"]}',
        "[" * 100_000,
    ],
)
def test_guessing_ahead_names_no_other_model(value: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        options.check(OPTION, f"--speculative-config {shlex.quote(value)}")
    assert "method, one of ngram, mtp" in caught.value.fix or len(value) > 1000


ANY = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*WORDS, "--host", "-tp", "1", "0.5", "auto", "{}", "'{\"image\": 1}'", "--seed=1", "'", "--"]),
        max_size=8,
    ).map(" ".join),
)


@given(ANY)
def test_nothing_but_allowed_arguments_ever_comes_out(text: str) -> None:
    try:
        value = options.check(OPTION, text)
    except InvalidOptionError as invalid:
        value = invalid.usable
    words = arguments.split(str(value)) if value else []
    names = [word for word in words if word.startswith("--")]
    allowed = {*WORDS, *(name.replace("--", "--no-", 1) for name in WORDS)}
    assert set(names) <= allowed
    assert len(set(names)) == len(names)
    assert all(word.startswith("--") or words[index - 1].startswith("--") for index, word in enumerate(words))
    assert not words or words[0].startswith("--")


def test_every_allowed_argument_says_its_rule() -> None:
    assert len({argument.name for argument in arguments.ALLOWED}) == len(arguments.ALLOWED)
    assert all(argument.rule for argument in arguments.ALLOWED)
