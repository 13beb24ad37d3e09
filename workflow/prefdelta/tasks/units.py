r"""What of an answer is a unit: `5 cm`, `18\text{ apples}`, `9.8\ \mathrm{m\,s^{-2}}`; but neither the *xy* of `2xy` nor
the *if* of `2\text{ if }n`.

A unit is one of a list, or words that are marked as text after a number. Letters that may be variables are none, nor is a word
that changes what the number says.
"""

import re
from typing import NamedTuple

# Each entry is one unit in its spellings, without plurals in -s. Capitals count in spellings of up to three letters.
_SPELLINGS = """mm millimeter millimetre|cm Cm centimeter centimetre|dm|m meter metre|km Km kilometer kilometre|in inch inche
ft foot feet|yd yard|mi mile|ha hectare|acre|ml mL milliliter millilitre|L l liter litre|gal gallon|cc|cup|quart|pint
mg milligram|g gm gram|kg Kg kilogram|lb lbs pound|oz ounce|ton tonne|ms millisecond|s sec second|min minute|h hr hrs hour
day|week|month|yr yrs year|decade|N newton|J joule|kJ kilojoule|cal calorie|kcal|W watt|kW kilowatt|V volt|A amp ampere
ohm|Hz hertz|kHz|MHz|Pa pascal|kPa|atm|mol mole|K kelvin|C celsius|F fahrenheit|eV|dollar buck USD|cent|euro EUR|yen|rupee
penny pennies|degree deg|radian rad|percent percentage pct|am AM|pm PM|unit|digit|point|edge|way|th|student|person people
man men|woman women|child children|boy|girl|apple|book|page|coin|toy|tile|meal|pie|square|cube"""
_UNITS = {spelling: entry.split()[0] for entry in re.split(r"[|\n]", _SPELLINGS) for spelling in entry.split()}
_SPELLED_OUT = {"mph": "mile per h", "kmh": "km per h", "kph": "km per h", "kmph": "km per h"}
_DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_SCALES = {"dozen": "12", "hundred": "10^2", "thousand": "10^3", "million": "10^6", "billion": "10^9", "trillion": "10^{12}"}
_KNOWN = {*_SPELLED_OUT, *_DIMENSIONS, *_SCALES, "per"}
# These say more of a number than what it counts.
_CHANGING = """if when where for or and to minus plus times over divided more less fewer least most greater than up down mod
modulo base not no unless otherwise such infinity pi sin cos tan cot sec csc log ln lim max exp sqrt even odd
halves thirds fourths quarters fifths sixths sevenths eighths ninths tenths hundredths half third quarter
january february march april may june july august september october november december jan feb mar apr jun jul aug sept sep
oct nov dec monday tuesday wednesday thursday friday saturday sunday"""
_NO_UNIT = {*_CHANGING.split(), *_SCALES, *(f"{scale}s" for scale in _SCALES)}
_CLEAR = {"cm", "km", "kg", "mm", "th"}  # though they follow a number without a space; others may be products of variables
_LETTERS = {"m", "g", "s"}  # units after a space, variables without one

_TOKEN = re.compile(
    r"(?P<text>\\(?:text|textrm|textnormal|textit|textbf|mbox|(?P<roman>mathrm))\s*\{(?P<inside>(?:[^{}]|\{[^{}]*\})*)\})"
    r"|(?P<degree>\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}))|(?P<power>\^\s*(?:-?\d|\{\s*-?\d\s*\}))"
    r"|(?P<percent>\\?%)|(?P<over>/)|(?P<space>\s+|~|\\[,;:! ]|\\(?:cdot|quad|qquad)(?![A-Za-z]))"
    r"|(?P<word>(?:\\mu\s*)?[A-Za-z]+(?:\.[A-Za-z]+)*\.?)|(?P<other>\\[A-Za-z]+|\\?.)",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:[A-Za-z]\s*+=\s*+)?(?=.*?(?:\d|\\pi))"
    r"(?:[\d.,:+\-*/(){}\[\]^!\s]|\\(?:[dtc]?frac|sqrt|pi|cdot|times|left|right|pm|approx)(?![A-Za-z])|\\[ ,;:!]"
    r"|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)*"
    r"(?<=[\d)}\]!i.])",
    re.DOTALL,
)


class Quantity(NamedTuple):
    """A value and its unit: names and their powers, none where it has no unit. ``counted``: names of no unit in the list."""

    value: str
    unit: frozenset[tuple[str, int]] = frozenset()
    counted: bool = False

    def differs(self, other: "Quantity") -> bool:
        """Whether both have units and these are not the same. Of counted things, more words may say the same: real solutions."""
        ours, theirs = self.unit, other.unit
        if not ours or not theirs or "unit" in {name for name, _ in (*ours, *theirs)}:
            return False
        return not (ours <= theirs or theirs <= ours) if self.counted or other.counted else ours != theirs


def quantity(text: str) -> Quantity:
    r"""``text`` (LaTeX or plain) without the unit at its end. ``2 million`` is two times 10^6.

    A percent sign is a unit, and stays, as it makes a number of another size. All may be marked as text: ``\text{25 cents}``.
    """
    whole = _TOKEN.fullmatch(text)
    if whole and whole["inside"] and re.match(r"\s*-?\.?\d", whole["inside"]):
        text = whole["inside"].strip()
    tokens = list(_TOKEN.finditer(text))
    start = len(tokens)
    while start and _may_be_unit(tokens[start - 1]):
        start -= 1
    while start < len(tokens) and tokens[start].lastgroup in ("power", "over", "space"):
        start += 1
    tail = tokens[start:]
    while start and tokens[start - 1]["space"]:
        start -= 1
    value = text[: tokens[start].start()].strip() if tail else ""
    if not value or value[-1] in "+-*/^(=,\\_":
        return Quantity(text)
    names, counted = _names(tail)
    marked = all(token["text"] or token.lastgroup in ("power", "over", "space") for token in tail)
    long = all(len(name) > 1 for name, _ in names)
    if _NUMBER.fullmatch(value) is None and not (marked and long and not counted and r"\text" not in value):
        return Quantity(text)
    if not all(_is_no_variable(token, tail, text) for token in tail if token["word"]):
        return Quantity(text)
    unit = frozenset((name, power) for name, power in names if name not in _SCALES)
    if percent := next((token for token in tail if token["percent"]), None):
        return Quantity(text[: percent.end()], unit, counted)
    return Quantity(r" \times ".join([value, *(_SCALES[name] for name, _ in names if name in _SCALES)]), unit, counted)


def _may_be_unit(token: re.Match[str]) -> bool:
    if not token["text"]:
        return not token["other"] and (not token["word"] or _is_known(token["word"]))
    inside = list(_TOKEN.finditer(token["inside"]))
    words = [part["word"] for part in inside if part["word"]]
    if not words or any(part["other"] not in (None, *"-',.()") for part in inside):
        return False
    if all(_is_known(word) for word in words):
        return True
    return not token["roman"] and all(len(word) > 1 and word.lower() not in _NO_UNIT for word in words)


def _is_known(word: str) -> bool:
    return _name(word) is not None or word.lower() in _KNOWN


def _name(word: str) -> str | None:
    """The unit of which ``word`` is a spelling."""
    if word.startswith("\\mu"):
        base = _name(word[3:].strip())
        return base and f"micro{base}"
    word = word.replace(".", "")
    if len(word) <= 3:
        return _UNITS.get(word)
    word = word.lower()
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))


def _is_no_variable(token: re.Match[str], tail: list[re.Match[str]], text: str) -> bool:
    """Whether a word that isn't marked as text is a unit for sure: 5 m/s, 5 m, 36cm and 25cents are, 10m, 2mg and 5 h are not."""
    word, follows = token["word"], not text[token.start() - 1].isalnum()
    if word.startswith("\\"):
        return False
    if len(word) > 1:
        return len(word) > 3 or word in _CLEAR or follows
    return any(one["over"] or one["degree"] for one in tail) or (word in _LETTERS and follows)


def _spelled_out(word: str) -> list[str]:
    return _SPELLED_OUT[word].split() if word in _SPELLED_OUT else [word]


def _names(tail: list[re.Match[str]]) -> tuple[list[tuple[str, int]], bool]:
    """The names and powers of a unit, and whether some of them are not in the list."""
    tokens = [part for token in tail for part in (_TOKEN.finditer(token["inside"]) if token["text"] else [token])]
    words = [(part, word) for part in tokens for word in _spelled_out(part["word"] or "")]
    names: list[tuple[str, int]] = []
    counted, sign, dimension = False, 1, 1
    last = max((place for place, (_, word) in enumerate(words) if word), default=0)
    for place, (part, word) in enumerate(words):
        if part["over"] or word == "per":
            sign = -1
        elif part["power"] and names:
            names[-1] = (names[-1][0], names[-1][1] * int(re.sub(r"[^-\d]", "", part["power"])))
        elif part["degree"] or part["percent"]:
            names.append(("degree" if part["degree"] else "percent", 1))
        elif word.lower() in _DIMENSIONS and place < last:
            dimension = _DIMENSIONS[word.lower()]
        elif word:
            name = word.lower() if word.lower() in _SCALES else _name(word)
            counted = counted or name is None
            names.append((name or word.lower().removesuffix("s"), sign * dimension))
            sign = dimension = 1
    return names, counted
