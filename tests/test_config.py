"""Configurations: what is wrong is named with its key, its value and the choices; and the lattice that follows from them."""

import json
from datetime import date

import build
import jsonschema
import pytest
import yaml

from prefdelta.configure.check import check
from prefdelta.configure.files import read_config
from prefdelta.configure.keys import page, settings_within
from prefdelta.configure.load import load_study, schema
from prefdelta.run.errors import ConfigError
from prefdelta.study.lattice import arms, check_names, controls, label, trained_cells
from prefdelta.study.selections import GRAMMAR
from prefdelta.study.study import Study

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
    "more habits than operations": ("world.habits", {"factuality": 9, "signal_to_noise": 7}, ["world.habits", "16", "15"]),
    "habit of no dimension": ("world.habits", {"speed": 1}, ["world.habits.speed", "factuality"]),
    "unknown start": ("models.policy.start", "scratch", ["models.policy.start", "scratch"]),
    "start of another shape": (
        "models.new",
        build.config()["models"]["policy"] | {"start": "policy", "hidden_size": 7},
        ["models.new.start", "hidden_size", "7"],
    ),
    "suite of too long problems": ("suite_operations", {"in_domain": [2, 9]}, ["suite_operations.in_domain", "[2, 9]", "8"]),
    "operations of no suite": ("suite_operations", {"hard": [2, 3]}, ["suite_operations", "hard", "in_domain"]),
    "one length in two suites": ("suites.more", {"arithmetic": 5}, ["suites", "arithmetic", "two suites", "equal length"]),
    "more draws than anyone waits for": (f"generators.{FIRST}.draws", 10**12, [f"generators.{FIRST}", "draws", "100"]),
    "more operations than a problem has": ("operations", [2, 10**12], ["operations", "at most 8"]),
    "more seeds than anyone waits for": (f"{EXPERIMENT}.seeds", 10**12, [f"{EXPERIMENT}.seeds", "100"]),
    "unknown domain": ("prompts", {"algebra": 5}, ["prompts.algebra", "arithmetic", "program", "story"]),
    "unknown family": ("models.policy.family", "gpt", ["models.policy.family", "gpt", "qwen3", "llama"]),
    "unknown key": ("sampling.sample", 4, ["sampling.sample", "4", "samples"]),
    "name twice": (f"{EXPERIMENT}.chosen", [SECOND, THIRD, SECOND], [f"{EXPERIMENT}.chosen", SECOND, "twice"]),
    "selection twice": (f"{EXPERIMENT}.selection", ["full", "full"], [f"{EXPERIMENT}.selection", "full", "twice"]),
    "policy twice": ("policies", ["policy", "policy"], ["policies", "'policy'", "twice"]),
    "malformed selection": (f"{EXPERIMENT}.selection", ["top5-Speed"], [f"{EXPERIMENT}.selection", "top5-Speed", GRAMMAR]),
    "too large a k": (
        f"{EXPERIMENT}.selection",
        ["random9999999"],
        [f"{EXPERIMENT}.selection", "9999999", str(n_pairs(build.config()))],
    ),
    "empty list": (f"{EXPERIMENT}.chosen", [], [EXPERIMENT, "either `chosen` and `rejected`, or `pairs`"]),
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
        ["generators.api.samples", "choose from backend, model, endpoint, system"],
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
    "number in place of a mapping": ("models.policy", 3, ["models.policy: ", "(given: 3)"]),
    "no suites": ("suites", {}, ["suites: ", "at least 1 item"]),
    "suite without tasks": ("suites.in_domain", {}, ["suites.in_domain: ", "at least 1 item"]),
    "figure with a typo": (f"{EXPERIMENT}.figure", "laddr", [f"{EXPERIMENT}.figure", "(did you mean 'ladder'?)"]),
    "folder of tasks that is not there": (
        "suites.in_domain.lm_eval:mine",
        {"repo": "a/b", "include_path": "nowhere"},
        ["suites.in_domain.lm_eval:mine.include_path: nowhere is no folder"],
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
    "batch without a provider": ("run.judges.oracle.batch", True, ["run.judges.oracle", "batch", "microworld"]),
    "push without a place": ("export.push", True, ["export", "namespace"]),
    "sharding on one GPU": ("run.methods.dpo.sharding", "fsdp", ["methods.dpo", "at least 2 gpus"]),
    "micro-batches that do not divide": ("run.methods.dpo.micro_batch", 5, ["methods.dpo", "32", "5 x 1"]),
    "a forward pass of one KTO example": ("run.methods.kto.micro_batch", 1, ["methods.kto", "at least 2"]),
    "run settings of nobody": ("run.methods.ppo", {}, ["run.methods", "'ppo'", "dpo"]),
    "run settings of a model from scratch": ("run.models.policy", {"gpus": 1}, ["run.models", "'policy'", "hub"]),
    "a machine's setting as content": ("methods.dpo.micro_batch", 4, ["methods.dpo.micro_batch", "unknown key", "run.methods"]),
    "a typo": ("policies", ["polcy"], ["policies", "did you mean 'policy'"]),
    "a typo in a key": ("methods.dpo.learning_rat", 1, ["methods.dpo.learning_rat", "did you mean 'learning_rate'"]),
    "a loss of DPO for KTO": ("methods.kto.loss", "sigmoid_norm", ["methods.kto", "loss", "kto"]),
    "robust to nothing": ("methods.dpo.loss", "robust", ["methods.dpo", "label_smoothing", "robust"]),
    "a margin without SimPO": ("methods.dpo.margin", 0.5, ["methods.dpo", "margin", "simpo", "sigmoid"]),
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
    wrong["models"]["HubModel"] = {**HUB, "dtype": "int8"}
    wrong["generators"]["openai"] = {"model": "hub", "seed": "x"}
    with pytest.raises(ConfigError) as error:
        load_study(wrong)
    assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [
        "models.HubModel.dtype",
        "generators.openai.seed",
    ]


def test_of_a_number_or_a_mapping_only_the_one_that_was_meant_is_complained_about():
    for value, key in ((0, "prompts.arithmetic"), ({"n": 1}, "prompts.arithmetic.repo")):
        wrong = config()
        wrong["prompts"]["arithmetic"] = value
        with pytest.raises(ConfigError) as error:
            load_study(wrong)
        assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [key]


@pytest.mark.parametrize("change", [{"base_url": "https://user:hunter2@x/v1"}, {"base_url": "https://x/v1?key=hunter2"}])
def test_a_secret_in_an_address_is_refused_and_not_shown(change):
    wrong = config()
    endpoint = {"kind": "url", "base_url": "https://x/v1", "api_key_env": "KEY", "omit": ["temperature"]}
    next(iter(wrong["judges"].values()))["endpoint"] = endpoint
    load_study(wrong)
    endpoint |= change
    with pytest.raises(ConfigError, match=r"judges\.\w+\.endpoint.*base_url.*variable KEY") as error:
        load_study(wrong)
    assert "hunter2" not in str(error.value)
    endpoint |= {"base_url": "https://x/v1", "omit": ["model"]}
    with pytest.raises(ConfigError, match="no request can do without model"):
        load_study(wrong)


def test_all_that_is_wrong_is_told_at_once():
    config = build.config(chosen=["gwen"], method=["ppo"])
    with pytest.raises(ConfigError, match=r"(?s)gwen.*ppo"):
        load_study(config)


def test_the_largest_k_is_the_number_of_pairs_or_of_prompts_for_a_stratum():
    config = build.config()
    pairs, prompts = n_pairs(config), sum(config["prompts"].values())
    loaded = load_study(config)
    for kind, most in (("top{}-overall", pairs), ("flipped-{}", pairs), ("both_wrong-{}", prompts)):
        assert loaded.selection(kind.format(most), "oracle").k == most
        with pytest.raises(Exception, match=f"asks for {most + 1} .*has {most}"):
            loaded.selection(kind.format(most + 1), "oracle")


def told(files, text="", name="study.yaml"):
    """The message of `read_config` about a file in the folder ``files``."""
    file = files / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        read_config(file)
    assert str(error.value).count(str(file)) >= 1
    return str(error.value)


BROKEN = {  # what is wrong with a file -> (its text, what the message must hold)
    "Latin-1": ("study: a\n# caf\u00e9\n".encode("latin1"), ["line 2", "0xe9", "UTF-8", "iconv"]),
    "UTF-16": ("study: a\n".encode("utf-16"), ["line 1", "UTF-8"]),
    "binary": (bytes(range(1, 128)), ["no YAML", "#x0001"]),
    "a tab": ("study: a\nrun:\n\tmodels: {}\n", ["line 3", "'\\t'", "indent with spaces"]),
    "an open bracket": ("study: a\npolicies: [policy\nmodels: {}\n", ["line 3", "expected ',' or ']'"]),
    "a colon in a text": ("study: a\nquestion: why: because\n", ["line 2", "mapping values", "in quotes"]),
    "two documents": ("study: a\n---\nstudy: b\n", ["line 2", "another document"]),
    "an unknown tag": ("study: !!python/name:os.system a\n", ["line 1", "constructor"]),
    "an unknown alias": ("study: *a\n", ["line 1", "undefined alias"]),
    "200,000 brackets": ("[" * 200_000, ["levels within each other"]),
    "200,000 brackets of JSON": ('{"a":' * 200_000, ["levels within each other"]),
    "60 brackets": ("a: " + "[" * 60 + "]" * 60, ["line 1", "levels within each other"]),
    "an alias within itself": ("a: &a [*a]\n", ["line 1", "an alias within what it stands for"]),
    "a million laughs": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{y}: &{y} [{','.join(9 * [f'*{x}'])}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
        ["100000 values", "aliases"],
    ),
    "a key that stands twice": (
        "study: a\nsampling:\n  samples: 1\n  seed: 1\n  samples: 2\n",
        ["line 5: sampling.samples stands twice"],
    ),
    "a key that stands twice in JSON": ('{"study": "a", "run": {"x": 1, "x": 2}}', ["`x` stands twice"]),
    "a key `no`": ("models:\n  no: {family: qwen3}\n", ["line 2: the key `models.no` was read as false", "put it in quotes"]),
    "a key `on`": ("models:\n  on: {family: qwen3}\n", ["line 2: the key `models.on` was read as true", "put it in quotes"]),
    "a number as a key": ("models: {7: {}}\n", ["line 1: the key `models.7` was read as a number", "put it in quotes"]),
    "nothing as a key": ("models:\n  ~: {}\n", ["line 2: the key `models.~` was read as nothing"]),
    "a list as a key": ("? [a, b]\n: c\n", ["line 1", "a key must be a text"]),
    "a date": ("models:\n  hub: {revision: 2024-01-31}\n", ["line 2: models.hub.revision was read as a date", "in quotes"]),
    "a date that can't be": ("study: 2024-13-41\n", ["line 1: study was read as", "month", "in quotes"]),
    "no number": ("seed: .nan\n", ["line 1: seed was read as nan"]),
    "a number without end": ("a:\n- 1\n- -.inf\n", ["line 3: a.1 was read as -inf"]),
    "no true or false": ("a: 1\nstudy: !!bool foo\n", ["line 2: study was read as a bool that can't be"]),
    "no timestamp": ("study: !!timestamp foo\n", ["line 1: study was read as a timestamp that can't be"]),
    "no whole number": ("- a\n- !!int foo\n", ["line 2: 1 was read as a int that can't be"]),
    "a number without digits": ("a: {b: !!int '_'}\n", ["line 1: a.b was read as a int that can't be"]),
    "a key that is no true or false": ("models:\n  !!bool foo: 1\n", ["line 2: the key `models.foo` was read as a bool that"]),
    "keys that are no true or false": ("study: !!bool {=: foo}\n", ["line 1: study has the tag bool"]),
    "a set of keys": ("a: 1\nmodels: !!set {a, b}\n", ["line 2: models has the tag set"]),
    "ordered keys": ("models:\n- !!omap [a: 1]\n", ["line 2: models.0 has the tag omap"]),
    "a set": ("a: !!binary aGVsbG8=\n", ["line 1: a was read as a bytes"]),
    "nothing": ("", ["is empty", "config/config.yaml"]),
    "only remarks": ("# study: a\n", ["is empty"]),
    "a list": ("- study\n", ["holds a list"]),
    "a text": ("study\n", ["holds a str"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_file_is_named_with_file_and_line(what, tmp_path):
    text, words = BROKEN[what]
    message = told(tmp_path, text)
    for word in words:
        assert word in message


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path):
    for file in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match=f"{file} can't be read: "):
            read_config(file)


def test_a_study_is_refused_for_what_is_wrong_with_its_files(tmp_path):
    (tmp_path / "study.yaml").write_text("models: {no: {}}\n")
    with pytest.raises(ConfigError, match=r"line 1: the key `models\.no` was read as false"):
        load_study(build.config(), [tmp_path / "study.yaml"])


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_with_a_byte_order_mark_or_tabs_in_json_is_read(mark, tmp_path):
    (tmp_path / "study.json").write_text(mark + json.dumps(build.config(), indent="\t"), encoding="utf-8")
    assert load_study(read_config(tmp_path / "study.json"), [tmp_path / "study.json"]).study == "microworld"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_file_is_read_as_snakemake_reads_it(file):
    assert read_config(file) == yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("methods.dpo.learning_rate", float("inf"), ["methods.dpo.learning_rate: Input should be a finite number"]),
        ("models.hub.engine", {"a": {"b": float("nan")}}, ["models.hub.engine.a.b: Input should be a finite number"]),
        ("models.hub.engine", {"a": date(2024, 1, 31)}, ["models.hub.engine.a: input was not a valid JSON value"]),
        ("models.hub.revision", date(2024, 1, 31), ["models.hub.revision: ", "is a text in quotes"]),
        ("models.hub.revision", 1234, ["models.hub.revision: ", "is a text in quotes"]),
        ("policies", [False], ["policies.0: ", "is a text in quotes", "False"]),
    ],
)
def test_a_value_that_the_command_line_gives_is_refused_as_well(path, value, words):
    wrong = config()
    change(wrong, path, value)
    with pytest.raises(ConfigError) as error:
        load_study(wrong)
    for word in words:
        assert word in str(error.value)


def test_files_are_checked_as_snakemake_combines_them(tmp_path, monkeypatch):
    monkeypatch.chdir(build.CONFIG.parents[1])
    machine = tmp_path / "machine.yaml"
    machine.write_text("run: {methods: {dpo: {micro_batch: 2}}}\n")
    check([])
    check([str(STUDIES[-1]), str(machine)])
    with pytest.raises(ConfigError, match=r"machine\.yaml lacks study, models, .* name the study's file first"):
        check([str(machine)])
    machine.write_text("run: {methods: {ppo: {micro_batch: 2}}}\n")
    with pytest.raises(ConfigError, match=r"run\.methods: 'ppo' is unknown"):
        check([str(STUDIES[-1]), str(machine)])


def test_all_sections_that_are_missing_are_named_at_once_beside_what_else_is_wrong():
    with pytest.raises(ConfigError) as error:
        load_study({"study": "mine", "models": {}, "sampling": {"sample": 1}}, ["config/smoke.yaml", "config/small.yaml"])
    first, *others = str(error.value).splitlines()
    assert first.startswith("config/smoke.yaml and config/small.yaml lack prompts, suites, generators, judges, policies, methods")
    assert any(line.startswith("sampling.sample: unknown key") for line in others)
    assert "sampling.samples: Field required" in others


def test_merge_keys_and_the_same_key_in_two_places_are_no_duplicates(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 2}\nc: [{x: 1}, {x: 2}]\n")
    assert load_study(build.config(), [file]).study


@pytest.mark.parametrize("versus", [{"chosen": FIRST}, {"method": "kto"}, {"selection": "top7-overall"}, {"chosen": "gwen"}])
def test_a_control_that_the_experiment_does_not_have_is_an_error(versus):
    ((word, value),) = versus.items()
    with pytest.raises(ConfigError) as error:
        study(chosen=[SECOND, THIRD], rejected=[FIRST], versus=[versus])
    for text in ("experiments.generator_delta.versus", word, value):
        assert text in str(error.value)


@pytest.mark.parametrize("primary", [{"arm": "full"}, {"arm": "random5", "versus": "random5"}, {"arm": "top5", "versus": "base"}])
def test_a_primary_contrast_that_is_no_comparison_is_an_error_with_the_choices(primary):
    selection = {"selection": ["top5-overall", "random5"], "versus": [{"selection": "random{k}"}]}
    with pytest.raises(ConfigError) as error:
        study(chosen=[SECOND], rejected=[FIRST], **selection, primary=primary)
    for text in ("experiments.generator_delta.primary", primary["arm"], "{arm: 'top5-overall', versus: 'random5'}"):
        assert text in str(error.value)
    assert study(chosen=[SECOND], rejected=[FIRST], **selection, primary={"arm": "top5-overall", "versus": "random5"}).experiments


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
    assert [arm.cell(loaded, seed).selection for seed in range(2)] == [f"{names[3]}-draw0", f"{names[3]}-draw1"]


def test_arms_are_the_product_of_the_lists_without_arms_that_meet_themselves():
    sides = [FIRST, SECOND]
    loaded = study(chosen=sides, rejected=sides, method=["dpo", "sft"], selection=["full", "top5-overall"], versus=[])
    found = [(arm.method, arm.chosen, arm.rejected, arm.selection) for arm in arms(loaded, "generator_delta")]
    assert len(found) == len(set(found)) == 2 * 2 * 2
    assert {(chosen, rejected) for _, chosen, rejected, _ in found} == {(FIRST, SECOND), (SECOND, FIRST)}


def test_pairs_of_generators_can_be_listed_instead_of_two_sides():
    sides = [[SECOND, FIRST], [THIRD, SECOND]]
    changes = {"chosen": [], "rejected": [], "method": ["dpo", "sft"], "versus": [{"chosen": SECOND, "rejected": FIRST}]}
    loaded = study(pairs=sides, **changes)
    found = arms(loaded, "generator_delta")
    assert [(arm.method, arm.chosen, arm.rejected) for arm in found] == [(m, *pair) for m in ("dpo", "sft") for pair in sides]
    compared = [[(c.chosen, c.rejected) for c in controls(loaded, "generator_delta", arm)] for arm in found]
    assert compared == [[], [(SECOND, FIRST)]] * 2
    experiment = loaded.experiments["generator_delta"]
    assert [label(experiment, arm) for arm in found][1] == f"dpo, {THIRD} over {SECOND}"


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ({"pairs": [[SECOND, FIRST]]}, "either `chosen` and `rejected`, or `pairs`"),
        ({"chosen": []}, "either `chosen` and `rejected`, or `pairs`"),
        ({"chosen": [], "rejected": [], "pairs": [[FIRST, FIRST]]}, f"pairs: '{FIRST}' is named twice"),
        ({"chosen": [], "rejected": [], "pairs": [[SECOND, FIRST]] * 2}, f"'{SECOND} over {FIRST}' is named twice"),
        ({"chosen": [], "rejected": [], "pairs": [["gwen", FIRST]]}, "pairs: 'gwen' is unknown"),
        ({"figure": "crossed"}, "a crossed experiment has at least two pairs of generators, and two selections"),
    ],
)
def test_sides_that_make_no_arms_are_told(experiment, words):
    with pytest.raises(ConfigError) as error:
        study(versus=[], **experiment)
    assert words in str(error.value)


def test_margins_need_a_method_with_a_reference():
    content = build.config(chosen=[SECOND], rejected=[FIRST], selection=["largest_margin-5-overall"], versus=[], method=["sft"])
    assert load_study(content).trained
    content["methods"] = {"sft": content["methods"]["sft"]}
    content["run"] = {}
    with pytest.raises(ConfigError, match="goes by stored references, but no method of this study has any"):
        load_study(content)


def test_what_an_experiment_does_not_state_is_the_first_of_the_study():
    loaded = study(versus=[])
    for arm in arms(loaded, "generator_delta"):
        assert arm.policy == loaded.policies[0]
        assert arm.method == next(iter(loaded.methods))
        assert arm.judge == next(iter(loaded.judges))


def test_random_gets_another_draw_for_every_seed_and_other_selections_stay():
    loaded = study(chosen=[SECOND], rejected=[FIRST], selection=["random5", "top5-overall", "random5-draw7"], seeds=3, versus=[])
    found = [(cell.selection, cell.seed) for cell in trained_cells(loaded)]
    random = [(f"random5-draw{seed}", seed) for seed in range(3)]
    assert found == random + [(name, seed) for name in ("top5-overall", "random5-draw7") for seed in range(3)]


def test_a_profile_trains_nothing():
    assert trained_cells(study(figure="profile")) == []


@pytest.mark.parametrize("word", ["generator", "chosen", "judge", "method", "policy", "model", "split", "experiment", "study"])
def test_an_unknown_name_in_a_path_is_answered_with_the_choices(word):
    loaded = study()
    with pytest.raises(ConfigError) as error:
        check_names(loaded, {word: "gwen"})
    for text in (word, "'gwen'", *loaded.choices(word)):
        assert text in str(error.value)


def test_a_malformed_selection_in_a_path_is_answered_with_the_grammar():
    with pytest.raises(ConfigError) as error:
        check_names(study(), {"judge": "oracle", "chosen": SECOND, "rejected": FIRST, "selection": "best5"})
    assert "'best5'" in str(error.value)
    assert GRAMMAR in str(error.value)


def test_a_pair_of_a_generator_with_itself_is_an_error():
    with pytest.raises(ConfigError, match=f"both '{FIRST}'"):
        check_names(study(), {"chosen": FIRST, "rejected": FIRST})


def test_right_names_pass():
    words = {"judge": "oracle", "chosen": SECOND, "rejected": FIRST, "selection": "top5-overall", "seed": "17"}
    check_names(study(), {"study": study().study, **words})


def test_the_schema_file_is_in_step_with_the_models_and_takes_the_studies():
    folder = build.CONFIG.parent
    written = json.loads((folder / "schema.json").read_text())
    assert written == schema(), "run `make schema`"
    for file in STUDIES:
        jsonschema.validate(yaml.safe_load(file.read_text()), written)


def test_the_page_of_keys_is_in_step_with_the_models_and_every_key_is_described():
    assert (build.CONFIG.parent / "README.md").read_text() == page(), "run `make schema`"
    told, pending = set(), [Study]
    while pending:
        model = pending.pop()
        told.add(model)
        for key, field in model.model_fields.items():
            assert field.description or key in ("kind", "backend"), f"{model.__name__}.{key} has no description"
            pending += [one for one in settings_within(field.annotation) if one not in told]
    assert len(told) > 20


def test_a_name_that_a_draw_takes_is_an_error():
    content = config()
    change(content, f"generators.{FIRST}.draws", 2)
    content["generators"][f"{FIRST}.draw1"] = content["generators"][FIRST]
    with pytest.raises(ConfigError, match=rf"{FIRST}.draw1' is the name of a draw"):
        load_study(content)


def test_a_wrong_generator_with_several_draws_is_told_once():
    content = config()
    content["generators"]["rung1"]["model"] = "rung9"
    with pytest.raises(ConfigError) as error:
        load_study(content)
    assert str(error.value).count("rung9") == 1


@pytest.mark.parametrize("generator", [None, 7, "policy", ["policy"]])
def test_a_generator_that_is_no_mapping_is_told(generator):
    wrong = config()
    wrong["generators"][FIRST] = generator
    with pytest.raises(ConfigError, match=f"generators.{FIRST}: "):
        load_study(wrong)
