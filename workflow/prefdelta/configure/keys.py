"""The page of all keys, from the descriptions of the typed settings: `make schema` writes it as config/README.md."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prefdelta.study.selections import GRAMMAR
from prefdelta.study.study import Study

HEAD = """\
# Configuration

One file describes one study: `config.yaml` (`microworld`, where no file is named), `smoke.yaml` (the same shape, for tests),
`paper.yaml` and `small.yaml` (real models: `docs/real-models.md`), or your own with `--configfile`. What is named is the whole
study: nothing of `config.yaml` is added. Editors with YAML support complete and check keys with `schema.json`. A wrong file fails
before any job starts, with the key, the value and the choices. `make check CONFIG=my-study.yaml` tells the same, with the line,
also of a file that Snakemake, which reads it first, can't read at all (not in UTF-8, tabs). YAML reads `no`, `yes`, `on`, `off`,
dates and numbers as such: as texts they need quotes. This page and the schema are written by `make schema` from the typed
settings in `workflow/prefdelta/study/`.

Names (of authors, models, generators, judges, methods, suites, experiments) become parts of paths: letters, digits, `.`, `-`,
and single `_`; `_vs_` is taken.

What a study *is* stands apart from how a machine makes it: an edit of the section `run` makes nothing again. It can stand in a
second file (`--configfile study.yaml machine.yaml`, the later one wins), on the command line (`--config 'run={methods: {dpo:
{micro_batch: 2}}}'`), or under `config:` in a profile.
"""
SELECTIONS = f"""
### Selections
```
{GRAMMAR}
```
`length`: the ratio of both answers' lengths in steps of 10 %, their mean in steps of 25 %. In an experiment a random selection
without its draw (`random500`, `random500-within_length`, `matched500-overall`, `band500-overall-0to1`) is another draw for every
seed. The control of
`top500-overall-within_length` is `random500-within_length`, which differs from it in the deltas, but not in lengths. That of
`top500-overall` is `matched500-overall`: in every group of pairs that are alike (correctness of both answers, ratio and mean of
lengths in steps of 25 %, the prompt's share of right answers in quarters) it has as many pairs, drawn from all of the group.
Where the top pairs are most of their group, the draw is mostly the same pairs: `tables/overlap.csv` has the share,
`balance.csv` how alike the arms are.

The same band of two pairs of generators has nearly the same deltas, since each quarter of it has equally many pairs: so an
experiment of figure `crossed` varies one delta while the other stays. Where a judge is noisy, `delta_correction.csv` says what
the deltas are without the noise. Pairs of one policy: a second generator of the same model with another seed is the rejected
side, and both sides' samples of a prompt are one set, twice `sampling.samples` of them. Margins are those of the first of
`policies`, by the references of the first method that has any.
"""


def page() -> str:
    """The whole page, in Markdown."""
    lines = [HEAD, *_section("Study", [Study], set())]
    return "\n".join(lines) + SELECTIONS


def _section(title: str, models: list[type[BaseModel]], told: set[type[BaseModel]]) -> Iterator[str]:
    """A heading, what each of ``models`` is and its keys, and then the sections of the settings within them."""
    yield f"{'##' if title == 'Study' or '.' not in title else '###'} {title if title == 'Study' else f'`{title}`'}"
    inner: dict[str, list[type[BaseModel]]] = {}
    for model in models:
        if model in told:
            yield f"As {_name(model)} above.\n"
            continue
        told.add(model)
        if title != "Study":
            yield f"{' '.join((model.__doc__ or '').split())}\n"
        yield "| key | default | meaning |\n|---|---|---|"
        for key, field in model.model_fields.items():
            yield f"| `{key}` | {_default(field)} | {(field.description or _literal(field)).replace('|', chr(92) + '|')} |"
            if within := settings_within(field.annotation):
                inner.setdefault(key, []).extend(one for one in within if one not in inner.get(key, []))
        yield ""
    for key, within in inner.items():
        yield from _section(key if title == "Study" else f"{title}.{key}", within, told)


def _name(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).split(".")[0].lower()


def _literal(field: FieldInfo) -> str:
    """What a key without a description must be: the mark of its kind."""
    return " or ".join(f"`{value}`" for value in get_args(field.annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, BaseModel) or value in ({}, [], ""):
        return ""
    return "none" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"


def settings_within(annotation: Any) -> list[type[BaseModel]]:
    """The typed settings that a key's value can be, or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for part in get_args(annotation) for model in settings_within(part)))


if __name__ == "__main__":
    print(page(), end="")
