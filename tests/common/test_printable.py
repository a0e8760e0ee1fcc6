import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.common.printable import make_printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 重み\u00a0\u3000🙂", "größe 重み\u00a0\u3000🙂"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe\u2069\u200b", r"\u202egnp.exe\u2069\u200b"),
        ("\ud800", r"\ud800"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert make_printable(text) == shown


@given(st.text(st.characters(categories=None, exclude_categories=[])))
def test_no_text_holds_what_is_not_shown(text: str) -> None:
    shown = make_printable(text)
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)
    assert make_printable(shown) == shown
