"""Configuration files, read so that whatever is wrong with one is told with its line.

Snakemake reads the files that `--configfile` names before it runs anything of the workflow. What it can't read at all (another
encoding, a tab, brackets without end) it refuses in words of its own, or with a traceback; what it can read comes here, too.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from prefdelta.run.errors import ConfigError

DEFAULT = "config/config.yaml"  # the study of a command that names none
DEEPEST, MOST = 50, 100_000  # levels and values that a file may have, with what its aliases stand for


def read_config(file: Path | str) -> dict[str, Any]:
    """The keys of a YAML or JSON file. Raises ConfigError with the file, each line that is wrong, and what to do."""
    text = _text(Path(file))
    twice: list[str] = []
    try:
        try:
            content = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, twice))
            faults = [f"`{key}` stands twice in one object" for key in twice]
        except ValueError:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            faults = [] if root is None else list(_faults(root, itertools.count()))
            content = None if faults or root is None else yaml.constructor.SafeConstructor().construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{file}, {_told(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{file} has more than {DEEPEST} levels within each other") from None
    if faults:
        raise ConfigError("\n".join(f"{file}, {fault}" for fault in faults))
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}, not keys with values"
        raise ConfigError(f"{file} {what}. config/README.md has the keys of a study, config/config.yaml is one.")
    return content


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file}, line {line}: byte {data[error.start]:#04x} is no UTF-8. Save the file as UTF-8; of one in Latin-1, "
            f"`iconv -f latin1 -t utf-8 {file}` writes it."
        ) from None
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from None


def _once(pairs: list[tuple[str, Any]], twice: list[str]) -> dict[str, Any]:
    twice += sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return dict(pairs)


def _told(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    hint = ": indent with spaces" if "'\\t'" in str(error.problem) else ""
    hint = hint or (": put a text with colons in quotes" if "mapping values" in str(error.problem) else "")
    return f"line {mark.line + 1 if mark else 1}: {error.problem}{hint}"


def _faults(node: yaml.Node, numbers: Iterator[int], path: str = "", depth: int = 1) -> Iterator[str]:
    """What is wrong within ``node``: keys that stand twice or are no texts, values that no setting can have.

    ``numbers`` counts values, those that an alias stands for as often as it is named.
    """
    number, line = next(numbers), f"line {node.start_mark.line + 1}"
    if depth > DEEPEST:
        yield f"{line}: more than {DEEPEST} levels within each other, or an alias within what it stands for"
    elif number >= MOST:
        if number == MOST:
            yield f"{line}: more than {MOST} values, with those that aliases (`*name`) stand for"
    elif isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTIONS:
        yield f"{line}: {path.removesuffix('.')} has the tag {_tag(node)}, which no setting has: take it away"
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = f"{path}{key.value}", f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                yield f"{line}: a key must be a text, not a list or more keys"
                continue
            if key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    yield f"{line}: {name} stands twice"
                seen.add(key.value)
                if key.tag != "tag:yaml.org,2002:str":
                    yield f"{line}: the key `{name}` was read as {_read_as(key)} by YAML: put it in quotes"
            yield from _faults(value, numbers, f"{name}.", depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _faults(value, numbers, f"{path}{index}.", depth + 1)
    elif isinstance(node, yaml.ScalarNode) and (given := _read_as(node)) not in KINDS:
        yield f"{line}: {path.removesuffix('.')} was read as {given} by YAML: put it in quotes, or write another"


COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
KINDS = ("text", "nothing", "true", "false", "a number")  # what settings are made of


def _tag(node: yaml.Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _read_as(node: yaml.ScalarNode) -> str:
    """What YAML 1.1 takes a text for, by its form or its tag. Raises yaml.MarkedYAMLError for a tag that is not known."""
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    # What a tag such as `!!bool` or `!!timestamp` meets in a text that is none: PyYAML checks for nothing.
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        return f"a {_tag(node)} that can't be ({error})"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number" if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str):
        return "text" if value is not None else "nothing"
    return "a date" if isinstance(value, date) else f"a {type(value).__name__}"
