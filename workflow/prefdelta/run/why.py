"""Says in words why jobs would run: which setting, definition or file is not as it was when their outputs were made."""

import argparse
import ast
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefdelta.run import codebook

ABSENT = object()  # in place of a setting that there isn't
LONGEST = 60  # characters of a value that are shown


@dataclass(frozen=True)
class Reasons:
    """What is not as it was, in words. ``recorded``: settings and code. ``data``: files, which nobody can vouch for."""

    recorded: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.recorded or self.data)


@dataclass(frozen=True)
class Group:
    """Jobs of one rule that would run for equal reasons."""

    rule: str
    reasons: Reasons
    jobs: list[Any]

    def __str__(self) -> str:
        more = f" and {len(self.jobs) - 1} more" if len(self.jobs) > 1 else ""
        return f"{self.rule}: {self.jobs[0].output[0]}{more}"


@contextmanager
def planned(arguments: Sequence[str]) -> Iterator[Any]:
    """Snakemake's workflow with the plan (``workflow.dag``) of a command with ``arguments``, default profile included.

    Nothing runs. What is wrong with the Snakefile or with the targets ends the process, with Snakemake's message.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.cli import parse_args, parse_config
    from snakemake.exceptions import format_exception_to_string
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    # Snakemake's own: resources of jobs that don't run.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    _, options = parse_args(list(arguments))
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        try:
            workflow = api.workflow(
                ResourceSettings(cores=1, default_resources=options.default_resources),
                ConfigSettings(config=parse_config(options.config), configfiles=options.configfile, config_args=options.config),
                snakefile=options.snakefile,
                workdir=options.directory,
            )
            workflow.dag(
                DAGSettings(
                    targets=options.targets,
                    force_incomplete=True,
                    rerun_triggers=options.rerun_triggers,
                    max_checksum_file_size=options.max_checksum_file_size,
                )
            )
            found = workflow._workflow
            # As Snakemake's own `--list-params-changes` does: the plan, and no lock.
            found._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=False)
            found._build_dag()
            yield found
        except Exception as error:
            sys.exit(format_exception_to_string(error, {}))


def groups(workflow: Any) -> tuple[list[Group], Counter[str]]:
    """Jobs that would run for reasons of their own, those that cost most first, and how many of each rule only follow."""
    found: dict[tuple[str, Reasons], list[Any]] = {}
    following: Counter[str] = Counter()
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.rule.norun]
    for job in sorted(jobs, key=lambda job: (*_cost(job), job.rule.name, str(job.output[0]))):
        own = workflow.async_run(_reasons(workflow, job))
        if not own and not any(map(workflow.dag.needrun, workflow.dag.dependencies[job])):
            own = Reasons(data=(str(workflow.dag.reason(job)),))
        if own:
            found.setdefault((job.rule.name, own), []).append(job)
        else:
            following[job.rule.name] += 1
    return [Group(rule, reasons, jobs) for (rule, reasons), jobs in found.items()], following


def described(groups: Sequence[Group]) -> str:
    """Each reason, and below it the jobs that have it."""
    lines: list[str] = []
    for reasons in dict.fromkeys(group.reasons for group in groups):
        lines += ["", *reasons.data, *reasons.recorded, *(f"    {group}" for group in groups if group.reasons == reasons)]
    return "\n".join(lines)


def counted(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"


def _cost(job: Any) -> tuple[int, int]:
    """Less for more GPUs and minutes that the rule asks for."""
    return -job.resources.get("gpu", 0), -job.resources.get("runtime", 0)


async def _reasons(workflow: Any, job: Any) -> Reasons:
    """Those of ``job`` itself. Snakemake's own leave out all but one, and all where a job before it runs."""
    records = workflow.persistence
    missing = [file async for file in job.missing_output(job.output)]
    if len(missing) == len(job.output):
        return Reasons(data=("there is no output",))
    if missing:
        names = [name for name, file in job.output.items() if file in missing]
        return Reasons(data=(f"of its outputs there is no {codebook.listed(names or missing)}",))
    data = ["its last run was interrupted"] if await records.incomplete(job) else []
    data += [words async for words in _changed_inputs(workflow, job)]
    recorded: list[str] = []
    if records.has_metadata(job):  # else Snakemake compares nothing but times
        data += [words for file in records.input_changed(job) for words in _other_inputs(records.input(file), job.input)]
        if change := records.params_changed(job):
            recorded += _changed_params(change.only_old, change.only_new)
    return Reasons(tuple(dict.fromkeys(recorded)), tuple(dict.fromkeys(data)))


def _other_inputs(before: list[str], now: Sequence[str]) -> Iterator[str]:
    if added := sorted(set(map(str, now)) - set(before)):
        yield f"more inputs: {codebook.listed(added)}"
    if removed := sorted(set(before) - set(map(str, now))):
        yield f"without the inputs: {codebook.listed(removed)}"


async def _changed_inputs(workflow: Any, job: Any) -> Any:
    """As `DAG.update_needrun` decides it: newer than the outputs, and not of the recorded content."""
    largest = workflow.dag_settings.max_checksum_file_size
    oldest = await job.output_mintime
    made = {file for files in workflow.dag.dependencies[job].values() for file in files}  # by other jobs: told by name
    names = {file: name for name, files in job.input.items() for file in ([files] if isinstance(files, str) else files)}
    for file in dict.fromkeys(job.input):
        if not (await file.exists() and await file.is_newer(oldest)):
            continue
        comparable = await file.is_checksum_eligible(largest)
        recorded = workflow.persistence.input_checksums(job, file)
        if comparable and len(recorded) == 1 and await file.is_same_checksum(next(iter(recorded)), largest):
            continue
        if not comparable:
            words = "is newer, and not of a kind that is compared by content"
        elif recorded:
            words = "has another content"
        else:
            words = "is newer, and what was in it is not known"
        yield f"its input {names.get(file, file) if file in made else file} {words}"


def _changed_params(before: set[str], now: set[str]) -> Iterator[str]:
    """From records of parameters as Snakemake keeps them (`repr`): the content of a job (`plan.job.Job`) and its code."""
    (old, old_codes), (new, new_codes) = _sorted_out(before), _sorted_out(now)
    for content in old:
        for one in new:
            yield from differences(content["settings"] or {}, one["settings"] or {})
            yield from differences(content["keys"], one["keys"], "keys")
    if new and not old:
        yield "its settings, of which it is not known what they were"
    for code in new_codes:
        yield codebook.difference(old_codes[0] if old_codes else "unknown", code)


def _sorted_out(params: set[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Contents, and digests of code: anything else that was ever recorded."""
    texts = [str(ast.literal_eval(param)) for param in sorted(params)]
    contents = [text for text in texts if text.startswith('{"keys": ')]
    return [json.loads(text) for text in contents], [text for text in texts if text not in contents]


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Of two settings as JSON has them: key paths with what was there and what is there now."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif _all_dicts(before) and _all_dicts(now) and len(before) == len(now):
        for n, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{path}[{n}]")
    elif before is ABSENT:
        yield f"{path} is new: {_shown(now)}"
    elif now is ABSENT:
        yield f"{path} is gone, was {_shown(before)}"
    elif before != now:
        yield f"{path} from {_shown(before, now)} to {_shown(now, before)}"


def _all_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _shown(value: Any, other: Any = None) -> str:
    """``value`` as JSON, where it is long from about where it differs from ``other``."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST:
        return text
    pairs = zip(f"{text}\n", f"{json.dumps(other, ensure_ascii=False)}\n", strict=False)
    start = max(0, next(n for n, (one, two) in enumerate(pairs) if one != two) - LONGEST // 4)
    return ("…" if start else "") + text[start : start + LONGEST] + ("…" if len(text) > start + LONGEST else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints why jobs would run."""
    parser = argparse.ArgumentParser(
        prog="python -m prefdelta.run.why",
        usage="%(prog)s [-h] [TARGET ...] [--configfile FILE] [any argument of Snakemake]",
        description=f"{__doc__} Nothing is run. Without a target it is the report.",
    )
    _, rest = parser.parse_known_args(arguments)
    with planned(rest) as workflow:
        found, following = groups(workflow)
    count = sum(len(group.jobs) for group in found) + following.total()
    print(f"{counted(count)} would run.\n{described(found)}" if count else "Nothing would run.")
    if following:
        rules = ", ".join(f"{number} {rule}" for rule, number in following.items())
        print(f"\nAnd {counted(following.total())} that read what these make: {rules}")


if __name__ == "__main__":
    main()
