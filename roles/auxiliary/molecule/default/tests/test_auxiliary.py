"""The auxiliary models: whole, readable to everybody, and they do what they are for."""

from __future__ import annotations

from testinfra.host import Host

from aisandbox import manifest

PATHS = manifest.load().paths
MODELS = f"{PATHS.opt}/auxiliary"


def test_the_models_are_whole(host: Host) -> None:
    assert host.file(MODELS).listdir() == ["embedding", "speech"]
    assert "model.safetensors" in host.file(f"{MODELS}/embedding").listdir()
    assert {"model.safetensors", "generation_config.json", "preprocessor_config.json", "tokenizer.json"} <= set(
        host.file(f"{MODELS}/speech").listdir()
    )


def test_everybody_reads_them_and_only_root_writes_them(host: Host) -> None:
    assert host.check_output(f"find {MODELS} -not -user root -o -perm /022") == ""
    assert host.check_output(f"find {MODELS} -type f -not -perm -444 -o -type d -not -perm -555") == ""


def test_like_texts_have_like_vectors(host: Host) -> None:
    program = (
        "import torch; from transformers import AutoModel as M, AutoTokenizer as T; "
        f"t, m = (x.from_pretrained('{MODELS}/embedding') for x in (T, M)); "
        "v = [m.float()(**t(x, return_tensors='pt')).last_hidden_state.mean(1)[0] for x in "
        "('The cat sleeps on the sofa.', 'A kitten naps on the couch.', 'Interest rates rose again.')]; "
        "c = torch.nn.functional.cosine_similarity; print(float(c(v[0], v[1], 0) - c(v[0], v[2], 0)))"
    )
    assert float(host.check_output(f'{PATHS.opt}/envs/vllm/bin/python -c "{program}"')) > 0.3


def test_what_only_the_build_needs_is_gone(host: Host) -> None:
    assert not host.file("/var/tmp/aisandbox-auxiliary").exists
    assert host.file(f"{PATHS.opt}/envs").listdir() == ["vllm", "vllm.txt"]
