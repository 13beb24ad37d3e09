"""Traces that a data set holds already, such as DeepSeek-R1's ``generations`` in open-r1/OpenR1-Math-220k."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from prefdelta.data.dataset import load_split
from prefdelta.generate.completions import Completion, GenerateError, Request, completion
from prefdelta.generate.settings import DatasetSettings, GenerationRun
from prefdelta.tasks.common import ask

log = logging.getLogger(__name__)


def complete(
    requests: list[Request],
    *,
    settings: DatasetSettings,
    run: GenerationRun,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: Path,
) -> list[list[Completion]]:
    """`generate.complete` from a data set: of each prompt the first ``samples`` whole completions, or fewer where there are.

    Columns: ``problem`` (text; a prompt is found by it, or by what `tasks.common.ask` makes of it), ``generations`` (list of
    texts), ``complete`` (list of marks, or null: all are whole) and ``correct`` (names of columns with a list of marks each: the
    first that has a mark counts, and a completion without any is for the task to score). ``checkpoint``: the folder of the model
    whose tokenizer counts the tokens, and one for the end. The rest of sampling, run, seed and threads play no part: these were
    drawn by someone else. Raises DatasetError, GenerateError (also for a column that holds no lists of texts or of
    marks).
    """
    if checkpoint is None:
        raise GenerateError(f"the traces of {settings.repo} need a tokenizer to count their tokens: name one of `models`")
    split = load_split(settings)
    columns = [settings.problem, settings.generations, *settings.correct]
    columns += [settings.complete] if settings.complete else []
    missing = [column for column in columns if column not in split.column_names]
    if missing:
        raise GenerateError(f"{settings.repo} has no column {', '.join(missing)}; it has {', '.join(split.column_names)}")
    wanted = {request.prompt for request in requests}
    found: dict[str, list[int]] = {}
    for place, problem in enumerate(split[settings.problem]):
        for prompt in (ask(problem), problem) if problem else ():
            if prompt in wanted:
                found.setdefault(prompt, []).append(place)
    split = split.select_columns(columns)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    results = []
    for request in requests:
        whole = [one for place in found.get(request.prompt, ()) for one in _whole(split[place], place, settings)]
        drawn = whole[: request.sampling.samples]
        encoded = tokenizer([text for text, _ in drawn], add_special_tokens=False)["input_ids"] if drawn else []
        results.append(
            [
                replace(completion(text, len(ids) + 1, "stop", settings.think), correct=correct)
                for (text, correct), ids in zip(drawn, encoded, strict=True)
            ]
        )
    without = sum(request.prompt not in found for request in requests)
    log.info("%d of %d prompts are not in %s", without, len(requests), settings.repo)
    log.info("%d prompts have no whole completion", sum(not several for several in results) - without)
    return results


def _whole(row: dict[str, Any], place: int, settings: DatasetSettings) -> list[tuple[str, bool | None]]:
    """(text, mark) of each whole completion of ``row``, at ``place``. A list that is null or too short has no mark.

    Raises GenerateError where a column holds something else than lists of texts, or of marks that are true, false or null.
    """

    def entries(column: str, kind: type, what: str) -> list[Any]:
        found = [] if row[column] is None else row[column]
        if not isinstance(found, list) or any(entry is not None and not isinstance(entry, kind) for entry in found):
            where = f"row {place + 1} of {settings.repo}, column {column}"
            raise GenerateError(
                f"{where}: expected a list of {what}, found {str(found)[:80]!r}; convert the column, or name another"
            )
        return found

    texts = entries(settings.generations, str, "texts")
    complete = [True] * len(texts) if settings.complete is None else entries(settings.complete, bool, "marks (true or false)")
    marks = [entries(column, bool, "marks (true or false)") for column in settings.correct]
    return [
        (text, next((mark[place] for mark in marks if place < len(mark) and mark[place] is not None), None))
        for place, text in enumerate(texts)
        if text and place < len(complete) and complete[place]
    ]
