"""What the image's vLLM knows of models and GPUs, as its bake read it out of it (`serve.engine_tables`)."""

from __future__ import annotations

from pydantic import ConfigDict, ValidationError

from aisandbox.instance.places import Places
from aisandbox.manifest import Parser, Part

Capability = tuple[int, int]


class _Table(Part):
    """Keys of other releases say nothing to this one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Defaults(_Table):
    """What a model's configuration may leave out; None where it has to tell by itself."""

    context: int | None = None
    vocabulary: int | None = None
    whole_every: int | None = None
    """n where every n-th layer sees the whole context, and the others a window."""


class Tables(_Table):
    """What is not known stays None or empty: vLLM then says by itself what it cannot do."""

    architectures: frozenset[str] | None = None
    """Those that vLLM can serve."""
    formats: dict[str, Capability] | None = None
    """Formats of compressed weights, with the oldest compute capability for each."""
    not_float16: frozenset[str] = frozenset()
    """Model types that vLLM refuses to compute in float16."""
    prescaled_ropes: frozenset[str] = frozenset()
    """Extensions of the context that `max_position_embeddings` includes already."""
    defaults: dict[str, Defaults] = {}
    """By model type."""
    tool_parsers: frozenset[str] | None = None
    reasoning_parsers: frozenset[str] | None = None
    capability: Capability | None = None
    """The oldest that there is code for; None in the flavour cpu."""

    def of(self, model_type: str | None) -> Defaults:
        """The defaults of a model type."""
        return self.defaults.get(model_type or "", Defaults())

    def known(self, parser: Parser | None) -> Parser | None:
        """The parser without the names that vLLM does not know: it would not start with one of them."""
        if not parser:
            return None
        tool, reasoning = (
            name if known is None or name in known else None
            for name, known in ((parser.tool, self.tool_parsers), (parser.reasoning, self.reasoning_parsers))
        )
        return parser.model_copy(update={"tool": tool, "reasoning": reasoning}) if tool or reasoning else None


def read(places: Places) -> Tables:
    """The tables of this image; all of them unknown where its bake did not write them."""
    try:
        return Tables.model_validate_json((places.opt / "cache" / "vllm" / "tables.json").read_bytes())
    except (OSError, ValidationError):
        return Tables()
