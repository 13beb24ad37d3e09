"""Configurations: what is wrong is named with its key, its value and the choices; and the lattice that follows from them."""

import json

import build
import jsonschema
import pytest
import yaml

from prefdelta.plan import specs
from prefdelta.study.config import ConfigError, load_study, schema
from prefdelta.study.lattice import arms, cells, check_names, controls
from prefdelta.study.selections import GRAMMAR

STUDIES = sorted(build.CONFIG.parent.glob("*.yaml"))
GENERATORS = list(build.config()["generators"])
FIRST, SECOND, THIRD = GENERATORS[:3]


HUB = {"repo": "someone/small", "family": "qwen2"}


def config(**experiment):
    """`build.config` with a model of the hub, which nothing uses."""
    content = build.config(**experiment)
    content["models"]["hub"] = dict(HUB)
    return content


def study(**experiment):
    return load_study(config(**experiment))


def change(config, path, value):
    *parents, key = path.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[key] = value


def n_pairs(config):
    return sum(config["prompts"].values()) * config["sampling"]["samples"]


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
    "unknown backend": (
        f"generators.{FIRST}.backend",
        "tgi",
        [f"generators.{FIRST}.backend", "'tgi'", "transformers, vllm, openai, dataset"],
    ),
    "unknown key of a hub model": (
        "models.hub.revison",
        "0f",
        ["models.hub.revison", "'0f'", "choose from repo, revision, family"],
    ),
    "unknown key of a micro-world model": ("models.policy.width", 8, ["models.policy.width", "choose from family, hidden_size"]),
    "unknown key of a generator behind an API": (
        "generators.api",
        {"backend": "openai", "model": "m", "endpoint": {"kind": "url", "base_url": "u", "api_key_env": "K"}, "samples": 1},
        ["generators.api.samples", "choose from backend, model, endpoint, batch"],
    ),
    "unknown key of an endpoint": (
        "judges.oracle.endpoint",
        {"kind": "url", "base_url": "u", "api_key_env": "K", "key": "k"},
        ["judges.oracle.endpoint.key", "choose from kind, base_url, api_key_env"],
    ),
    "unknown kind of endpoint": ("judges.oracle.endpoint.kind", "tgi", ["judges.oracle.endpoint", "tgi", "url", "vllm"]),
    "source without repo": ("prompts.openr1", {"n": 5}, ["prompts.openr1.repo: Field required"]),
    "corpus without size": ("prompts.openr1", {"repo": "a/b"}, ["prompts.openr1.n: Field required"]),
    "unknown key of a source": (
        "suites.in_domain.gsm8k",
        {"repo": "a", "rev": "0"},
        ["suites.in_domain.gsm8k.rev", "revision, config"],
    ),
    "number of items of a benchmark": ("suites.in_domain.gsm8k", 5, ["suites.in_domain.gsm8k", "`repo`"]),
    "source of a micro-world domain": ("suites.in_domain.arithmetic", {"repo": "a"}, ["suites.in_domain.arithmetic", "number"]),
    "unknown benchmark": ("suites.in_domain.gsm9k", {"repo": "a"}, ["suites.in_domain", "'gsm9k'", "gsm8k", "lm_eval:{task}"]),
    "benchmark as prompts": ("prompts.gsm8k", {"repo": "a", "n": 5}, ["prompts", "'gsm8k'", "openr1"]),
    "task in two suites": ("suites.out_of_domain.arithmetic", 5, ["suites", "'arithmetic' is in two suites"]),
    "suite named as the training split": ("suites.train", {"gsm8k": {"repo": "a"}}, ["suites.train"]),
    "no operations": ("operations", None, ["operations", "[fewest, most]", "micro-world"]),
    "judge serves an unknown model": (
        "judges.oracle.endpoint",
        {"kind": "vllm", "model": "gwen"},
        ["judges.oracle.endpoint.model", "'gwen'", "policy", "hub"],
    ),
    "judge serves a model of traces": (
        "judges.oracle.endpoint",
        {"kind": "transformers", "model": "policy"},
        ["judges.oracle.endpoint.model", "'policy' writes traces"],
    ),
    "policy that is a judge": ("models.policy.writes", "ratings", ["policies", "'policy' writes ratings"]),
    "generator that is a judge": (
        f"models.{FIRST}.writes",
        "ratings",
        [f"generators.{FIRST}.model", f"'{FIRST}' writes ratings"],
    ),
    "unknown tokenizer": (
        "generators.r1",
        {"backend": "dataset", "repo": "a/b", "tokenizer": "gwen"},
        ["generators.r1.tokenizer", "'gwen'", "policy", "hub"],
    ),
    "batch without a provider": ("judges.oracle.batch", True, ["judges.oracle", "batch", "microworld"]),
    "push without a place": ("export.push", True, ["export", "namespace"]),
    "sharding on one GPU": ("methods.dpo.sharding", "fsdp", ["methods.dpo", "at least 2 gpus"]),
    "micro-batches that do not divide": ("methods.dpo.micro_batch", 5, ["methods.dpo", "32", "5 x 1"]),
    "normalised KTO": ("methods.kto.length_normalised", True, ["methods.kto", "length_normalised", "kto"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_key_value_and_choices(what):
    path, value, words = WRONG[what]
    wrong = config()
    change(wrong, path, value)
    with pytest.raises(ConfigError) as error:
        load_study(wrong)
    for word in words:
        assert word in str(error.value)


def test_a_name_of_the_study_is_never_left_out_of_a_key():
    wrong = config()
    wrong["models"]["HubModel"] = {**HUB, "gpus": -1}
    wrong["generators"]["openai"] = {"model": "hub", "seed": "x"}
    with pytest.raises(ConfigError) as error:
        load_study(wrong)
    assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [
        "models.HubModel.gpus",
        "generators.openai.seed",
    ]


def test_of_a_number_or_a_mapping_only_the_one_that_was_meant_is_complained_about():
    for value, key in ((0, "prompts.arithmetic"), ({"n": 1}, "prompts.arithmetic.repo")):
        wrong = config()
        wrong["prompts"]["arithmetic"] = value
        with pytest.raises(ConfigError) as error:
            load_study(wrong)
        assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [key]


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


@pytest.mark.parametrize("control", ["random{k}", "random{k}-within_length", "matched{k}-overall"])
def test_a_random_control_is_paired_with_its_arm_and_drawn_anew_for_every_seed(control):
    names = ["top5-overall-within_length", "top9-overall", *(control.replace("{k}", k) for k in ("5", "9"))]
    loaded = study(chosen=[SECOND], rejected=[FIRST], selection=names, versus=[{"selection": control}], seeds=2)
    found = {arm.selection: controls(loaded, "generator_delta", arm) for arm in arms(loaded, "generator_delta")}
    assert {name: [arm.selection for arm in versus] for name, versus in found.items()} == {
        **dict(zip(names[:2], ([name] for name in names[2:]), strict=True)),
        **{name: [] for name in names[2:]},
    }
    (arm,) = found["top9-overall"]
    assert [arm.cell(loaded, seed)["selection"] for seed in range(2)] == [f"{names[3]}-draw0", f"{names[3]}-draw1"]


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


CELL = {"policy": "policy", "method": "dpo", "judge": "oracle", "seed": "0"}
CELL |= {"chosen": SECOND, "rejected": FIRST, "selection": "full"}
SPECS = {
    "prompts": specs.prompts_spec,
    "items": lambda s: specs.items_spec(s, next(iter(s.suites))),
    "pretraining": lambda s: specs.pretrain_spec(s, "policy"),
    "fetching": lambda s: specs.fetch_spec(s, "hub"),
    "traces": lambda s: specs.traces_spec(s, FIRST),
    "ratings": lambda s: specs.ratings_spec(s, "oracle"),
    "reference": lambda s: specs.reference_spec(s, "policy"),
    "pairs": lambda s: specs.pairs_spec(s, "oracle", "full"),
    "training": lambda s: specs.training_spec(s, CELL),
    "evaluation": lambda s: specs.evaluation_spec(s, "policy"),
    "export": lambda s: specs.export_spec(s, CELL),
    "experiment": lambda s: specs.experiment_spec(s, "generator_delta"),
    "capability": specs.capability_spec,
    "generator deltas": specs.generator_deltas_spec,
    "coverage": specs.coverage_spec,
    "figure": lambda s: specs.figure_spec(s, "generator_delta"),
    "figure of capability": specs.capability_figure_spec,
    "balance": specs.balance_spec,
    "judge audit": specs.judge_audit_spec,
    "figure of the judge audit": specs.judge_audit_figure_spec,
    "delta correction": specs.delta_correction_spec,
    "what if": specs.whatif_spec,
    "figure of what if": specs.whatif_figure_spec,
    "overlap": specs.overlap_spec,
    "regressions": specs.regressions_spec,
    "figure of regressions": specs.regressions_figure_spec,
    "prediction": specs.prediction_spec,
    "claims": specs.claims_spec,
    "answers": specs.answers_spec,
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


STATISTICS = ["experiment", "capability", "generator deltas", "judge audit", "delta correction", "regressions", "prediction"]
WITH_CELLS = ["balance", "delta correction", "what if", "regressions", "prediction"]


@pytest.mark.parametrize(
    "path, value, changed",
    [
        ("seed", 1, ["prompts", "items", "traces", "pairs", "training", "export"]),
        ("prompts.arithmetic", 700, ["prompts", "export"]),
        ("suites.in_domain.arithmetic", 7, ["items"]),
        ("decontamination_ngram", 9, ["prompts"]),
        ("backend", "vllm", ["traces", "evaluation"]),
        (f"generators.{FIRST}.backend", "vllm", ["traces"]),
        (f"generators.{FIRST}.seed", 9, ["traces", "export"]),
        (f"generators.{FIRST}.sampling.top_p", 0.9, ["traces", "export"]),
        (f"generators.{SECOND}.seed", 9, ["export"]),
        ("sampling.temperature", 0.5, ["traces", "export"]),
        ("sampling.batch_size", 7, ["traces", "reference"]),
        ("judges.oracle.endpoint.noise", 0.25, ["ratings", "export"]),
        ("authors.faultless", {"factuality": 0.5}, ["pretraining"]),
        ("models.hub.revision", "0f", ["fetching"]),
        ("models.hub.dtype", "float32", []),
        ("methods.dpo.beta", 0.5, ["training"]),
        ("methods.dpo.max_length", 99, ["training", "reference", "what if"]),
        ("methods.kto.beta", 0.5, []),
        ("methods.kto.max_length", 99, ["reference"]),
        ("methods.sft.max_length", 99, []),
        ("evaluation.samples", 9, ["evaluation"]),
        ("export.license", "mit", ["export"]),
        ("bootstrap", 99, [*STATISTICS, "export"]),
        ("gates.truncated", 0.5, ["figure of what if"]),
        ("gates.judge_coverage", 0.5, []),
        ("cost", {"training_tokens_per_second": 1, "evaluation_tokens_per_second": 1, "price_per_hour": 1}, ["what if"]),
        ("predictor", None, ["what if", "figure of what if"]),
        (f"{EXPERIMENT}.seeds", 1, ["experiment", "figure", *WITH_CELLS]),
        (f"{EXPERIMENT}.title", "Another", ["figure"]),
        (f"{EXPERIMENT}.question", "Another?", ["figure", "claims", "answers"]),
    ],
)
def test_a_change_reaches_the_specs_that_depend_on_it_and_no_others(path, value, changed):
    changed_config = config()
    change(changed_config, path, value)
    after, before = load_study(changed_config), study()
    statistics = STATISTICS if path == "seed" else []
    assert {name for name, spec in SPECS.items() if spec(after) != spec(before)} == {*changed, *statistics}


def test_a_second_sample_of_a_model_has_a_seed_of_its_own():
    config = build.config()
    config["generators"] = {FIRST: {"model": "policy"}, SECOND: {"model": "policy", "seed": 1}, THIRD: {"model": "policy"}}
    config["experiments"] = {}
    loaded = load_study(config)
    first, second, same = (json.loads(specs.traces_spec(loaded, name))["seed"] for name in (FIRST, SECOND, THIRD))
    assert first != second
    assert first == same


def test_a_hub_models_settings_reach_the_jobs_that_run_it_and_nothing_else_of_it_does():
    content = config()
    content["generators"]["small"] = {"model": "hub", "sampling": {"samples": 2}}
    content["policies"] = ["hub"]
    content["models"]["hub"] |= {"system": "Think.", "dtype": "float32", "sampling": {"samples": 3, "top_k": 9}, "license": "mit"}
    loaded = load_study(content)
    traces = json.loads(specs.traces_spec(loaded, "small"))
    assert (traces["settings"]["system"], traces["settings"]["dtype"]) == ("Think.", "float32")
    assert "license" not in traces["settings"]
    # The generator's own words come last, the study's first.
    assert (traces["sampling"]["samples"], traces["sampling"]["top_k"], traces["sampling"]["temperature"]) == (2, 9, 1.0)
    chat = {"system": "Think.", "chat_template_kwargs": {}}
    assert json.loads(specs.training_spec(loaded, {**CELL, "policy": "hub"}))["chat"] == chat
    reference = json.loads(specs.reference_spec(loaded, "hub"))
    assert (reference["chat"], reference["dtype"]) == (chat, "float32")


def test_a_judge_that_is_served_knows_what_its_server_needs_of_the_model():
    content = config()
    content["models"]["hub"] |= {"gpus": 2, "max_model_len": 99}
    content["judges"]["oracle"]["endpoint"] = {"kind": "vllm", "model": "hub"}
    endpoint = json.loads(specs.ratings_spec(load_study(content), "oracle"))["endpoint"]
    assert (endpoint["gpus"], endpoint["max_model_len"], endpoint["dtype"]) == (2, 99, "bfloat16")


def test_references_are_cut_at_the_lengths_of_all_methods_that_use_them():
    content = config()
    content["methods"]["short"] = content["methods"]["dpo"] | {"max_length": 64}
    content["methods"]["sft"]["max_length"] = 128
    assert json.loads(specs.reference_spec(load_study(content), "policy"))["max_lengths"] == [64, 1024]


def test_answers_to_an_item_are_the_evaluations_unless_its_task_says_otherwise():
    content = config()
    content["suites"]["in_domain"]["aime"] = {"repo": "a/b", "samples": 16}
    content["suites"]["in_domain"]["gsm8k"] = {"repo": "a/b"}
    spec = json.loads(specs.evaluation_spec(load_study(content), "policy"))
    assert (spec["sampling"]["samples"], spec["samples_by_task"]) == (4, {"aime": 16})


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_of_the_project_loads_and_has_all_its_specs(file):
    loaded = load_study(yaml.safe_load(file.read_text()), [file])
    for generator in loaded.generators:
        assert json.loads(specs.traces_spec(loaded, generator))["sampling"]["samples"] > 0
    for judge in loaded.judges:
        assert json.loads(specs.ratings_spec(loaded, judge))["judge"] == judge
    for suite in loaded.suites:
        assert json.loads(specs.items_spec(loaded, suite))["tasks"]
    for name, model in loaded.models.items():
        assert (specs.fetch_spec if "repo" in type(model).model_fields else specs.pretrain_spec)(loaded, name)
    for name in loaded.experiments:
        assert json.loads(specs.experiment_spec(loaded, name))["content"]["arms"]
        for cell in cells(loaded, name):
            check_names(loaded, cell)
            assert json.loads(specs.training_spec(loaded, cell))["n_steps"] > 0
            assert json.loads(specs.export_spec(loaded, cell))["cell"] == cell


def test_the_schema_file_is_in_step_with_the_models_and_takes_the_studies():
    folder = build.CONFIG.parent
    written = json.loads((folder / "schema.json").read_text())
    assert written == schema(), "run `make schema`"
    for file in STUDIES:
        jsonschema.validate(yaml.safe_load(file.read_text()), written)


def test_seeds_of_an_arm_use_the_draws_of_its_generators_in_turn():
    content = config(chosen=[FIRST], rejected=[SECOND], seeds=3)
    change(content, f"generators.{FIRST}.draws", 2)
    change(content, f"generators.{SECOND}.draws", 1)
    study = load_study(content)
    sides = [(cell["chosen"], cell["rejected"]) for cell in cells(study, next(iter(study.experiments)))]
    assert sides == [(FIRST, SECOND), (f"{FIRST}.draw1", SECOND), (FIRST, SECOND)]
    specs_of = [json.loads(specs.traces_spec(study, name)) for name in study.draws(FIRST)]
    assert specs_of[0]["seed"] != specs_of[1]["seed"]
    assert specs_of[0]["sampling"] == specs_of[1]["sampling"]


def test_draws_of_two_generators_of_one_model_are_independent():
    content = config()
    for name, seed in ((FIRST, 0), (SECOND, 1)):
        change(content, f"generators.{name}", {"model": next(iter(content["models"])), "seed": seed, "draws": 3})
    study = load_study(content)
    seeds = [json.loads(specs.traces_spec(study, draw))["seed"] for name in (FIRST, SECOND) for draw in study.draws(name)]
    assert len(set(seeds)) == 6


def test_a_name_that_a_draw_takes_is_an_error():
    content = config()
    change(content, f"generators.{FIRST}.draws", 2)
    content["generators"][f"{FIRST}.draw1"] = content["generators"][FIRST]
    with pytest.raises(ConfigError, match=rf"{FIRST}.draw1' is the name of a draw"):
        load_study(content)


def test_a_wrong_generator_with_several_draws_is_told_once():
    content = config()
    content["generators"]["qwen-s"]["model"] = "qwen-xxl"
    with pytest.raises(ConfigError) as error:
        load_study(content)
    assert str(error.value).count("qwen-xxl") == 1
