"""What each rule's job depends on besides files: one canonical JSON string, the keyword arguments of its stage function.

Snakemake compares parameters as a set without names, so a job gets exactly one string: it reruns when, and only when, something
in it changes.
"""

import hashlib
import json
from typing import Any

from prefdelta.config import Study
from prefdelta.grid import arms, experiment_content


def canonical(content: dict[str, Any]) -> str:
    """JSON with sorted keys: equal contents are equal strings."""
    return json.dumps(content, sort_keys=True)


def derived_seed(study: Study, *names: object) -> int:
    """A seed that depends on the study's seed and on ``names`` alone."""
    text = "/".join(map(str, [study.seed, *names]))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % 2**31


def prompts_spec(study: Study, split: str) -> str:
    tasks = study.prompts if split == "train" else study.suites[split]
    return canonical({"split": split, "tasks": tasks, "operations": study.operations, "seed": study.seed})


def pretrain_spec(study: Study, name: str) -> str:
    model = study.models[name].model_dump()
    authors = [(weight, study.authors[author]) for author, weight in model.pop("authors").items()]
    return canonical({**model, "authors": authors, "operations": study.operations})


def traces_spec(study: Study, name: str) -> str:
    generator = study.generators[name]
    seed = derived_seed(study, "traces", generator.model, generator.seed)
    return canonical({**study.sampling.model_dump(), "generator": name, "seed": seed})


def ratings_spec(study: Study, name: str) -> str:
    return canonical({**study.judges[name].model_dump(), "judge": name})


def reference_spec(study: Study) -> str:
    return canonical({"batch_size": study.sampling.batch_size})


def pairs_spec(study: Study, judge: str, selection: str) -> str:
    return canonical({"judge": judge, "selection": selection, "seed": study.seed})


def training_spec(study: Study, cell: dict[str, str]) -> str:
    recipe = study.methods[cell["method"]]
    n_steps = recipe.n_steps(study.n_full_pairs)
    seed = derived_seed(study, "training", cell["seed"])
    return canonical({"recipe": recipe.model_dump(), "n_steps": n_steps, "cell": cell, "seed": seed})


def evaluation_spec(study: Study) -> str:
    return canonical(study.evaluation.model_dump())


def _statistics(study: Study) -> dict[str, Any]:
    return {"study": study.study, "n_resamples": study.bootstrap, "seed": study.seed}


def experiment_spec(study: Study, name: str) -> str:
    content = experiment_content(study, name)
    if study.experiments[name].figure != "profile":
        by_arm = zip(content["arms"], arms(study, name), strict=True)
        for row, arm in by_arm:
            row["cells"] = [arm.cell(study, seed) for seed in range(content["n_seeds"])]
    return canonical({**_statistics(study), "content": content})


def capability_spec(study: Study) -> str:
    shapes = [
        {"model": name, "family": model.family, "hidden_size": model.hidden_size, "layers": model.layers}
        for name, model in study.models.items()
    ]
    return canonical({**_statistics(study), "models": shapes})


def generator_deltas_spec(study: Study) -> str:
    return canonical({**_statistics(study), "generators": list(study.generators), "judges": list(study.judges)})


def coverage_spec(study: Study) -> str:
    return canonical({"study": study.study, "generators": list(study.generators), "judges": list(study.judges)})


def figure_spec(study: Study, name: str) -> str:
    experiment = study.experiments[name]
    words = {key: getattr(experiment, key) for key in ("title", "question", "caveat", "figure")}
    content = experiment_content(study, name)
    return canonical({"study": study.study, "content": content, "figure": words, "suites": list(study.suites)})


def capability_figure_spec(study: Study) -> str:
    return canonical({"suites": list(study.suites)})
