"""Every kind of figure of every experiment that can be configured: it is drawn, and each arm is seen in it by itself.

What an experiment is is known before anything is trained, and so must be that it can be drawn.
"""

from itertools import product

import build
import numpy as np
import pytest
from build import result
from matplotlib import pyplot

from prefdelta.configure.load import load_study
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.experiment_figures import plot_experiment
from prefdelta.findings.profile import plot_profile
from prefdelta.findings.recipes import Recipes, plot_recipes
from prefdelta.measure import plotting
from prefdelta.plan import findings, recipes
from prefdelta.study.dimensions import THE_FIVE
from prefdelta.study.lattice import arms, label, series
from prefdelta.study.selections import _FORMS, POOLED, STRATA, draw_for_seed, parse
from prefdelta.tables.io import rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Pairs

KINDS = ["ladder", "bars", "sweep", "steps", "grid", "crossed"]
GENERATORS = list(build.config()["generators"])[:3]
SELECTIONS = [
    "full",
    *("top20-overall", "bottom20-overall", "random20", "top20-factuality-within_length", "random20-within_correctness"),
    *("matched20-overall", "random20-draw1", "min1.5-overall", "min0.5-overall", "band20-overall-minus0.5to0.5", "flipped-20"),
    *(f"{stratum}-20" for stratum in STRATA),
    *(f"{kind}-20-overall" for kind in POOLED[:-1]),
    "right_over_wrong-20",
]
SIDES = {
    "one": {"chosen": GENERATORS[1:2], "rejected": GENERATORS[:1]},
    "product": {"chosen": GENERATORS[:2], "rejected": GENERATORS[:2]},
    "pairs": {"chosen": [], "rejected": [], "pairs": [GENERATORS[1::-1], GENERATORS[2:0:-1]]},
}
WORDS = {
    "policy": ["policy", "other"],
    "method": ["dpo-curve", "kto"],
    "judge": ["oracle", "second"],
    "selection": ["top20-overall", "top40-overall"],
}


def study(figure, greedy=True, sweeps=None, **experiment):
    """A study with one experiment, ``e``, and more of everything than the default one."""
    content = build.config()
    content["models"]["other"] = content["models"]["policy"] | {"seed": 9}
    content["policies"] = ["policy", "other"]
    content["judges"]["second"] = content["judges"]["oracle"]
    content["sweeps"] = sweeps or {"dpo-curve": {"method": "dpo", "steps": [5, 10]}}
    content["validation"] = "in_domain"
    content["evaluation"]["greedy"] = greedy
    content["experiments"] = {"e": content["experiments"]["generator_delta"] | {"figure": figure, "versus": []} | experiment}
    content["experiments"]["e"].pop("primary", None)
    return load_study(content)


def made_up(loaded):
    """`Results` of the study's experiment: each arm has another gain, and what follows from its words."""
    experiment, found = loaded.experiments["e"], arms(loaded, "e")
    decodings = ["sampled", "greedy"] if loaded.evaluation.greedy else ["sampled"]
    rows = []
    for number, arm in enumerate(found):
        selection = parse(draw_for_seed(arm.selection, 0))
        n_pairs = selection.k or round(100 - 10 * selection.least)
        strengths = [GENERATORS.index(side) for side in (arm.chosen, arm.rejected)]
        known = {
            **{"policy": arm.policy, "method": arm.method, "judge": arm.judge, "selection": arm.selection},
            **{"chosen": arm.chosen, "rejected": arm.rejected, "n_pairs": n_pairs},
            "n_steps": loaded.methods[arm.method].n_steps(loaded.n_full_pairs),
            "generator_delta": 10.0 * strengths[0] - 11 * strengths[1],
            "mean_delta": 0.1 * experiment.selection.index(arm.selection),
        }
        for decoding, (versus, estimate), suite in product(decodings, ((None, 60.0), (BASE, number / 10)), loaded.suites):
            rows.append(result(label(experiment, arm), versus, estimate, decoding, suite=suite, **known))
    return rows_to_table(rows, Results)


def drawn(loaded, folder, monkeypatch):
    """The experiment's figure, drawn from made-up results, not saved."""
    kept = []
    monkeypatch.setattr(plotting, "save", lambda plot, *_, **__: kept.append(plot))
    write_result_table(made_up(loaded), Results, folder / "table.csv")
    job = findings.plot_experiment(loaded, {"experiment": "e"})
    plot_experiment(folder / "table.csv", folder / "figure.png", settings=job.settings)
    return kept[0]


def check(plot, kind, loaded):
    """Each arm is there once, for each suite and decoding that the kind shows, and no line goes back on itself."""
    lines = [np.array(container[0].get_xydata()) for panel in plot.axes for container in panel.containers]
    expected = len(arms(loaded, "e")) * (len(loaded.suites) if kind != "crossed" else 1)
    if kind == "grid":
        places = [(panel, text.get_position()) for panel in plot.axes for text in panel.texts]
        assert len(set(places)) == len(places) == expected
        return
    expected *= 2 if loaded.evaluation.greedy and kind in ("ladder", "bars", "crossed") else 1
    assert sum(map(len, lines)) == expected
    if kind == "bars":
        return
    for line in lines:
        assert (np.diff(line[:, 0]) > 0).all(), "two arms stand at one place of a line"


def seen(kind, folder, monkeypatch, greedy=True, **experiment):
    loaded = study(kind, greedy, **experiment)
    check(drawn(loaded, folder, monkeypatch), kind, loaded)
    pyplot.close("all")


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_all_words_at_once_are_drawn_for_any_sides(kind, greedy, tmp_path, monkeypatch):
    for name, sides in SIDES.items():
        if (kind, name) != ("crossed", "one"):  # refused
            seen(kind, tmp_path, monkeypatch, greedy, **WORDS, **sides)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_word_by_itself_is_drawn(kind, word, tmp_path, monkeypatch):
    words = {word: WORDS[word]} | ({"selection": WORDS["selection"]} if kind == "crossed" else {})
    seen(kind, tmp_path, monkeypatch, **words, **SIDES["pairs"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_selection_is_drawn(kind, tmp_path, monkeypatch):
    assert {parse(draw_for_seed(name, 0)).kind for name in SELECTIONS} == set(_FORMS)
    seen(kind, tmp_path, monkeypatch, selection=SELECTIONS, **SIDES["pairs"])


def test_a_line_is_of_what_differs_in_nothing_but_the_axis():
    selections = ["full", "top20-overall", "top40-overall", "random20"]
    loaded = study("sweep", selection=selections, judge=["oracle", "second"], **SIDES["one"])
    assert series(loaded, "e")[:4] == ["oracle, full", "oracle, top{k}-overall", "oracle, top{k}-overall", "oracle, random{k}"]
    loaded = study("steps", method=["dpo-curve", "kto"], **SIDES["one"])
    assert series(loaded, "e") == ["dpo", "dpo", "kto"]
    loaded = study("ladder", method=["dpo", "kto"], **SIDES["pairs"])
    assert series(loaded, "e") == ["dpo", "dpo", "kto", "kto"]
    assert series(study("sweep", **SIDES["one"]), "e") == ["full"]


@pytest.mark.parametrize("greedy", [True, False])
def test_recipes_of_any_words_are_drawn(greedy, tmp_path, monkeypatch):
    sweeps = {"dpo-curve": {"method": "dpo", "steps": [5, 10]}, "sft-rates": {"method": "sft", "learning_rate": [0.1, 0.2]}}
    words = WORDS | {"method": ["dpo-curve", "sft-rates", "kto"]}
    loaded = study("recipes", greedy, sweeps, **words, **SIDES["pairs"])
    job = recipes.tabulate_recipes(loaded, {"experiment": "e"})
    decodings, rows = ["sampled", "greedy"] if greedy else ["sampled"], []
    for number, recipe in enumerate(job.settings.recipes):
        assert len(recipe.cells) == 2 * 2 * 2  # the mean is over judges, selections and sides
        for decoding, suite, (versus, estimate) in product(decodings, loaded.suites, ((None, 60.0), (BASE, number / 10))):
            where = {"experiment": "e", "suite": suite, "decoding": decoding, "versus": versus, "best": number % 2 == 0}
            found = {"estimate": estimate, "ci_low": estimate - 1, "ci_high": estimate + 1, "kl": number / 10}
            counts = {"n_items": 9, "n_ungraded": 0, "n_pair_sets": 8, "n_seeds": 3}
            rows.append(recipe.model_dump(exclude={"cells"}) | where | found | counts)
    kept = []
    monkeypatch.setattr(plotting, "save", lambda plot, *_, **__: kept.append(plot))
    write_result_table(rows_to_table(rows, Recipes), Recipes, tmp_path / "table.csv")
    figure = recipes.plot_recipes(loaded, {"experiment": "e"})
    plot_recipes(tmp_path / "table.csv", tmp_path / "figure.png", settings=figure.settings)
    by_kl = [container[0] for container in kept[0].axes[-1].containers]
    assert sum(len(line.get_xdata()) for line in by_kl) == len(decodings) * len(job.settings.recipes)


def test_profiles_of_any_words_are_drawn_of_their_own_pairs(tmp_path, monkeypatch):
    words = {name: WORDS[name] for name in ("judge", "selection")}
    loaded = study("profile", **words, **SIDES["pairs"])
    job = findings.plot_profile(loaded, {"experiment": "e"})
    pairs = job.inputs["pairs"]
    assert list(pairs) == job.settings.arms and len(set(pairs.values())) == 8
    assert all(selection in file for arm, file in pairs.items() for selection in words["selection"] if selection in arm)
    write_table(build.pairs(4), Pairs, tmp_path / "pairs.parquet")
    rows = [result(arm, None, 0.5, dimension=criterion) for arm, criterion in product(job.settings.arms, THE_FIVE.criteria)]
    write_result_table(rows_to_table(rows, Results), Results, tmp_path / "table.csv")
    kept = []
    monkeypatch.setattr(plotting, "save", lambda plot, *_, **__: kept.append(plot))
    files = dict.fromkeys(pairs, tmp_path / "pairs.parquet")
    plot_profile(tmp_path / "table.csv", files, tmp_path / "figure.png", settings=job.settings)
    assert len(kept[0].axes) == 8
