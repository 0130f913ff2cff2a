"""The manifest's rules and look-ups."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aisandbox import manifest
from aisandbox.manifest import ManifestError

MANIFEST = manifest.load()


def test_the_listed_models_end_in_one_that_needs_no_gpu() -> None:
    assert MANIFEST.models[-1] == MANIFEST.embedded_model
    assert [model for model in MANIFEST.models if not model.gpu_memory_gib] == [MANIFEST.embedded_model]
    assert MANIFEST.fitting(0) == (MANIFEST.embedded_model,)


def test_every_listed_model_is_pinned_and_permissively_licensed() -> None:
    for model in MANIFEST.models:
        assert model.license in ("Apache-2.0", "MIT")
        assert model.embedded or model.revision


LARGE, MIDDLE = "Qwen/Qwen3.8-27B-FP8", "google/gemma-4-12B-it-qat-w4a16-ct"


@pytest.mark.parametrize(
    ("memory_gib", "gpus", "capability", "model"),
    [
        (0, 0, None, MANIFEST.embedded_model.id),
        (7.9, 1, (8, 6), MANIFEST.embedded_model.id),
        (14.7, 1, (7, 5), MIDDLE),
        (22.5, 1, (8, 9), MIDDLE),
        (22.5, 2, (8, 9), LARGE),
        (22.5, 3, (8, 9), LARGE),
        (15.0, 4, (7, 5), MIDDLE),
        (45.0, 1, (8, 9), LARGE),
        (40.0, 1, None, LARGE),
        (140.4, 8, (9, 0), LARGE),
    ],
)
def test_the_default_is_the_best_listed_model_for_the_gpus(
    memory_gib: float, gpus: int, capability: tuple[int, int] | None, model: str
) -> None:
    assert MANIFEST.fitting(memory_gib, gpus, capability)[0].id == model


@pytest.mark.parametrize(
    ("model", "tool", "reasoning"),
    [
        ("Qwen/Qwen3-8B", "hermes", "qwen3"),
        ("qwen/QWEN3.5-9B", "qwen3_coder", "qwen3"),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", None),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", None),
        (MANIFEST.models[0].id.lower(), MANIFEST.models[0].tool_parser, MANIFEST.models[0].reasoning_parser),
    ],
)
def test_parsers_follow_the_name(model: str, tool: str, reasoning: str | None) -> None:
    parser = MANIFEST.parser(model)
    assert parser
    assert (parser.tool, parser.reasoning) == (tool, reasoning)


@pytest.mark.parametrize(
    ("model", "model_type", "tool", "reasoning"),
    [
        ("acme/model", "qwen3_5_text", "qwen3_coder", "qwen3"),
        ("acme/model", "gpt_oss", "openai", None),
        ("acme/model", "gemma4_unified_text", "gemma4", "gemma4"),
        ("Qwen/Qwen3-8B", "qwen3", "hermes", "qwen3"),
        ("acme/qwen3-8b-tuned", "qwen3", "hermes", None),
    ],
)
def test_a_model_of_another_name_is_known_by_its_type(
    model: str, model_type: str, tool: str, reasoning: str | None
) -> None:
    parser = MANIFEST.parser(model, model_type)
    assert parser
    assert (parser.tool, parser.reasoning) == (tool, reasoning)


def test_an_unknown_family_has_no_parsers() -> None:
    assert MANIFEST.parser("acme/model") is None
    assert MANIFEST.parser("acme/model", "acme") is None


def test_examples_obey_their_own_rules() -> None:
    import jsonschema  # half a second, in every process of the suite

    for option in MANIFEST.options:
        for value in (option.example, option.default):
            if value is not None:
                jsonschema.validate(value, option.schema_())


def test_the_options_make_one_json_schema_that_requires_nothing() -> None:
    import jsonschema  # half a second, in every process of the suite

    schema = MANIFEST.options_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == list(MANIFEST.options_by_key)
    assert "required" not in schema
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({})
    assert not validator.is_valid({"modle": "Org/Name"})
    assert all({"title", "description", "type"} <= set(rules) for rules in schema["properties"].values())
    assert {key for key, rules in schema["properties"].items() if rules.get("writeOnly")} == {
        option.key for option in MANIFEST.options if option.type == "secret"
    }


def test_the_appliance_keeps_the_manifest_above_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marketplace.yaml").write_text((manifest.REPOSITORY / "marketplace.yaml").read_text())
    monkeypatch.setattr(manifest, "REPOSITORY", tmp_path / "lib")
    assert manifest.load() == MANIFEST


def test_a_broken_rule_is_named_with_its_place(tmp_path: Path) -> None:
    content = yaml.safe_load((manifest.REPOSITORY / "marketplace.yaml").read_text())
    content["ports"]["chat"]["port"] = 70000
    file = tmp_path / "marketplace.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    line = file.read_text().splitlines().index("    port: 70000") + 1
    with pytest.raises(ManifestError, match=rf"marketplace.yaml: line {line}: ports\.chat\.port: .*65535"):
        manifest.load(file)


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (("options", 1, "key"), "much_too_long_a_key", "options.1.key: .*pattern"),
        (("options", 0, "choices"), ["a"], "options.0: .*choices belong to an option of type choice"),
        (("options", 2, "colour"), "red", "options.2.colour: Extra inputs"),
    ],
)
def test_a_broken_option_is_named_with_its_line(
    tmp_path: Path, place: tuple[str, int, str], value: object, rule: str
) -> None:
    content = yaml.safe_load((manifest.REPOSITORY / "marketplace.yaml").read_text())
    part, index, key = place
    content[part][index][key] = value
    file = tmp_path / "marketplace.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ManifestError, match=rule) as caught:
        manifest.load(file)
    line = int(str(caught.value).split("line ")[1].split(":")[0])
    first = [number for number, text in enumerate(file.read_text().splitlines(), 1) if text.startswith("- key:")]
    assert first[index] <= line < first[index + 1]


@pytest.mark.parametrize(("text", "reason"), [("a: [", "not YAML"), (None, "cannot be read")])
def test_an_unreadable_manifest_is_explained(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "marketplace.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ManifestError, match=reason):
        manifest.load(file)
