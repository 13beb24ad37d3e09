"""Plans: what each job depends on, and what it does not."""

import copy
import json
import shutil

import build
import pytest
import yaml

from prefdelta.configure.load import load_study
from prefdelta.plan import (
    audits,
    checkpoints,
    exports,
    findings,
    forecasts,
    generation,
    pairs,
    problems,
    rating,
    recipes,
    reports,
    shift,
    training,
)
from prefdelta.plan.checkpoints import model_run, without_gpus
from prefdelta.run.errors import ConfigError
from prefdelta.study.lattice import check_names, trained_cells

STUDIES = sorted(build.CONFIG.parent.glob("*.yaml"))
FIRST, SECOND, THIRD = list(build.config()["generators"])[:3]
EXPERIMENT = "experiments.generator_delta"
ARM = {"policy": "policy", "method": "dpo", "judge": "oracle", "chosen": SECOND, "rejected": FIRST, "selection": "full"}
CELL = {"study": "microworld", **ARM, "seed": "0"}
LENGTH = {"length": "1024", "arithmetic": "float32"}
NAMED = {"study": "microworld", "experiment": "generator_delta"}
PLANS = {  # what is planned -> (plan, words of its path)
    "prompts": (problems.make_prompts, {}),
    "items": (problems.make_items, {"split": "in_domain"}),
    "pretraining": (checkpoints.pretrain_model, {"model": "policy"}),
    "fetching": (checkpoints.fetch_model, {"model": "hub"}),
    "traces": (generation.sample_traces, {"generator": FIRST}),
    "ratings": (rating.rate_traces, {"judge": "oracle", "generator": FIRST}),
    "reference": (
        training.compute_reference,
        {"policy": "policy", "generator": FIRST, "length": "1024", "arithmetic": "float32"},
    ),
    "pairs": (pairs.build_pairs, {"judge": "oracle", "chosen": SECOND, "rejected": FIRST, "selection": "full"}),
    "page of pairs": (pairs.browse_pairs, {"judge": "oracle", "chosen": SECOND, "rejected": FIRST, "selection": "full"}),
    "training": (training.train_policy, CELL),
    "base evaluation": (generation.evaluate_base, {"model": "policy"}),
    "temperatures": (generation.evaluate_temperatures, {"model": "policy"}),
    "base shift": (shift.measure_base, {"model": "policy"}),
    "shift": (shift.measure_checkpoint, CELL),
    "evaluation": (generation.evaluate_checkpoint, CELL),
    "export": (exports.export_cell, CELL),
    "experiment": (findings.tabulate_experiment, NAMED),
    "figure": (findings.plot_experiment, NAMED),
    "profile": (findings.tabulate_profile, NAMED),
    "figure of profile": (findings.plot_profile, NAMED),
    "recipes": (recipes.tabulate_recipes, NAMED),
    "figure of recipes": (recipes.plot_recipes, NAMED),
    "capability": (findings.tabulate_capability, {}),
    "figure of capability": (findings.plot_capability, {}),
    "sharpening": (findings.tabulate_sharpening, {}),
    "figure of sharpening": (findings.plot_sharpening, {}),
    "generator deltas": (findings.tabulate_generator_deltas, {}),
    "regressions": (findings.tabulate_regressions, {}),
    "figure of regressions": (findings.plot_regressions, {}),
    "two deltas": (findings.tabulate_two_deltas, {}),
    "claims": (findings.tabulate_claims, {}),
    "replication": (findings.tabulate_replication, {}),
    "figure of replication": (findings.plot_replication, {}),
    "coverage": (audits.tabulate_coverage, {}),
    "decontamination": (audits.tabulate_decontamination, {}),
    "judge audit": (audits.tabulate_judge_audit, {}),
    "figure of judge audit": (audits.plot_judge_audit, {}),
    "delta correction": (audits.tabulate_delta_correction, {}),
    "balance": (audits.tabulate_balance, {}),
    "figure of balance": (audits.plot_balance, {}),
    "what if": (forecasts.tabulate_whatif, {}),
    "requests": (forecasts.tabulate_requests, {}),
    "figure of what if": (forecasts.plot_whatif, {}),
    "overlap": (forecasts.tabulate_overlap, {}),
    "prediction": (forecasts.tabulate_prediction, {}),
    "figure of prediction": (forecasts.plot_prediction, {}),
    "answers": (reports.render_answers, {}),
    "report": (reports.render_report, {}),
}


def config(**experiment):
    """`build.config` with other temperatures, and a model of the hub, which nothing uses."""
    content = build.config(**experiment)
    content["evaluation"]["temperatures"] = [0.5]
    content["models"]["hub"] = {"repo": "someone/small", "family": "qwen2"}
    content["validation"] = "in_domain"
    return content


def change(config, path, value):
    *parents, key = path.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[key] = value


def planned(study):
    """What is planned -> (content, files) of its job."""
    jobs = {name: plan(study, {"study": study.study, **words}) for name, (plan, words) in PLANS.items()}
    return {name: (job.content, job.files) for name, job in jobs.items()}


def content(study, name, **words):
    """The settings of one planned job."""
    plan, usual = PLANS[name]
    return json.loads(plan(study, {"study": study.study, **usual, **words}).content)["settings"]


def test_a_plan_is_canonical_json_and_the_same_each_time():
    study = load_study(config())
    for name, (text, _) in planned(study).items():
        assert json.dumps(json.loads(text), sort_keys=True) == text, name
    assert planned(study) == planned(load_study(config()))


def test_every_plan_of_a_rule_is_covered_here():
    modules = (audits, checkpoints, exports, findings, forecasts, generation, pairs, problems, rating, recipes, reports, shift)
    modules += (training,)
    text = "".join(file.read_text() for file in (build.CONFIG.parents[1] / "rules").glob("*.smk"))
    rules = {name for module in modules for name in vars(module) if f"rule {name}:" in text or f"as {name} with" in text}
    assert rules == {plan.__name__ for plan, _ in PLANS.values()}


def test_the_order_of_keys_changes_no_plan():
    turned = {key: dict(reversed(value.items())) if key == "sampling" else value for key, value in reversed(config().items())}
    assert planned(load_study(turned)) == planned(load_study(config()))


BOOTSTRAPPED = ["experiment", "profile", "capability", "generator deltas", "judge audit", "delta correction"]
BOOTSTRAPPED += ["prediction", "export", "sharpening", "recipes", "two deltas"]
WITH_CELLS = ["experiment", "balance", "delta correction", "what if", "regressions", "prediction", "profile"]
WITH_CELLS += ["sharpening", "recipes"]


@pytest.mark.parametrize(
    "path, value, changed",
    [
        ("seed", 1, ["prompts", "items", "traces", "pairs", "training", *BOOTSTRAPPED]),
        ("prompts.arithmetic", 700, ["prompts", "export"]),
        ("suites.in_domain.arithmetic", 7, ["items"]),
        ("decontamination_ngram", 9, ["prompts"]),
        ("backend", "vllm", ["traces", "evaluation", "base evaluation", "temperatures"]),
        (f"generators.{FIRST}.backend", "vllm", ["traces"]),
        (f"generators.{FIRST}.seed", 9, ["traces", "export"]),
        (f"generators.{FIRST}.sampling.top_p", 0.9, ["traces", "export"]),
        (f"generators.{SECOND}.seed", 9, ["export"]),
        ("sampling.temperature", 0.5, ["traces", "export"]),
        ("judges.oracle.endpoint.noise", 0.25, ["ratings", "export"]),
        ("authors.common", {"factuality": 0.5}, ["pretraining"]),
        ("world.seed", 5, ["pretraining"]),
        ("suite_operations.longer", [4, 6], []),
        ("models.hub.revision", "0f", ["fetching"]),
        ("models.hub.dtype", "float32", []),
        ("methods.dpo.beta", 0.5, ["training", "sharpening", "recipes"]),
        ("methods.dpo.bf16", True, ["training", "what if", "balance"]),
        ("methods.dpo.max_length", 99, ["training", "what if", "shift", "balance"]),
        ("methods.kto.beta", 0.5, []),
        ("methods.kto.max_length", 99, []),
        ("methods.sft.max_length", 99, []),
        ("sweeps.unused", {"method": "dpo", "steps": [10, 20]}, []),
        ("methods.unused", {"trainer": "sft", "learning_rate": 1, "batch_size": 2, "steps": 1, "max_length": 7}, []),
        ("evaluation.samples", 9, ["evaluation", "base evaluation", "temperatures"]),
        ("evaluation.temperatures", [0.7], ["temperatures"]),
        ("export.license", "mit", ["export"]),
        ("bootstrap", 99, BOOTSTRAPPED),
        ("gates.truncated", 0.5, ["figure of what if"]),
        ("gates.judge_coverage", 0.5, []),
        ("cost", {"training_tokens_per_second": 1, "evaluation_tokens_per_second": 1, "price_per_hour": 1}, ["what if"]),
        ("predictor", str(build.CONFIG), ["what if", "figure of what if"]),  # any file
        ("smallest_effect", 2.0, ["experiment", "profile", "answers"]),
        (f"{EXPERIMENT}.seeds", 1, [*WITH_CELLS, "answers"]),
        (f"{EXPERIMENT}.title", "Another", ["figure", "figure of profile", "figure of recipes"]),
        (f"{EXPERIMENT}.question", "Another?", ["figure", "figure of profile", "figure of recipes", "claims", "answers"]),
        ("judges.unused", {"model": "m", "endpoint": {"kind": "microworld", "noise": 1}}, []),
        # How a machine makes results changes nothing.
        ("run.batch_size", 7, []),
        ("run.judges.oracle", {"concurrency": 1, "retries": 0, "timeout": 1}, []),
        ("run.methods.dpo", {"gpus": 1, "micro_batch": 4, "gradient_checkpointing": True}, []),
        # What does not fill a pass of all processes is left out.
        ("run.methods.dpo", {"gpus": 2, "micro_batch": 4, "sharding": "fsdp"}, ["training", "what if"]),
        ("run.methods.dpo.checkpoint_steps", 7, []),
        ("run.models.hub", {"gpus": 4, "max_model_len": 99, "gpu_memory_utilization": 0.5, "engine": {"max_num_seqs": 1}}, []),
    ],
)
def test_a_change_reaches_the_jobs_that_depend_on_it_and_no_others(path, value, changed):
    changed_config = config()
    change(changed_config, path, value)
    after, before = planned(load_study(changed_config)), planned(load_study(config()))
    assert {name for name in PLANS if after[name] != before[name]} == {*changed}


def test_the_primary_contrast_is_a_comparison_of_the_experiment_and_takes_the_place_of_the_trend():
    loaded = load_study(config())
    assert content(loaded, "experiment")["primary"] is None
    assert [fit["primary"] for fit in content(loaded, "regressions")["fits"]] == [True, False]
    named = content(loaded, "experiment")["arms"][-1]["arm"]
    loaded = load_study(config(primary={"arm": named}))
    assert content(loaded, "experiment")["primary"] == {"arm": named, "versus": "base", "suite": list(loaded.suites)[-1]}
    assert not any(fit["primary"] for fit in content(loaded, "regressions")["fits"])


def test_arms_of_several_methods_are_regressed_apart():
    fits = content(load_study(config(method=["dpo", "sft"])), "regressions")["fits"]
    assert [(fit["fit"], fit["among"], fit["primary"]) for fit in fits] == [
        ("generator_delta", "dpo", True),
        ("generator_delta", "sft", False),
        ("dimensions", None, False),
    ]
    assert all({arm["method"] for arm in fit["arms"]} == {fit["among"]} for fit in fits[:2])


def test_controls_that_an_experiment_names_once_are_one_family_whatever_the_arm():
    sizes = {"selection": ["top5-overall", "top9-overall", "random5", "random9", "full"]}
    versus = [{"selection": "random{k}"}, {"selection": "full"}]
    arms = content(load_study(config(chosen=[SECOND], rejected=[FIRST], **sizes, versus=versus)), "experiment")["arms"]
    assert [arm["versus"] for arm in arms[:2]] == [{"random5": 0, "full": 1}, {"random9": 0, "full": 1}]


def test_what_seeds_vary_is_said_of_this_study():
    study = config(chosen=[SECOND], rejected=[FIRST], selection=["full", "random5"], versus=[])
    study["generators"] = {FIRST: {"model": "policy", "draws": 2}, SECOND: {"model": "policy", "seed": 1}}
    said = content(load_study(study), "answers")["seeds"]
    vary, _, same = said.partition("What is the same in all of them: ")
    assert "the draws of random" in vary and f"the traces of {FIRST}, with" in vary
    for part in ("the checkpoint that training starts from (policy)", "the world", f"the traces of {SECOND}, with"):
        assert part in same
    assert "One seed only" not in said
    change(study, f"{EXPERIMENT}.seeds", 1)
    assert "One seed only, so intervals over items alone: generator_delta" in content(load_study(study), "answers")["seeds"]


def test_a_slope_is_of_one_policy():
    first, second = list(build.config()["models"])[:2]
    study = config(policy=[first, second])
    study["policies"] = [first, second]
    fits = content(load_study(study), "regressions")["fits"]
    found = [(fit["fit"], {arm["policy"] for arm in fit["arms"]}) for fit in fits]
    assert found == [("generator_delta", {first}), ("generator_delta", {second}), ("dimensions", {first})]


def test_run_settings_reach_the_job_but_not_its_content():
    study = config()
    change(study, "run.methods.dpo", {"micro_batch": 4})
    change(study, "run.judges.oracle.concurrency", 3)
    loaded = load_study(study)
    assert json.loads(training.train_policy(loaded, CELL).run_settings)["training"]["micro_batch"] == 4
    words = {"study": "microworld", "judge": "oracle", "generator": FIRST}
    assert json.loads(rating.rate_traces(loaded, words).run_settings)["requests"]["concurrency"] == 3


def test_a_draw_is_asked_as_its_generator_and_knows_where_that_is_configured():
    study = config()
    endpoint = {"kind": "url", "base_url": "https://a/v1", "api_key_env": "KEY"}
    change(study, "generators.api", {"backend": "openai", "model": "big", "endpoint": endpoint, "draws": 2})
    change(study, "run.generators", {"api": {"concurrency": 3}})
    words = {"study": "microworld", "generator": "api.draw1"}
    how = json.loads(generation.sample_traces(load_study(study), words).run_settings)
    assert (how["requests"]["concurrency"], how["generator"]) == (3, "api")


def test_the_micro_batch_of_kto_is_content_for_its_kl_term_depends_on_it():
    study = config()
    change(study, "run.methods.kto.micro_batch", 4)
    assert content(load_study(study), "training", method="kto")["unit"] == 4
    assert content(load_study(config()), "training", method="kto")["unit"] == 64
    assert content(load_study(study), "training")["unit"] == 1


def test_a_reference_is_of_one_length_and_arithmetic_so_another_method_concerns_only_itself():
    study = config()
    change(study, "methods.short", study["methods"]["dpo"] | {"max_length": 64, "bf16": True})
    loaded = load_study(study)
    usual, short = (training.train_policy(loaded, {**CELL, "method": method}).files["references"] for method in ("dpo", "short"))
    assert usual == training.train_policy(load_study(config()), CELL).files["references"]
    assert all("/64-bf16/" in file for file in short)
    simpo = study["methods"]["dpo"] | {"loss": "simpo", "margin": 0.5}
    for method in ("sft", "simpo"):  # have none
        loaded = load_study(study | {"methods": study["methods"] | {"simpo": simpo}})
        assert not training.train_policy(loaded, {**CELL, "method": method}).files["references"]


def test_pairs_read_references_only_where_they_go_by_them_those_of_the_first_policy_and_method():
    study = load_study(config())
    words = {"study": "microworld", "judge": "oracle", "chosen": SECOND, "rejected": FIRST}
    plain, by_margin = (
        pairs.build_pairs(study, {**words, "selection": name})
        for name in ("best_over_worst-5-overall", "largest_margin-5-overall")
    )
    assert plain.files["references"] == []
    assert by_margin.files["references"] == training.train_policy(study, CELL).files["references"]
    assert json.loads(by_margin.content)["settings"]["max_length"] == study.methods["dpo"].max_length


def test_a_figure_needs_what_it_shows():
    """The table of an experiment reads the traces of its own generators, and no other judge's or generator's ratings."""
    files = findings.tabulate_experiment(load_study(config()), {"study": "microworld", "experiment": "generator_delta"}).files
    shown = {*build.config()["experiments"]["generator_delta"]["chosen"], "rung0"}
    assert {file.rpartition("/")[2].partition(".")[0] for file in files["traces"]} == shown
    assert set(files) == {"traces", "evals", "manifests", "bases"}


def test_local_data_are_inputs_with_all_files_of_a_folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.jsonl", "deep/b.jsonl"):
        (folder / name).write_text("{}")
    shutil.copytree(folder, tmp_path / "model")
    study = config()
    study["prompts"] = {"openr1": {"repo": str(folder), "n": 5}}
    study["suites"]["in_domain"] = {"gsm8k": {"repo": str(folder / "a.jsonl")}, "aime": {"repo": "someone/aime"}}
    study["models"]["hub"]["repo"] = str(tmp_path / "model")
    study["generators"]["mine"] = {"backend": "dataset", "repo": str(folder), "tokenizer": "policy"}
    study["judges"]["people"] = {"model": "people", "endpoint": {"kind": "file", "path": str(folder / "a.jsonl")}}
    loaded = load_study(study)
    both = [str(folder / "a.jsonl"), str(folder / "deep/b.jsonl")]

    def of(name, **words):
        plan, usual = PLANS[name]
        return plan(loaded, {"study": loaded.study, **usual, **words}).files

    assert of("prompts")["data"] == both
    assert of("items")["data"] == both[:1]
    assert of("fetching")["data"] == [file.replace("/data/", "/model/") for file in both]
    assert of("traces", generator="mine")["data"] == both
    assert of("ratings", judge="people")["labels"] == both[0]


def test_a_second_sample_of_a_model_has_a_seed_of_its_own():
    study = config()
    study["generators"] = {FIRST: {"model": "policy"}, SECOND: {"model": "policy", "seed": 1}, THIRD: {"model": "policy"}}
    study["experiments"] = {}
    loaded = load_study(study)
    first, second, same = (content(loaded, "traces", generator=name)["seed"] for name in (FIRST, SECOND, THIRD))
    assert first != second
    assert first == same


def test_a_hub_models_settings_reach_the_jobs_that_run_it_and_nothing_else_of_it_does():
    study = config()
    study["generators"]["small"] = {"model": "hub", "sampling": {"samples": 2}}
    study["policies"] = ["hub"]
    study["models"]["hub"] |= {"system": "Think.", "dtype": "float32", "sampling": {"samples": 3, "top_k": 9}, "license": "mit"}
    loaded = load_study(study)
    traces = content(loaded, "traces", generator="small")
    assert (traces["backend"]["system"], traces["backend"]["dtype"]) == ("Think.", "float32")
    assert "license" not in traces["backend"]
    # The generator's own words come last, the study's first.
    assert (traces["sampling"]["samples"], traces["sampling"]["top_k"], traces["sampling"]["temperature"]) == (2, 9, 1.0)
    chat = {"system": "Think.", "chat_template_kwargs": {}}
    assert content(loaded, "training", policy="hub")["chat"] == chat
    assert content(loaded, "reference", policy="hub")["chat"] == chat


def test_on_a_machine_without_gpus_only_models_that_are_said_to_take_gpus_take_any():
    study = config()
    study["models"]["asking"] = study["models"]["hub"]
    study["run"] = dict(study["run"])
    study["run"]["models"] = {"asking": {"gpus": 1}, "hub": {"max_model_len": 99}}
    study["generators"]["small"] = {"model": "hub"}
    loaded = load_study(study)
    here = without_gpus(loaded)
    assert [model_run(loaded, name).gpus for name in ("hub", "asking", "policy")] == [1, 1, 0]
    assert [model_run(here, name).gpus for name in ("hub", "asking", "policy")] == [0, 1, 0]
    assert model_run(here, "hub").max_model_len == 99
    jobs = [PLANS["traces"][0](each, {"study": each.study, "generator": "small"}) for each in (loaded, here)]
    assert jobs[0].content == jobs[1].content and json.loads(jobs[1].run_settings)["model"]["gpus"] == 0


def test_a_judge_that_is_served_knows_what_its_server_needs_of_the_model():
    study = config()
    change(study, "run.models.hub", {"gpus": 2, "max_model_len": 99})
    study["judges"]["oracle"]["endpoint"] = {"kind": "vllm", "model": "hub"}
    job = rating.rate_traces(load_study(study), {"study": "microworld", "judge": "oracle", "generator": FIRST})
    run = json.loads(job.run_settings)["model"]
    assert (run["gpus"], run["max_model_len"], json.loads(job.content)["settings"]["dtype"]) == (2, 99, "bfloat16")
    assert "99" not in job.content


def test_answers_to_an_item_are_the_evaluations_unless_its_task_says_otherwise():
    study = config()
    study["suites"]["in_domain"]["aime"] = {"repo": "a/b", "samples": 16}
    study["suites"]["in_domain"]["gsm8k"] = {"repo": "a/b"}
    settings = content(load_study(study), "base evaluation")
    assert (settings["sampling"]["samples"], settings["samples_by_task"]) == (2, {"aime": 16})


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_of_the_project_loads_and_can_be_planned(file):
    loaded = load_study(yaml.safe_load(file.read_text()), [file])
    study = {"study": loaded.study}
    for generator in loaded.generators:
        assert content(loaded, "traces", generator=generator)["sampling"]["samples"] > 0
        for judge in loaded.judges:
            assert content(loaded, "ratings", judge=judge, generator=generator)["judge"] == judge
    for suite in loaded.suites:
        assert content(loaded, "items", split=suite)["tasks"]
    for name, model in loaded.models.items():
        assert content(loaded, "fetching" if "repo" in type(model).model_fields else "pretraining", model=name)
    for name in loaded.experiments:
        assert findings.tabulate_experiment(loaded, {**study, "experiment": name}).settings.arms
    for cell in trained_cells(loaded):
        words = {**study, **{word: str(value) for word, value in vars(cell).items()}}
        check_names(loaded, words)
        assert training.train_policy(loaded, words).settings.n_steps > 0
        assert exports.export_cell(loaded, words).settings.cell == cell


def test_seeds_of_an_arm_use_the_draws_of_its_generators_in_turn():
    study = config(chosen=[FIRST], rejected=[SECOND], seeds=3, versus=[])
    change(study, f"generators.{FIRST}.draws", 2)
    change(study, f"generators.{SECOND}.draws", 1)
    loaded = load_study(study)
    sides = [(cell.chosen, cell.rejected) for cell in trained_cells(loaded)]
    assert sides == [(FIRST, SECOND), (f"{FIRST}.draw1", SECOND), (FIRST, SECOND)]
    first, second = (content(loaded, "traces", generator=name) for name in loaded.draws(FIRST))
    assert first["seed"] != second["seed"]
    assert first["sampling"] == second["sampling"]


def test_draws_of_two_generators_of_one_model_are_independent():
    study = config()
    for name, seed in ((FIRST, 0), (SECOND, 1)):
        change(study, f"generators.{name}", {"model": next(iter(study["models"])), "seed": seed, "draws": 3})
    loaded = load_study(study)
    seeds = [content(loaded, "traces", generator=draw)["seed"] for name in (FIRST, SECOND) for draw in loaded.draws(name)]
    assert len(set(seeds)) == 6


def test_a_second_file_of_run_settings_is_merged_into_the_study():
    study = copy.deepcopy(config())
    change(study, "run.methods.dpo.micro_batch", 8)
    assert load_study(study).run.methods["dpo"].micro_batch == 8


def test_a_card_says_what_was_not_asked_for():
    config = build.config()
    endpoint = {"kind": "url", "base_url": "https://x/v1", "api_key_env": "KEY", "omit": ["temperature"]}
    config["judges"]["oracle"]["endpoint"] = endpoint
    config["generators"][FIRST] = {"backend": "openai", "model": "m", "endpoint": endpoint}
    told = exports.export_cell(load_study(config), CELL).settings
    assert told.judge.settings["omit"] == told.generators[FIRST].settings["omit"] == ["temperature"]


def test_held_out_pairs_are_of_the_next_draws_or_of_the_cells_own():
    study = config()
    for name, draws in ((FIRST, 3), (SECOND, 3), (THIRD, 1)):
        change(study, f"generators.{name}.draws", draws)
    loaded = load_study(study)
    assert shift.held_out(loaded, SECOND, FIRST) == ({"chosen": f"{SECOND}.draw1", "rejected": f"{FIRST}.draw1"}, "another draw")
    last, first = f"{SECOND}.draw2", f"{FIRST}.draw2"
    assert shift.held_out(loaded, last, first) == ({"chosen": SECOND, "rejected": FIRST}, "another draw")
    assert shift.held_out(loaded, THIRD, FIRST) == ({"chosen": THIRD, "rejected": FIRST}, "not selected")
    assert shift.held_out(loaded, FIRST, f"{FIRST}.draw1")[1] == "not selected"


def test_without_other_temperatures_a_policy_is_measured_at_the_evaluations():
    study = config()
    change(study, "evaluation.temperatures", [])
    loaded = load_study(study)
    assert not shift.measure_base(loaded, {"study": loaded.study, "model": "policy"}).files["tempered"]
    assert not findings.tabulate_sharpening(loaded, {"study": loaded.study}).files["tempered"]
    with pytest.raises(ConfigError, match=r"evaluation\.temperatures of study microworld is empty"):
        generation.evaluate_temperatures(loaded, {"study": loaded.study, "model": "policy"})


def test_the_report_needs_the_figures_of_the_answers_themselves():
    # They are marked for the report, which fails where one is gone that nothing else would make again.
    loaded = load_study(config())
    assert {*reports.render_answers(loaded, {}).files["figures"]} <= {*reports.render_report(loaded, {}).files["shown"]}
