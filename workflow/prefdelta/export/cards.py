"""The cards (README.md) of exported data sets and models, in the hub's form: a YAML header, then Markdown."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

NOT_STATED = "not stated"
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}

DATASET = """\
---
{{ card_data }}
---
# {{ pretty_name }}

{{ pairs.n_pairs }} preference pairs on {{ pairs.n_prompts }} prompts, in TRL's conversational format. Both sides of a pair answer
the same prompt: the chosen one is by `{{ pairs.sides[0].generators }}`, the rejected one by `{{ pairs.sides[1].generators }}`.
The pairs are the selection `{{ cell.selection }}` of the study `{{ cell.study }}`, rated by the judge `{{ cell.judge }}`.

## Use
```python
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

pairs = load_dataset("{{ location }}", split="train")
trainer = DPOTrainer(model="your/model", args=DPOConfig(output_dir="tuned"), train_dataset=pairs)
trainer.train()
```

Some chat templates (DeepSeek-R1's, Nemotron's, Qwen3's) drop what stands between `<think>` and `</think>` from assistant turns,
some from all of them and some from all but the last. What is dropped is not trained on. Check that the reasoning survives the
template of your model:

```python
print(tokenizer.apply_chat_template(pairs[0]["prompt"] + pairs[0]["chosen"], tokenize=False))
```

## Columns
`prompt`, `chosen` and `rejected` are lists of messages (`role`, `content`). A trainer does not need the others:

| column | meaning |
| --- | --- |
| `pair_id`, `prompt_id` | keys of the pair and of its prompt |
| `judge` | who rated both sides |
| `chosen_generator`, `rejected_generator` | who wrote the side |
| `chosen_trace_id`, `rejected_trace_id` | key of the side's trace |
| `chosen_correct`, `rejected_correct` | whether the side's final answer is right; null where it could not be graded |
| `chosen_tokens`, `rejected_tokens` | generated tokens of the side, as its generator counts them |
| `chosen_*`, `rejected_*` | mean rating of the side in a dimension, {{ rating }}; `overall`: the mean of the dimensions |
| `delta_*` | `chosen_*` minus `rejected_*` |

## Deltas
In levels, chosen minus rejected. A pair exists only where the judge's ratings of both sides could be read in every dimension.

| criterion | pairs | mean | standard deviation | lowest | median | highest | above 0 |
| --- | --- | --- | --- | --- | --- | --- | --- |
{%- for row in pairs.deltas %}
| {{ row.criterion }} | {{ pairs.n_pairs }} | {{ "%+.2f" % row.mean }} | {{ "%.2f" % row.sd }} | {{ "%+.2f" % row.lowest
}} | {{ "%+.2f" % row.median }} | {{ "%+.2f" % row.highest }} | {{ "%.1f" % (100 * row.share_positive) }} % |
{%- endfor %}

## Balance of the sides

| side | generator | texts | mean tokens | median tokens | right answers | mean overall rating |
| --- | --- | --- | --- | --- | --- | --- |
{%- for row in pairs.sides %}
| {{ row.side }} | {{ row.generators }} | {{ pairs.n_pairs }} | {{ "%.1f" % row.mean_tokens }} | {{ "%.1f" % row.median_tokens
}} | {{ "none graded" if row.share_correct is none else "%.1f %%" % (100 * row.share_correct) }} | {{
"%.2f" % row.mean_overall }} |
{%- endfor %}

The chosen side is the longer one in {{ "%.1f" % (100 * pairs.share_chosen_longer) }} % of the pairs.

## Where the pairs come from

| part | source | revision | licence |
| --- | --- | --- | --- |
{%- for name, origin in origins.items() %}
| {{ name }} | {{ origin.source or "the micro-world" }} | {{ origin.revision or "not stated" }} | {{ origin.license }} |
{%- endfor %}

What the study sets of each:

```json
{{ settings }}
```

The judge's rubric:
{% for dimension in rubric.dimensions %}
- **{{ dimension.name }}**{{ ": " if dimension.question }}{{ dimension.question }}{% if dimension.levels %} ({%
for level, meaning in dimension.levels.items() %}{{ "%g" % level | float }}: {{ meaning }}{{ "; " if not loop.last }}{% endfor
%}){% endif %}
{%- endfor %}

The selection is `{{ cell.selection }}`, in this grammar:

```
{{ selection_grammar }}
```

## Licence
Of this data set: {{ license }}. Of its parts: see above. "not stated" means that the study's configuration does not say.

Made by {{ code }}. `lineage.json` says all of this for machines, with the hash of the table that the pairs were taken from.
"""

MODEL = """\
---
{{ card_data }}
---
# {{ model_name }}

`{{ cell.policy }}` ({{ policy.source or "a model of the micro-world" }}, revision {{ policy.revision or "not stated" }}), tuned
by the method `{{ cell.method }}` (TRL's {{ training.recipe.trainer | upper }}) for {{ training.n_steps }} optimiser steps on
{{ training.n_pairs }} preference pairs, seed {{ cell.seed }}. Load it with `AutoModelForCausalLM.from_pretrained`.

## Training data
{{ data_set }}: chosen by `{{ pairs.sides[0].generators }}`, rejected by `{{ pairs.sides[1].generators }}`, selection
`{{ cell.selection }}`, rated by the judge `{{ cell.judge }}`. The mean overall delta of its {{ training.n_pairs }} pairs is
{{ "%+.2f" % training.mean_delta }} levels.

## Recipe
```json
{{ recipe }}
```

Loss of the first step: {{ "%.4f" % training.losses[0] }}; of the last: {{ "%.4f" % training.losses[-1] }}. The limit of length
cut {{ training.n_truncated.chosen }} chosen and {{ training.n_truncated.rejected }} rejected texts of {{ training.n_pairs }}.

## Evaluation
Accuracy in points (0 to 100): the mean over items of an item's share of right answers; of a suite, the mean over its tasks. The
interval of the difference is a 95 % bootstrap over items. This is one training seed, and the interval says nothing about others.
Answers of either model that could not be graded are left out.

| suite | task | decoding | items | answers | ungraded | base | this model | difference | 95 % interval |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{%- for row in evaluation %}
| {{ row.suite }} | {{ row.task or "all" }} | {{ row.decoding }} | {{ row.n_items }} | {{ row.n_answers }} | {{
row.n_ungraded }} | {{ "%.1f" % row.base }} | {{ "%.1f" % row.tuned }} | {{ "%+.1f" % row.difference
}} | {{ "%+.1f" % row.ci_low }} to {{ "%+.1f" % row.ci_high }} |
{%- endfor %}

## Licence
Of this model: {{ license }}. Of the model that was tuned: {{ policy.license }}. "not stated" means that the study's
configuration does not say.

Made by {{ code }}. `lineage.json` says all of this for machines, with the loss curve, package versions and hashes of the inputs.
"""


def dataset_card(lineage: dict[str, Any], location: str, language: str) -> str:
    """The card of a data set from its ``lineage`` (`export.export_cell`). ``location`` is what `load_dataset` is given."""
    cell = lineage["cell"]
    origins = {
        **{f"prompts: {task}": origin for task, origin in lineage["prompts"].items()},
        **{f"generator: {name}": origin for name, origin in lineage["generators"].items()},
        f"judge: {cell['judge']}": lineage["judge"],
    }
    header = DatasetCardData(
        language=language,
        license=_hub_license(lineage["license"]),
        task_categories=["text-generation"],
        size_categories=[_size(lineage["pairs"]["n_pairs"])],
        pretty_name=f"{cell['study']}: {cell['chosen']} over {cell['rejected']}, {cell['selection']}",
        tags=["preference", "trl", "prefdelta"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    settings = _json({name: origin["settings"] for name, origin in origins.items()})
    words: dict[str, Any] = {
        "location": location,
        "origins": origins,
        "settings": settings,
        "rating": _rating(lineage["rubric"]["scale"]),
    }
    return f"{DatasetCard.from_template(header, template_str=DATASET, **lineage, **words)}\n"


def model_card(lineage: dict[str, Any], dataset: str | None, language: str) -> str:
    """The card of a model from its ``lineage`` (`export.export_cell`). ``dataset``: the hub's data set that it was tuned on."""
    cell, policy = lineage["cell"], lineage["policy"]
    # The header can name repositories of the hub only, not a local folder.
    on_hub = policy["source"] is not None and not Path(policy["source"]).exists()
    header = ModelCardData(
        base_model=policy["source"] if on_hub else None,
        datasets=[dataset] if dataset else None,
        language=language,
        library_name="transformers",
        license=_hub_license(lineage["license"]),
        model_name="{policy}, {method} on {chosen} over {rejected} ({selection}, seed {seed})".format(**cell),
        pipeline_tag="text-generation",
        tags=["trl", lineage["training"]["recipe"]["trainer"], "prefdelta"],
    )
    recipe = {key: lineage["training"][key] for key in ("recipe", "run")}
    data_set = f"[{dataset}](https://huggingface.co/datasets/{dataset})" if dataset else "The data set that was exported with it"
    words: dict[str, Any] = {"data_set": data_set, "recipe": _json(recipe)}
    return f"{ModelCard.from_template(header, template_str=MODEL, **lineage, **words)}\n"


def _hub_license(license: str) -> str:
    return "unknown" if license == NOT_STATED else license  # the hub takes only names that it knows


def _rating(scale: list[float] | None) -> str:
    return f"{scale[0]:g} to {scale[1]:g}" if scale else "any number"


def _size(n: int) -> str:
    return next((name for limit, name in SIZES.items() if n < limit), "10M<n<100M")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
