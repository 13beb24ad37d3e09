"""Decontamination: training prompts that are an evaluation item, or share a long run of words with one, are left out."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import polars as pl

log = logging.getLogger(__name__)

INSTRUCTION_WORDS = 4  # a shorter beginning or end that all prompts of a task share is chance

_SPACING = re.compile(r"\\(?:[,;:!> ]|(?:quad|qquad|left|right|big|bigg|bigl|bigr|displaystyle|limits|nolimits)(?![a-z]))|~")
_FONTS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathbb|mathcal|operatorname|boldsymbol)(?![a-z])")
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:cdot|times|ast)(?![a-z])|[\u00d7\u22c5\u00b7\u2217]"), "*"),
    (re.compile(r"\\div(?![a-z])|\u00f7"), "/"),
    (re.compile(r"\\leq?(?:slant)?(?![a-z])|\u2264"), "<="),
    (re.compile(r"\\geq?(?:slant)?(?![a-z])|\u2265"), ">="),
    (re.compile(r"[\u2012-\u2015\u2212]"), "-"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
)
# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han (also of the supplementary planes), Tai.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3041-\u3096\u309d-\u309f"
    "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_OPERATORS = re.compile(r"\s*([-+*/=<>^])\s*")
_GLUE = re.compile(r"[${}]")
_PUNCTUATION = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w\s.+*/=<>^-]|_")


def normalised(text: str) -> str:
    """``text`` as the words that are compared, with single spaces between them.

    Unicode NFKC and lower case; LaTeX spacing, size and font marks, ``$``, braces and backslashes go; spellings of the same
    operator or fraction become one; no spaces around operators, so that a formula is one word however it was spaced; no
    punctuation but decimal points. Where a script has no spaces between words (Chinese, Japanese, Thai and others), each
    character is a word.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = _FONTS.sub("", _SPACING.sub(" ", text))
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _PUNCTUATION.sub(" ", _GLUE.sub("", text.replace("\\", " ")))
    text = _OPERATORS.sub(r"\1", text)
    return " ".join((text if text.isascii() else _UNSPACED.sub(r" \1 ", text)).split())


def decontaminate(prompts: pl.DataFrame, items: pl.DataFrame, *, n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ``prompts`` that are clean, and those that are not. Both tables have the columns prompt_id, task, prompt at least.

    A prompt is dropped where its `normalised` text equals an item's ('equal'), or where it shares a run of ``n`` words with one
    ('overlap'); an item of fewer than ``n`` words can only be equal. What all prompts of a task begin or end with is its
    instructions and does not count. Eight words are what s1 (arXiv 2501.19393) and Open R1 (scripts/decontaminate.py) use; this
    also drops problems that only share a phrase. GPT-3 (arXiv 2005.14165, appendix C) used 13.

    The dropped have the columns prompt_id, task, prompt, reason, item_id, item_task and overlap: the item that is equal, or else
    shares the most runs, and how many different ones these are.
    """
    texts = _problems(items)
    equal: dict[str, int] = {}
    runs: dict[str, list[int]] = {}
    for index, words in enumerate(texts):
        equal.setdefault(" ".join(words), index)
        for run in _runs(words, n):
            runs.setdefault(run, []).append(index)
    names = items.select("prompt_id", "task").rows()
    found = []
    for row, words in zip(prompts.select("prompt_id", "task", "prompt").rows(), _problems(prompts), strict=True):
        shared = Counter(index for run in _runs(words, n) for index in runs.get(run, ()))
        same = equal.get(" ".join(words))
        if same is not None:
            found.append((*row, "equal", *names[same], shared[same]))
        elif shared:
            index, overlap = min(shared.items(), key=lambda pair: (-pair[1], pair[0]))
            found.append((*row, "overlap", *names[index], overlap))
    strings = dict.fromkeys(("prompt_id", "task", "prompt", "reason", "item_id", "item_task"), pl.String)
    dropped = pl.DataFrame(found, schema={**strings, "overlap": pl.Int64}, orient="row")
    log.info("%d of %d prompts dropped: %s", len(dropped), len(prompts), dict(Counter(dropped["reason"])))
    return prompts.join(dropped, on="prompt_id", how="anti", maintain_order="left"), dropped


def _runs(words: Sequence[str], n: int) -> set[str]:
    return {" ".join(words[start : start + n]) for start in range(len(words) - n + 1)}


def _problems(table: pl.DataFrame) -> list[list[str]]:
    """The words of each prompt of ``table`` without its task's instructions."""
    words = [normalised(prompt).split() for prompt in table["prompt"]]
    by_task: dict[str, list[int]] = {}
    for index, task in enumerate(table["task"]):
        by_task.setdefault(task, []).append(index)
    for indices in by_task.values():
        several = [words[index] for index in indices]
        before = _common(several)
        after = _common([each[before:][::-1] for each in several])
        for index in indices:
            words[index] = words[index][before : len(words[index]) - after]
    return words


def _common(several: Sequence[list[str]]) -> int:
    """How many words all of ``several`` begin with, where there are enough to be instructions. One prompt alone has none."""
    first, last = min(several), max(several)
    if first == last:
        return 0
    common = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return common if common >= INSTRUCTION_WORDS else 0
