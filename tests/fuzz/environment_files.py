"""Files of variables: what the templates write is what the readers read, whatever the value."""

from __future__ import annotations

from hypothesis import strategies as st

from aisandbox.instance import environment_file
from aisandbox.instance.choose.options import deployment
from tests.fuzz.search import Property

VALUE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\"'\\$` \n\t#="))
LINE_WORDS = ["A=", "B_1=", "export ", "declare -x ", '"', "'", "\\", "\n", "\r", "\x85", "\u2028", " ", "#", "$(", "x"]


def lines_come_back(before: str, value: str, after: str) -> None:
    """As systemd reads them: a quoted value has every line of what was written, and ends where it ended."""
    quote = environment_file.quoted_lines
    text = f"BEFORE={quote(before)}\nVALUE={quote(value)}\nAFTER={quote(after)}\n"
    assert list(environment_file.parse(text)) == [("BEFORE", before), ("VALUE", value), ("AFTER", after)]


def one_line_stays_one(value: str) -> None:
    text = environment_file.quoted(value)
    assert "\n" not in text
    ((name, read),) = environment_file.parse(f"VALUE={text}\n")
    assert name == "VALUE" and "".join(read.split()) == "".join(value.split())


def anything_is_read(text: str) -> None:
    for name, value in environment_file.parse(text):
        assert name.isidentifier() and isinstance(value, str)
    deployment.unquoted(text)


PROPERTIES = (
    Property(lines_come_back, {"before": VALUE, "value": VALUE, "after": VALUE}),
    Property(one_line_stays_one, {"value": VALUE}),
    Property(
        anything_is_read,
        {"text": st.lists(st.sampled_from(LINE_WORDS) | st.text(max_size=4), max_size=30).map("".join)},
    ),
)
