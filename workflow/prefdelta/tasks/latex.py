r"""Answers as models write them: boxes, and one spelling for what can be spelled in several ways.

What two answers are worth is for math-verify to say. Here is only what it does not read: `\boxed 5`, `\fbox{5}`, full-width
digits, thousands separators of LaTeX, `1e3`, units within `\text{}`, letters of options.
"""

import re

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_NEXT = re.compile(r"\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # or an escaped character
_BARE_BOX = re.compile(r"\s*(-?\d[\d.,]*(?<=\d)|[A-Za-z](?![A-Za-z]))")
_SIGNS: dict[str, str] = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
    **{"\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div ", "\u03c0": r"\pi "},
    **{"\u221e": r"\infty ", "\u00b0": r"^\circ ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u222a": r"\cup "},
    **{"\u2208": r"\in ", "\u2205": r"\emptyset ", "\u00b1": r"\pm ", "\u2248": r"\approx ", "\u2044": "/"},
    **{"\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}"},
    **{"\u00b2": "^2", "\u00b3": "^3", "\u20ac": "", "\u00a3": ""},
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
}
_CHARACTERS = str.maketrans(_SIGNS)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\(?:[,;:! ]|quad|qquad)(?![A-Za-z])|(?<=[\w}])~")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;: ]|~)+(?=\d{3}(?!\d))")
_GROUPED = re.compile(r"-?\d{1,3}(?:([, ])\d{3})(?:\1\d{3})*(?:\.\d+)?")
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)[eE]([-+]?\d+)")
_CURRENCY = re.compile(r"\\\$|\\(?:pounds|euro)(?![A-Za-z])")
_ROOT = re.compile("\u221a\\s*(?:\\(([^()]*)\\)|(\\d+|[a-z]))")
_MIXED = re.compile(r"(-?\d+)\s+(\d+)/(\d+)")
_POWER = r"(?:\s*\^\s*(?:\d|\{\s*-?\d\s*\}))?"
# A number with a unit: words, or letters that are marked as text. `or`, `and` and `to` make two answers of one.
_QUANTITY = re.compile(
    r"(?P<value>-?(?:\d[\d.]*|\.\d+|\\d?frac\{[^{}]*\}\{[^{}]*\}|\d+/\d+)(?:\s*\\pi)?)\s*"
    r"(?P<unit>[A-Za-z][A-Za-z.]*(?:[\s/]+[A-Za-z][A-Za-z.]*)*)" + _POWER
)
_NO_UNIT = {"or", "and", "to", "i", "e", "pi", "mod", "base"}
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s'-]+[^\W\d_]+)*")
_OPTION = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")


def last_boxed(text: str) -> str | None:
    r"""The content of the last box that is not empty and whose braces balance, else None. ``\{`` is no brace.

    A box is ``\boxed{...}`` or ``\fbox{...}``, or one of these before a number or letter without braces (``\boxed 5``).
    """
    boxes = list(_BOX.finditer(text))
    closings = _closings(text) if boxes else {}
    for box in reversed(boxes):
        opening = _NEXT.match(text, box.end()).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text[opening : opening + 1] == "{":
            if content := text[opening + 1 : closings.get(opening, 0)].strip():
                return content
        elif bare := _BARE_BOX.match(text, box.end()):
            return bare[1]
    return None


def _closings(text: str) -> dict[int, int]:
    """Where each brace that is opened in ``text`` is closed."""
    opened: list[int] = []
    found = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            found[opened.pop()] = brace.start()
    return found


def unwrapped(text: str) -> str:
    r"""``text`` without marks of text, mathematics and emphasis around and in it: ``\text{(C)}``, ``$C$``, ``**C**``."""
    text = text.translate(_CHARACTERS)
    while (inner := _TEXT.sub(r"\1", text)) != text:
        text = inner
    text = _SPACE.sub(" ", text.replace("**", "").replace(r"\(", "").replace(r"\)", "").replace(r"\[", "").replace(r"\]", ""))
    return " ".join(text.replace("\\$", "").replace("$", "").split())


def spelled(answer: str) -> str:
    """``answer`` as math-verify reads it: plain digits and signs, no separators of thousands, no currency, no unit.

    A number that is all of an answer may have commas or spaces before each three digits (``1,234``): it is one number, as is
    ``1{,}234``; a pair of numbers is in brackets or has a space after its comma.
    """
    text = _THOUSANDS.sub("", answer.translate(_CHARACTERS).strip())
    text = _CURRENCY.sub("", text).strip().strip("$").strip()
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = re.sub(r"^\\(?:approx|simeq|sim)(?![A-Za-z])\s*|^=\s*", "", text).rstrip(".").rstrip()
    plain = unwrapped(text)
    if _GROUPED.fullmatch(plain):
        return plain.replace(",", "").replace(" ", "")
    if found := _SCIENTIFIC.fullmatch(plain):
        return rf"{found[1]} \times 10^{{{int(found[2])}}}"
    if found := _MIXED.fullmatch(plain):
        return rf"{found[1]}\frac{{{found[2]}}}{{{found[3]}}}"
    found = _QUANTITY.fullmatch(plain)
    # A single letter is a variable, unless it is marked as text.
    if found and (len(found["unit"]) > 1 or _TEXT.search(text)) and not _NO_UNIT & set(found["unit"].lower().split()):
        return found["value"]
    return re.sub(r"_\{(\w)\}", r"_\1", text)


def words(answer: str) -> str | None:
    r"""``answer`` in lower case where it is words, such as ``\text{No solution}``, None where it is mathematics.

    math-verify reads words as products of their letters, so that *east* equals *seat*.
    """
    text = unwrapped(answer).strip(". ")
    marked = _TEXT.fullmatch(answer.strip(". $"))
    return text.casefold() if _WORDS.fullmatch(text) and (marked or len(text) > 3) else None


def option(answer: str) -> str | None:
    r"""The letter, in upper case, where ``answer`` is that of an option and nothing else: ``C``, ``(c)``, ``\text{(C)}``."""
    found = _OPTION.fullmatch(unwrapped(answer))
    return found[1].upper() if found else None
