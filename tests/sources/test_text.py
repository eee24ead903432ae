from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddb.errors import SourceError
from embeddb.sources.text import compose

SOURCES = ("title", "body")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("Boats", "They float."), "Boats\nThey float."),
        (("Boats", None), "Boats"),
        ((None, "They float."), "They float."),
        (("Boats", " \t\u2003\u3000\u200b"), "Boats"),
        ((" Boats ", "x\n"), " Boats \nx\n"),
        ((None, None), None),
        (("", " \n\u00a0\u2028\ufeff"), None),
        (("0", ""), "0"),
    ],
)
def test_joins_what_is_there(values: tuple[str | None, ...], expected: str | None) -> None:
    assert compose(values, SOURCES) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title}: {body}", "Boats: "),
        ("{body}{title}", "Boats"),
        ("{{{title}}} {body}{title}", "{Boats} Boats"),
        ("{title} {body}%s {{0}}", "Boats %s {0}"),
    ],
)
def test_fills_a_template(template: str, expected: str) -> None:
    assert compose(("Boats", None), SOURCES, template) == expected


def test_a_value_is_never_read_as_a_template() -> None:
    assert compose(("{body}{0.__class__}", "x"), SOURCES, "{title} {body}") == "{body}{0.__class__} x"


def test_a_template_over_blank_sources_is_no_text() -> None:
    assert compose((None, "  "), SOURCES, "title: {title} body: {body}") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\x00b", "'body' holds a NUL"),
        ("é\ud800", "'body' is not valid Unicode.*character 1"),
        (3, "'body' is int, not text"),
    ],
)
def test_refuses_what_is_no_text(value: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        compose(("Boats", value), SOURCES)


@given(
    st.lists(
        st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), min_size=1, max_size=4
    )
)
def test_keeps_every_present_value_whole(values: list[str | None]) -> None:
    text = compose(values, [f"s{number}" for number in range(len(values))])
    present = [value for value in values if value and value.strip()]
    if text is None:
        assert not [value for value in present if value.isprintable()]
    else:
        assert all(value in text for value in present if any(map(str.isalnum, value)))
