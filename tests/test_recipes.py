"""Sweeps of recipes: what a grid is made of, the best on the validation suite, and methods at equal divergence."""

import build
import polars as pl
import pytest
from test_experiment import predictions

from prefdelta.configure.load import load_study
from prefdelta.findings.experiment import BASE
from prefdelta.findings.recipes import Recipes, at_equal_kl, plot_recipes, tabulate_recipes
from prefdelta.findings.settings import RecipesFigureSettings, RecipesSettings, SweptRecipe
from prefdelta.measure.settings import Bootstrap
from prefdelta.run.errors import ConfigError
from prefdelta.study.lattice import Cell, arms, trained_cells
from prefdelta.tables.io import read_result_csv, read_table, write_table
from prefdelta.tables.stages import Predictions, Shifts

SWEEP = {"method": "dpo", "learning_rate": [2e-4, 5e-5], "beta": [0.5, 1], "steps": [50]}
PLACE = {"policy": "p", "judge": "j", "chosen": "c", "rejected": "r"}
N_ITEMS = 40


def study(sweep=SWEEP, **changes):
    """The default study's first experiment as one of recipes: of a sweep of dpo, which it trains with 2e-4, 1 and 50, and sft."""
    content = build.config(figure="recipes", method=["grid", "sft"], versus=[])
    content["methods"]["dpo"] = {"trainer": "dpo", "beta": 1, "learning_rate": 2e-4, "batch_size": 32, "steps": 50}
    return content | {"sweeps": {"grid": sweep}, "validation": "in_domain"} | changes


def test_a_sweep_is_its_recipes_whose_names_tell_in_what_they_differ_from_the_method():
    loaded = load_study(study())
    names = ["dpo.b0.5", "dpo", "dpo.lr5e-5.b0.5", "dpo.lr5e-5"]
    assert loaded.experiments["generator_delta"].method == [*names, "sft"]
    assert {cell.method for cell in trained_cells(loaded)} == {*names, "sft"}
    assert [loaded.swept[name] for name in (*names, "sft", "kto")] == ["dpo"] * 4 + ["sft", "kto"]
    found = loaded.methods["dpo.lr5e-5.b0.5"]
    assert found == loaded.methods["dpo"].model_copy(update={"learning_rate": 5e-5, "beta": 0.5})


def test_a_recipe_of_a_sweep_is_run_as_its_method_unless_it_has_settings_of_its_own():
    loaded = load_study(study(run={"methods": {"dpo": {"micro_batch": 8}, "dpo.b0.5": {"micro_batch": 4}}}))
    assert [loaded.training_run(name).micro_batch for name in ("dpo.lr5e-5", "dpo.b0.5", "dpo", "sft")] == [8, 4, 8, None]


def test_steps_of_a_sweep_take_the_place_of_epochs():
    content = study({"method": "dpo", "steps": [10, 20]})
    del content["methods"]["dpo"]["steps"]
    content["methods"]["dpo"]["epochs"] = 1
    loaded = load_study(content)
    assert [loaded.methods[name].steps for name in loaded.experiments["generator_delta"].method] == [10, 20, 20]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sweep": {"method": "dpp"}}, ["sweeps.grid.method", "'dpp'", "did you mean 'dpo'"]),
        ({"sweep": {"method": "sft", "beta": [1]}}, ["sweeps.grid", "beta", "sft"]),
        ({"sweep": {"method": "dpo", "steps": [0]}}, ["sweeps.grid.steps.0", "greater than 0"]),
        ({"sweeps": {"kto": SWEEP, "grid": SWEEP}}, ["sweeps.kto", "choose another name"]),
        ({"validation": "out_of_domain"}, ["validation", "out_of_domain", "last suite"]),
        ({"validation": "in_domian"}, ["validation", "did you mean 'in_domain'"]),
        ({"validation": None}, ["experiments.generator_delta", "validation"]),
    ],
)
def test_what_is_wrong_with_a_sweep_is_named(changes, words):
    with pytest.raises(ConfigError) as error:
        load_study(study(**changes))
    for word in words:
        assert word in str(error.value)


def evaluated(path, in_domain, out_of_domain):
    """`Predictions` of which these shares are right, in either suite and in either decoding."""
    suites = [
        read_table(predictions(path, [item < round(share * N_ITEMS) for item in range(N_ITEMS)]), Predictions).with_columns(
            suite=pl.lit(suite), item_id=suite + pl.col("item_id")
        )
        for suite, share in (("id", in_domain), ("ood", out_of_domain))
    ]
    write_table(pl.concat(suites), Predictions, path)
    return path


def moved(path, kl):
    """`Shifts` of two answers to each suite that are ``kl`` nats more likely, on average."""
    rows = [
        {
            "kind": "answer",
            "temperature": 1.0,
            "key": f"{suite}{item}",
            "suite": suite,
            "task": "t",
            "entropy": 1.0,
            "n_tokens": 9,
        }
        | {"logp": -5.0, "base_logp": -5.0 - kl + item}
        for suite in ("id", "ood")
        for item in (-1, 1)
    ]
    write_table(pl.DataFrame(rows).select(list(Shifts.to_schema().columns)), Shifts, path)
    return path


def recipe(method, learning_rate, beta):
    name = f"{method}.lr{learning_rate}"
    cells = [[Cell(**PLACE, method=name, selection=selection, seed=0)] for selection in ("full", "top5-overall")]
    shape = {"trainer": method, "loss": "sigmoid", "learning_rate": learning_rate, "beta": beta, "n_steps": 10}
    return SweptRecipe(policy="p", method=method, recipe=name, cells=cells, **shape)


@pytest.fixture
def table(tmp_path):
    """Three recipes of dpo and two of sft; what is best on the validation suite ``id`` is not so on ``ood``."""
    recipes = [recipe("dpo", rate, 1.0) for rate in (0.1, 0.2, 0.4)] + [recipe("sft", rate, None) for rate in (0.1, 0.2)]
    shares = {"dpo.lr0.1": (0.5, 0.9), "dpo.lr0.2": (0.8, 0.6), "dpo.lr0.4": (0.7, 0.7)}
    shares |= {"sft.lr0.1": (0.6, 0.3), "sft.lr0.2": (0.4, 0.5)}
    evals, shifts = {}, {}
    for made in recipes:
        for (cell,), shift in zip(made.cells, (0.05, -0.05), strict=True):
            path = tmp_path / f"{made.recipe}{cell.selection}.parquet"
            evals[cell] = evaluated(path, *(share + shift for share in shares[made.recipe]))
            shifts[cell] = moved(path.with_suffix(".shift"), 10 * made.learning_rate + 20 * shift)
    base = {"p": evaluated(tmp_path / "base.parquet", 0.25, 0.25)}
    settings = RecipesSettings(experiment="e", validation="id", recipes=recipes, bootstrap=Bootstrap(n_resamples=50, seed=0))
    tabulate_recipes(evals, shifts, base, tmp_path / "table.csv", settings=settings)
    return tmp_path / "table.csv"


def test_the_best_of_a_method_is_that_on_the_validation_suite_and_bests_are_compared(table):
    rows = read_result_csv(table, Recipes).filter(decoding="sampled")
    own = rows.filter(pl.col("versus").is_null())
    assert own.filter(recipe="dpo.lr0.2")["estimate"].to_list() == pytest.approx([80, 60])  # the mean of both pair sets
    assert own.filter("best").select("suite", "recipe", "edge").rows() == [
        ("id", "dpo.lr0.2", None),
        ("id", "sft.lr0.1", "learning_rate lowest"),
        ("ood", "dpo.lr0.2", None),
        ("ood", "sft.lr0.1", "learning_rate lowest"),
    ]
    assert rows.filter(versus=BASE, recipe="sft.lr0.2")["estimate"].to_list() == pytest.approx([15, 25])
    compared = rows.filter(pl.col("p_value").is_not_null())
    assert compared.select("suite", "recipe", "versus").rows() == [(suite, "sft.lr0.1", "dpo.lr0.2") for suite in ("id", "ood")]
    assert compared["estimate"].to_list() == pytest.approx([-20, -30])
    assert rows["n_pair_sets"].unique().to_list() == [2]
    assert own.filter(suite="id")["kl"].to_list() == pytest.approx([1, 2, 4, 1, 2])


def test_the_caption_tells_the_best_and_where_the_grid_is_too_small(table, tmp_path):
    content = {"title": "Recipes", "question": "Which is best?", "caveat": "Few.", "validation": "id", "answered": "ood"}
    figure = tmp_path / "figure.png"
    plot_recipes(table, figure, settings=RecipesFigureSettings(**content))
    assert all(figure.with_suffix(suffix).stat().st_size for suffix in (".png", ".svg", ".pdf"))
    lines = figure.with_suffix(".rst").read_text(encoding="utf-8").splitlines()
    first, second, _, _, equal, _ = (line for line in lines if line.startswith("- "))
    assert first.startswith("- **dpo**, greedy: dpo.lr0.2, 80.0 [")
    assert "on id; on ood 60.0 [" in first and "a gain of +35.0 [" in first and "edge" not in first
    assert "against dpo.lr0.2 lower by -30.0 [" in second
    assert "At the edge of the grid (learning_rate lowest)" in second
    assert equal == "- **greedy**: at 2 nats, dpo 80.0, sft 60.0 on id, from 25.0."


def test_experiments_of_recipes_are_no_comparisons_of_arms():
    loaded = load_study(study())
    assert list(loaded.trained) == ["generator_delta"] and not loaded.compared
    assert len(arms(loaded, "generator_delta")) == 5 * len(loaded.experiments["generator_delta"].chosen)


def test_methods_are_compared_at_the_largest_divergence_that_all_reach():
    points = {
        "dpo": [(0, 50), (1, 60), (2, 55), (4, 80)],  # 55 is no better than 60 at half its divergence
        "sft": [(0, 50), (3, 56), (2, 58)],
    }
    rows = [{"method": method, "kl": float(kl), "score": float(score)} for method, each in points.items() for kl, score in each]
    found = at_equal_kl(pl.DataFrame(rows))
    assert found.rows() == [("dpo", 3.0, pytest.approx(60 + 20 * 2 / 3)), ("sft", 3.0, 58.0)]
    with pytest.raises(ValueError, match="the recipes of sft have no point at a divergence of 0"):
        at_equal_kl(pl.DataFrame(rows).filter((pl.col("method") != "sft") | (pl.col("kl") > 0)))
