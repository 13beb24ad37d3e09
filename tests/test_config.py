"""Configurations: what is wrong is named with its key, its value and the choices; and the lattice that follows from them."""

import json

import build
import jsonschema
import pytest
import yaml

from prefdelta import specs
from prefdelta.config import ConfigError, load_study, schema
from prefdelta.grid import arms, cells, check_names, controls
from prefdelta.selection import GRAMMAR

GENERATORS = list(build.config()["generators"])
FIRST, SECOND, THIRD = GENERATORS[:3]


def study(**experiment):
    return load_study(build.config(**experiment))


def change(config, path, value):
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    config[key] = value


def n_pairs(config):
    return sum(config["prompts"].values()) * config["sampling"]["samples"]


def test_the_default_study_loads_and_every_experiment_has_a_spec():
    default = load_study(yaml.safe_load(build.CONFIG.read_text()), [build.CONFIG])
    assert default.experiments
    for name in default.experiments:
        assert json.loads(specs.experiment_spec(default, name))["content"]["arms"]


EXPERIMENT, LISTED = "experiments.generator_delta", build.config()["experiments"]["generator_delta"]
N_PAIRS = n_pairs(build.config())
WRONG = {  # what is wrong -> (path of the change, value, what the message must hold)
    "unknown generator": (f"{EXPERIMENT}.chosen", ["gwen"], [f"{EXPERIMENT}.chosen", "gwen", *GENERATORS]),
    "unknown method": (f"{EXPERIMENT}.method", ["ppo"], [f"{EXPERIMENT}.method", "ppo", "dpo"]),
    "unknown model": (f"generators.{FIRST}.model", "gwen", [f"generators.{FIRST}.model", "gwen", "policy"]),
    "unknown policy": ("policies", ["gwen"], ["policies", "gwen", "policy"]),
    "unknown dimension": ("authors.novice", {"speed": 0.1}, ["authors.novice.speed", "factuality", "signal_to_noise"]),
    "fault rate above one": ("authors.novice", {"factuality": 1.5}, ["authors.novice.factuality", "1.5", "1"]),
    "unknown author": ("models.policy.authors", {"nobody": 1}, ["models.policy.authors", "nobody", "faultless"]),
    "unknown domain": ("prompts", {"algebra": 5}, ["prompts.algebra", "arithmetic", "program", "story"]),
    "unknown family": ("models.policy.family", "gpt", ["models.policy.family", "gpt", "qwen3", "llama"]),
    "unknown key": ("sampling.sample", 4, ["sampling.sample", "4", "samples"]),
    "name twice": (f"{EXPERIMENT}.chosen", [SECOND, THIRD, SECOND], [f"{EXPERIMENT}.chosen", SECOND, "twice"]),
    "selection twice": (f"{EXPERIMENT}.selection", ["full", "full"], [f"{EXPERIMENT}.selection", "full", "twice"]),
    "policy twice": ("policies", ["policy", "policy"], ["policies", "'policy'", "twice"]),
    "malformed selection": (f"{EXPERIMENT}.selection", ["top5-speed"], [f"{EXPERIMENT}.selection", "top5-speed", GRAMMAR]),
    "too large a k": (
        f"{EXPERIMENT}.selection",
        ["random9999999"],
        [f"{EXPERIMENT}.selection", "9999999", str(n_pairs(build.config()))],
    ),
    "empty list": (f"{EXPERIMENT}.chosen", [], [f"{EXPERIMENT}.chosen", "at least 1"]),
    "taken name": (
        "experiments.capability",
        build.config()["experiments"]["generator_delta"],
        ["experiments.capability", "taken"],
    ),
    "a path separator": ("study", "a/b", ["study", "a/b"]),
    "the separator of sides": ("generators.a_vs_b", {"model": "policy"}, ["generators.a_vs_b", "_vs_"]),
    "operations turned round": ("operations", [4, 2], ["operations", "[4, 2]"]),
    "steps and epochs": ("methods.dpo.epochs", 1, ["methods.dpo", "steps", "epochs"]),
    "repeats that do not divide": ("judges.oracle.choices_per_request", 4, ["judges.oracle", "4", "5"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_key_value_and_choices(what):
    path, value, words = WRONG[what]
    config = build.config()
    change(config, path, value)
    with pytest.raises(ConfigError) as error:
        load_study(config)
    for word in words:
        assert word in str(error.value)


def test_all_that_is_wrong_is_told_at_once():
    config = build.config(chosen=["gwen"], method=["ppo"])
    with pytest.raises(ConfigError, match=r"(?s)gwen.*ppo"):
        load_study(config)


def test_the_largest_k_is_the_number_of_pairs_or_of_prompts_for_a_stratum():
    config = build.config()
    pairs, prompts = n_pairs(config), sum(config["prompts"].values())
    loaded = load_study(config)
    for kind, most in (("top{}-overall", pairs), ("flipped-{}", pairs), ("both_wrong-{}", prompts)):
        assert loaded.selection(kind.format(most)).k == most
        with pytest.raises(Exception, match=f"asks for {most + 1} .*has {most}"):
            loaded.selection(kind.format(most + 1))


def test_a_key_that_stands_twice_is_named_with_file_and_line(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("study: a\nsampling:\n  samples: 1\n  temperature: 1.0\n  samples: 2\n")
    with pytest.raises(ConfigError) as error:
        load_study(build.config(), [file])
    for word in ("sampling.samples", str(file), "line 5"):
        assert word in str(error.value)


def test_merge_keys_and_the_same_key_in_two_places_are_no_duplicates(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 2}\nc: [{x: 1}, {x: 2}]\n")
    assert load_study(build.config(), [file]).study


@pytest.mark.parametrize("versus", [{"chosen": FIRST}, {"method": "kto"}, {"selection": "top7-overall"}, {"chosen": "gwen"}])
def test_a_control_that_the_experiment_does_not_have_is_an_error(versus):
    loaded = study(chosen=[SECOND, THIRD], rejected=[FIRST], versus=[versus])
    ((word, value),) = versus.items()
    for act in (
        lambda: controls(loaded, "generator_delta", arms(loaded, "generator_delta")[0]),
        lambda: specs.experiment_spec(loaded, "generator_delta"),
    ):
        with pytest.raises(ConfigError) as error:
            act()
        for text in ("experiments.generator_delta.versus", word, value):
            assert text in str(error.value)


def test_an_arm_is_compared_with_the_arm_that_differs_in_the_stated_words_only():
    loaded = study(chosen=[SECOND, THIRD], rejected=[FIRST], method=["dpo", "kto"], versus=[{"chosen": SECOND}])
    for arm in arms(loaded, "generator_delta"):
        found = controls(loaded, "generator_delta", arm)
        assert [(c.chosen, c.method) for c in found] == ([] if arm.chosen == SECOND else [(SECOND, arm.method)])


def test_a_control_of_the_same_size_follows_each_arms_own_k():
    selections = ["full", "top5-overall", "top9-overall", "random5", "random9"]
    loaded = study(chosen=[SECOND], rejected=[FIRST], selection=selections, versus=[{"selection": "random{k}"}])
    found = {
        arm.selection: [c.selection for c in controls(loaded, "generator_delta", arm)] for arm in arms(loaded, "generator_delta")
    }
    assert found == {"full": [], "top5-overall": ["random5"], "top9-overall": ["random9"], "random5": [], "random9": []}


def test_arms_are_the_product_of_the_lists_without_arms_that_meet_themselves():
    sides = [FIRST, SECOND]
    loaded = study(chosen=sides, rejected=sides, method=["dpo", "sft"], selection=["full", "top5-overall"], versus=[])
    found = [(arm.method, arm.chosen, arm.rejected, arm.selection) for arm in arms(loaded, "generator_delta")]
    assert len(found) == len(set(found)) == 2 * 2 * 2
    assert {(chosen, rejected) for _, chosen, rejected, _ in found} == {(FIRST, SECOND), (SECOND, FIRST)}


def test_what_an_experiment_does_not_state_is_the_first_of_the_study():
    loaded = study(versus=[])
    for arm in arms(loaded, "generator_delta"):
        assert arm.policy == loaded.policies[0]
        assert arm.method == next(iter(loaded.methods))
        assert arm.judge == next(iter(loaded.judges))


def test_random_gets_another_draw_for_every_seed_and_other_selections_stay():
    loaded = study(chosen=[SECOND], rejected=[FIRST], selection=["random5", "top5-overall", "random5-draw7"], seeds=3, versus=[])
    found = [(cell["selection"], cell["seed"]) for cell in cells(loaded, "generator_delta")]
    random = [(f"random5-draw{seed}", f"{seed}") for seed in range(3)]
    assert found == random + [(name, f"{seed}") for name in ("top5-overall", "random5-draw7") for seed in range(3)]


def test_a_profile_trains_nothing():
    assert cells(study(figure="profile"), "generator_delta") == []


@pytest.mark.parametrize("word", ["generator", "chosen", "judge", "method", "policy", "model", "split", "experiment", "study"])
def test_an_unknown_name_in_a_path_is_answered_with_the_choices(word):
    loaded = study()
    with pytest.raises(ConfigError) as error:
        check_names(loaded, {word: "gwen"})
    for text in (word, "'gwen'", *loaded.choices(word)):
        assert text in str(error.value)


def test_a_malformed_selection_in_a_path_is_answered_with_the_grammar():
    with pytest.raises(ConfigError) as error:
        check_names(study(), {"chosen": SECOND, "rejected": FIRST, "selection": "best5"})
    assert "'best5'" in str(error.value)
    assert GRAMMAR in str(error.value)


def test_a_pair_of_a_generator_with_itself_is_an_error():
    with pytest.raises(ConfigError, match=f"both '{FIRST}'"):
        check_names(study(), {"chosen": FIRST, "rejected": FIRST})


def test_right_names_pass():
    names = {"study": study().study, "chosen": SECOND, "rejected": FIRST, "selection": "top5-overall", "seed": "17"}
    check_names(study(), names)


CELL = {"method": "dpo", "seed": "0", "chosen": SECOND, "rejected": FIRST, "selection": "full"}
SPECS = {
    "prompts of training": lambda s: specs.prompts_spec(s, "train"),
    "prompts of a suite": lambda s: specs.prompts_spec(s, next(iter(s.suites))),
    "pretraining": lambda s: specs.pretrain_spec(s, "policy"),
    "traces": lambda s: specs.traces_spec(s, FIRST),
    "ratings": lambda s: specs.ratings_spec(s, "oracle"),
    "reference": specs.reference_spec,
    "pairs": lambda s: specs.pairs_spec(s, "oracle", "full"),
    "training": lambda s: specs.training_spec(s, CELL),
    "evaluation": specs.evaluation_spec,
    "experiment": lambda s: specs.experiment_spec(s, "generator_delta"),
    "capability": specs.capability_spec,
    "generator deltas": specs.generator_deltas_spec,
    "coverage": specs.coverage_spec,
    "figure": lambda s: specs.figure_spec(s, "generator_delta"),
    "figure of capability": specs.capability_figure_spec,
}


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_is_canonical_json(name):
    text = SPECS[name](study())
    assert specs.canonical(json.loads(text)) == text
    assert SPECS[name](study()) == text


def test_the_order_of_keys_does_not_change_a_spec():
    config = build.config()
    turned = {key: dict(reversed(value.items())) if key == "sampling" else value for key, value in reversed(config.items())}
    assert specs.traces_spec(load_study(turned), FIRST) == specs.traces_spec(load_study(config), FIRST)
    assert specs.canonical({"b": {"d": 1, "c": 2}, "a": 3}) == specs.canonical({"a": 3, "b": {"c": 2, "d": 1}})


def test_every_spec_of_a_stage_is_covered_here():
    used = {name for spec in SPECS.values() for name in (spec.__name__, *spec.__code__.co_names)}
    assert {name for name in vars(specs) if name.endswith("_spec")} <= used


@pytest.mark.parametrize(
    "path, value, changed",
    [
        ("seed", 1, ["prompts of training", "prompts of a suite", "traces", "pairs", "training"]),
        (f"generators.{FIRST}.seed", 9, ["traces"]),
        ("sampling.temperature", 0.5, ["traces"]),
        ("judges.oracle.endpoint.noise", 0.25, ["ratings"]),
        ("authors.faultless", {"factuality": 0.5}, ["pretraining"]),
        ("methods.dpo.beta", 0.5, ["training"]),
        ("methods.kto.beta", 0.5, []),
        ("evaluation.samples", 9, ["evaluation"]),
        (f"{EXPERIMENT}.seeds", 1, ["experiment", "figure"]),
        (f"{EXPERIMENT}.title", "Another", ["figure"]),
    ],
)
def test_a_change_reaches_the_specs_that_depend_on_it_and_no_others(path, value, changed):
    config = build.config()
    change(config, path, value)
    after, before = load_study(config), study()
    statistics = {"experiment", "capability", "generator deltas"} if path == "seed" else set()
    assert {name for name, spec in SPECS.items() if spec(after) != spec(before)} == {*changed, *statistics}


def test_a_second_sample_of_a_model_has_a_seed_of_its_own():
    config = build.config()
    config["generators"] = {FIRST: {"model": "policy"}, SECOND: {"model": "policy", "seed": 1}, THIRD: {"model": "policy"}}
    config["experiments"] = {}
    loaded = load_study(config)
    first, second, same = (json.loads(specs.traces_spec(loaded, name))["seed"] for name in (FIRST, SECOND, THIRD))
    assert first != second
    assert first == same


def test_the_schema_file_is_in_step_with_the_models_and_takes_the_studies():
    folder = build.CONFIG.parent
    written = json.loads((folder / "schema.json").read_text())
    assert written == schema(), "run `make schema`"
    for name in ("config.yaml", "smoke.yaml"):
        jsonschema.validate(yaml.safe_load((folder / name).read_text()), written)
