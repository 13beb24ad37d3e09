r"""Answers as models write them: boxes, and one spelling for what can be spelled in several ways.

What two answers are worth is for math-verify to say. Here is only what it does not read: `\boxed 5`, `\fbox{5}`, full-width
digits, thousands separators of LaTeX, `1e3`, units of quantities, letters of options. math-verify would drop words by their
endings (the *ab* of 12ab, all of `\text{ million}`), so that it is told to keep them: what is a unit is for `units` to say.
"""

import re
from collections.abc import Iterator

from prefdelta.tasks import units
from prefdelta.tasks.units import Quantity

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_NEXT = re.compile(r"\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # or an escaped character
_JOINT = re.compile(r"[$\s]{0,9}(?:,|(?:,\s)?(?:and|or|\\text\s?\{\s?(?:and|or)\s?\}))[$\s]{0,9}")
_BARE_BOX = re.compile(r"\s*(-?\d[\d.,]*(?<=\d)|[A-Za-z](?![A-Za-z]))")
_SIGNS: dict[str, str] = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
    **{"\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div ", "\u03c0": r"\pi "},
    **{"\u221e": r"\infty ", "\u00b0": r"^\circ ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u222a": r"\cup "},
    **{"\u2208": r"\in ", "\u2205": r"\emptyset ", "\u00b1": r"\pm ", "\u2248": r"\approx ", "\u2044": "/"},
    **{"\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}"},
    **{"\u00b2": "^2", "\u00b3": "^3", "\u20ac": r"\euro ", "\u00a3": r"\pounds "},
    **{"\u00a5": r"\yen ", "\u20b9": r"\rupee "},
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
}
_CHARACTERS = str.maketrans(_SIGNS)
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathtt|mbox|operatorname)"
    r"\s*\{([^{}]*)\}"
)
_SPACE = re.compile(r"\\(?:[,;:! ]|q?quad(?![A-Za-z]))|(?<=[\w}])~")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;: ]|~)+(?=\d{3}(?!\d))")
# A number with separators, maybe as the value of a variable, or before a variable or pi.
_GROUPED = re.compile(
    r"(?P<name>(?:[A-Za-z]\s*=\s*)?)(?P<number>-?\d{1,3}([, ])\d{3}(?:\3\d{3})*(?:\.\d+)?)(?P<factor>\s*(?:\\pi|[A-Za-z])?)"
)
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)[eE]([-+]?\d+)")
_CURRENCY = re.compile(r"\\(?:\$|(?:pounds|euro|yen|rupee)(?![A-Za-z]))")
_SIGN_NAMES = {r"\$": "dollar", r"\pounds": "pound", r"\euro": "euro", r"\yen": "yen", r"\rupee": "rupee"}
_ROOT = re.compile("\u221a\\s*(?:\\(([^()]*)\\)|(\\d+|[a-z]))")
_MIXED = re.compile(r"(-?\d+)\s+(\d+)/(\d+)")
_SHORT_WORDS = {"no", "yes", "on", "odd"}
_LETTER_IN_TEXT = re.compile(r"\\(?:mathrm|mathit)\s*\{\s*([A-Za-z])\s*\}")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s'-]+[^\W\d_]+)*")
_OPTION = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")


def last_boxed(text: str) -> str | None:
    r"""The content of the last box that is not empty and whose braces balance, else None. ``\{`` is no brace.

    A box is ``\boxed{...}`` or ``\fbox{...}``, or one of these before a number or letter without braces (``\boxed 5``). Boxes
    that are joined by a comma, *and* or *or* are one answer: ``\boxed{5} and \boxed{6}`` is ``5, 6``.
    """
    found: list[str] = []
    start = None
    for content, begins, ends in _boxes(text):
        if start is not None and not _JOINT.fullmatch(text, ends, start):
            break
        found.append(content)
        start = begins
    return ", ".join(dict.fromkeys(reversed(found))) or None


def _boxes(text: str) -> Iterator[tuple[str, int, int]]:
    """The content of each box that is not empty, from the last to the first, and where the box begins and ends."""
    boxes = list(_BOX.finditer(text))
    closings = _closings(text) if boxes else {}
    for box in reversed(boxes):
        opening = _NEXT.match(text, box.end()).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text[opening : opening + 1] == "{":
            if content := text[opening + 1 : closings.get(opening, 0)].strip():
                yield content, box.start(), closings[opening] + 1
        elif bare := _BARE_BOX.match(text, box.end()):
            yield bare[1], box.start(), bare.end()


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


def quantity(answer: str) -> Quantity:
    """The value of ``answer``, and its unit after it, or that of a sign of a currency."""
    text = _THOUSANDS.sub("", answer.translate(_CHARACTERS).strip())
    signs = {_SIGN_NAMES[sign] for sign in _CURRENCY.findall(text)}
    text = _CURRENCY.sub("", text).replace("$", "").strip()
    text = re.sub(r"^\\(?:approx|simeq|sim)(?![A-Za-z])\s*|^=\s*", "", text).rstrip(".").rstrip()
    found = units.quantity(text)
    return found if found.unit else found._replace(unit=frozenset((sign, 1) for sign in signs))


def spelled(answer: str) -> str:
    """``answer`` as math-verify reads it: plain digits and signs, no separators of thousands, no currency, no unit.

    A number that is all of an answer may have commas or spaces before each three digits (``1,234``): it is one number, as is
    ``1{,}234``; a pair of numbers is in brackets or has a space after its comma.
    """
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", quantity(answer).value)
    plain = unwrapped(text)
    if found := _GROUPED.fullmatch(plain):
        return found["name"] + found["number"].replace(",", "").replace(" ", "") + found["factor"]
    if found := _SCIENTIFIC.fullmatch(plain):
        return rf"{found[1]} \times 10^{{{int(found[2])}}}"
    if found := _MIXED.fullmatch(plain):
        return rf"{found[1]}\frac{{{found[2]}}}{{{found[3]}}}"
    return re.sub(r"_\{(\w)\}", r"_\1", _LETTER_IN_TEXT.sub(r"\1", text))


def words(answer: str) -> str | None:
    r"""``answer`` in lower case where it is words, such as ``\text{No solution}``, None where it is mathematics.

    math-verify reads words as products of their letters, so that *east* equals *seat*.
    """
    text = unwrapped(answer).strip(". ")
    marked = _TEXT.fullmatch(answer.strip(". $"))
    return text.casefold() if _WORDS.fullmatch(text) and (marked or len(text) > 3 or text.casefold() in _SHORT_WORDS) else None


def option(answer: str) -> str | None:
    r"""The letter, in upper case, where ``answer`` is that of an option and nothing else: ``C``, ``(c)``, ``\text{(C)}``."""
    found = _OPTION.fullmatch(unwrapped(answer))
    return found[1].upper() if found else None
