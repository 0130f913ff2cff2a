"""The embedded model: a whole model in the hub's layout, readable to vLLM, that loads and answers."""

from __future__ import annotations

import json

from testinfra.host import Host

from aisandbox import manifest

PATHS = manifest.load().paths
MODEL = f"{PATHS.opt}/models/models--aisandbox--guide"


def snapshot(host: Host) -> str:
    return f"{MODEL}/snapshots/{host.file(f'{MODEL}/refs/main').content_string.strip()}"


def test_the_model_is_whole(host: Host) -> None:
    files = host.file(snapshot(host)).listdir()
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(files)
    assert json.loads(host.file(f"{snapshot(host)}/config.json").content_string)["architectures"]


def test_everybody_reads_it_and_only_root_writes_it(host: Host) -> None:
    assert host.check_output(f"find {MODEL} -not -user root -o -not -type l -perm /022") == ""
    assert host.check_output(f"find {MODEL} -type f -not -perm -444 -o -type d -not -perm -555") == ""


def test_it_loads_and_writes_text(host: Host) -> None:
    program = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"t, m = (x.from_pretrained('{snapshot(host)}') for x in (T, M)); "
        "x = t.apply_chat_template([{'role': 'user', 'content': 'Who are you?'}], add_generation_prompt=True, "
        "return_tensors='pt', return_dict=True); "
        "print(t.decode(m.generate(**x, max_new_tokens=40, do_sample=False)[0], skip_special_tokens=True))"
    )
    answer = host.run(f'{PATHS.opt}/envs/vllm/bin/python -c "{program}"')
    assert answer.succeeded, answer.stderr
    assert manifest.load().product.name in answer.stdout


def test_what_only_the_build_needs_is_gone(host: Host) -> None:
    assert not host.file("/var/tmp/aisandbox-guide").exists
    assert host.file(f"{PATHS.opt}/envs").listdir() == ["vllm", "vllm.txt"]
