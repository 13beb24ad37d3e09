"""Texts in cells: whoever wrote them, they stay texts where a table is shown, set or opened in a spreadsheet."""

import re
import unicodedata

import polars as pl
import polars.selectors as cs

_LATEX = {character: rf"\{character}" for character in "_%&#${}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}"}
_LATEX |= {"[": "{[}", "*": "{*}"}  # what the end of the row before, or a rule, would take as its argument
_LIGATURE = re.compile(r"(?<=[-`',?!])(?=[-`',])")  # within what LaTeX sets as one sign, such as a dash
# What begins something in Markdown: an underscore does so outside of words only, an address only behind its scheme or `www`.
_MARKDOWN = re.compile(r"[\\|`*~\[<&$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
# What a spreadsheet computes; the signs of full width in Chinese and Japanese ones.
_FORMULA = r"^('*[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}])"


def visible(text: str) -> str:
    """``text`` with each character that has no form of its own as its code, such as ``[U+202E]``.

    These are controls, marks that turn the direction of writing, joiners, tags, unassigned and private characters; not line
    breaks, tabs and spaces.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\r\t" or unicodedata.category(character) == "Zs"
        else f"[U+{ord(character):04X}]"
        for character in text
    )


def latex_cell(text: str) -> str:
    """``text`` in one line, with everything escaped that LaTeX would not set as it is."""
    return _LIGATURE.sub("{}", "".join(_LATEX.get(character, character) for character in _line(text)))


def markdown_cell(text: str) -> str:
    """``text`` in one line, with everything escaped that would end the cell, or be code, a link, emphasis, a formula or HTML."""
    return _MARKDOWN.sub(r"\\\g<0>", _line(text))


def formulas_as_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """An apostrophe before each text that a spreadsheet would take for a formula; `texts_as_given` takes it away."""
    return frame.with_columns(cs.string().str.replace(_FORMULA, "'$1"))


def texts_as_given(frame: pl.DataFrame) -> pl.DataFrame:
    """The inverse of `formulas_as_texts`."""
    return frame.with_columns(cs.string().str.replace(f"^'{_FORMULA[1:]}", "$1"))


def _line(text: str) -> str:
    return visible(" ".join(text.splitlines()))
