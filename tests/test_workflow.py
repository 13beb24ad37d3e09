"""The whole workflow on the smoke study, for real: from nothing, again, after edits, with bad input, and killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import build
import polars as pl
import pytest
import yaml

from prefdelta.findings.experiment import Results
from prefdelta.findings.recipes import Recipes
from prefdelta.tables.checksum import seal_parquet
from prefdelta.tables.io import read_result_csv, sink_batches

REPOSITORY = Path(__file__).parent.parent
RESULTS = Path("results/smoke")
CELL = "policy/dpo/oracle/qwen-l_vs_qwen-s/full/seed0"


class Study:
    """A copy of the repository in which the smoke study has run."""

    def __init__(self, folder):
        self.folder = folder
        kept = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY, folder, ignore=kept, dirs_exist_ok=True)
        self.reads = folder / "reads"
        self.reads.mkdir()
        code = os.pathsep.join([str(folder / "workflow"), str(folder / "tests" / "recorder")])
        self.environment = {**os.environ, "PYTHONPATH": code, "PREFDELTA_READS": str(self.reads)}
        self.environment.pop("PREFDELTA_STORE", None)

    def command(self, *arguments, config="config/smoke.yaml"):
        return [sys.executable, "-m", "snakemake", "--configfile", config, "--cores", "2", *arguments]

    def snakemake(self, *arguments, config="config/smoke.yaml", succeeds=True):
        """Runs Snakemake and returns what it printed."""
        result = subprocess.run(
            self.command(*arguments, config=config), cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        output = result.stdout + result.stderr
        assert (result.returncode == 0) == succeeds, output[-6000:]
        return output

    def planned(self, *arguments, **options):
        """Rule -> number of jobs that a dry run plans."""
        output = self.snakemake("--dry-run", *arguments, **options)
        if "Nothing to be done" in output:
            return {}
        stats = output.rpartition("Job stats:")[2].partition("total")[0]
        return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    smoke = Study(tmp_path_factory.mktemp("workflow"))
    smoke.snakemake()
    return smoke


def test_everything_appears_from_nothing(study):
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    results = study.folder / RESULTS
    for experiment, settings in config["experiments"].items():
        for suffix in ("csv", "md", "tex"):
            assert (results / f"tables/{experiment}.{suffix}").stat().st_size > 0
        for suffix in ("png", "svg", "pdf"):
            assert (results / f"figures/{experiment}.{suffix}").stat().st_size > 0
        model = Recipes if settings["figure"] == "recipes" else Results
        table = read_result_csv(results / f"tables/{experiment}.csv", model)
        assert set(table["experiment"]) == {experiment}
    report = (results / "report.html").read_text()
    for experiment in config["experiments"]:
        assert experiment in report
    assert "How results were made" in report
    assert not list(results.rglob(".*-*")), "temporary files are left"


def test_result_tables_compare_with_base_and_control(study):
    table = read_result_csv(study.folder / RESULTS / "tables/generator_delta.csv", Results)
    zero_delta = "qwen-s-again over qwen-s"
    assert {"base", zero_delta} <= set(table["versus"].drop_nulls())
    for rows in table.partition_by("suite", "task", "decoding"):
        own = rows.filter(pl.col("versus").is_null())
        accuracy = dict(own.select("arm", "estimate").iter_rows())
        differences = rows.filter(versus=zero_delta)
        for arm, estimate in differences.select("arm", "estimate").iter_rows():
            assert estimate == pytest.approx(accuracy[arm] - accuracy[zero_delta])


def test_checkpoint_is_a_plain_folder_and_trained_from_stored_references(study):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = study.folder / RESULTS / "models" / CELL
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["losses"][0] == pytest.approx(0.693147, abs=1e-4)
    assert manifest["losses"][-1] < manifest["losses"][0]
    assert {"README.md", "model.safetensors", "config.json"} <= set(manifest["files"])
    assert manifest["n_steps"] == len(manifest["losses"])


def test_arms_have_equal_steps(study):
    made = [json.loads(path.read_text()) for path in (study.folder / RESULTS / "models/policy/dpo").rglob("manifest.json")]
    assert len({manifest["n_steps"] for manifest in made}) == 1
    assert len({manifest["n_pairs"] for manifest in made}) > 1


def test_second_run_does_nothing(study):
    assert study.planned() == {}


def test_a_stage_reads_no_result_that_its_rule_does_not_declare(study):
    """A job is known by the log that it writes; of a folder with a manifest, the manifest is what rules declare."""
    declared = {}
    for file in study.folder.glob(".snakemake/metadata/**/*"):
        if file.is_file():
            record = json.loads(file.read_text())
            declared.setdefault(record["log"][0], set()).update(record["input"])
    checked = 0
    for file in study.reads.iterdir():
        lines = [line.partition(" ") for line in file.read_text().splitlines()]
        logs = [name for kind, _, name in lines if kind == "w" and name in declared]
        if not logs or "--report" in file.read_text():
            continue  # a process of Snakemake's own, or of a server
        written = {name for kind, _, name in lines if kind == "w"}
        for kind, _, name in lines:
            known = declared[logs[0]] | written
            folders = [each for each in known if each.endswith("manifest.json") or (each in written and "/models/" in each)]
            own = any(Path(name).is_relative_to(Path(each).parent) for each in folders)
            name = name.removesuffix(".sha256") + ".csv" if name.endswith(".sha256") else name  # the checksum of a table
            notes = name.split("/")[2] in ("records", "logs", "accepted.jsonl")
            assert kind == "w" or name in known or own or notes or not Path(study.folder, name).is_file(), (logs[0], name)
            checked += kind == "r"
    assert checked > 300


def changed(study, module, old, new):
    """Rule -> number of jobs that are planned after an edit of the package, which is taken back."""
    file = study.folder / "workflow/prefdelta" / module
    source = file.read_text()
    assert old in source
    try:
        file.write_text(source.replace(old, new, 1))
        return study.planned()
    finally:
        file.write_text(source)


def test_an_edit_reruns_what_reaches_the_edited_definition(study):
    assert changed(study, "audit/coverage.py", "\n\n", "\n# a comment\n\n") == {}
    assert changed(study, "findings/experiment.py", "\n\n\n", "\n\n\nUNUSED = 1\n\n\n") == {}
    column = changed(study, "audit/coverage.py", "    reasons: str\n", "    reasons: str\n    more: str\n")
    assert set(column) == {"tabulate_coverage", "render_report", "all"}
    served = changed(study, "microworld/server.py", "if rng.random() < unparsable", "if rng.random() <= unparsable")
    assert {"rate_traces", "build_pairs", "train_policy"} <= set(served)
    assert not {"pretrain_model", "sample_traces", "compute_reference", "evaluate_base"} & set(served)


def test_how_a_machine_makes_results_reruns_nothing(study):
    settings = "run={batch_size: 7, methods: {dpo: {micro_batch: 8}}, judges: {oracle: {concurrency: 2, retries: 1}}}"
    assert study.planned("--config", settings) == {}


def test_a_method_a_judge_and_a_generator_that_no_arm_uses_rerun_no_stage(study):
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    config["methods"]["short"] = config["methods"]["dpo"] | {"max_length": 64, "bf16": True}
    config["judges"]["another"] = config["judges"]["exact"]
    (study.folder / "config/more.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert study.planned(config="config/more.yaml") == {}


def test_local_data_are_inputs_by_content(study):
    labels = study.folder / "labels.csv"
    trace = pl.read_parquet(study.folder / RESULTS / "traces/qwen-l.parquet")["trace_id"][0]
    rows = [f"{trace},{name},3" for name in ("factuality", "strategy_coherence", "step_coherence")]
    labels.write_text("\n".join(["trace_id,dimension,rating", *rows]))
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    config["judges"]["people"] = {"model": "people", "endpoint": {"kind": "file", "path": "labels.csv"}}
    (study.folder / "config/labelled.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    target = str(RESULTS / "ratings/people/qwen-l.parquet")
    study.snakemake(target, config="config/labelled.yaml")
    labels.touch()
    assert study.planned(target, config="config/labelled.yaml") == {}
    labels.write_text(labels.read_text().replace(",3", ",4", 1))
    assert study.planned(target, config="config/labelled.yaml") == {"rate_traces": 1}


def test_records_say_what_results_were_made_with(study):
    record = json.loads((study.folder / RESULTS / f"records/models/{CELL}.json").read_text())
    assert record["rule"] == "train_policy"
    assert {"torch", "transformers", "trl", "python"} <= set(record["versions"])
    assert record["run"]["training"]["checkpoint_steps"] == 3
    manifest = json.loads((study.folder / RESULTS / "models" / CELL / "manifest.json").read_text())
    assert manifest["run"]["checkpoint_steps"] == 3
    assert "checkpoint_steps" not in manifest["recipe"]


def test_changed_beta_reruns_training_and_what_follows(study):
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    config["methods"]["kto"]["beta"] = 0.7
    changed = study.folder / "config/changed.yaml"
    changed.write_text(yaml.safe_dump(config, sort_keys=False))
    planned = study.planned(config="config/changed.yaml")
    assert planned["train_policy"] == planned["evaluate_checkpoint"] == planned["measure_checkpoint"] == 1
    follow = {f"{verb}_{kind}" for kind in ("experiment", "prediction", "sharpening") for verb in ("tabulate", "plot")}
    follow |= {"tabulate_claims", "render_answers", "render_report", "all"}
    assert set(planned) - {"train_policy", "evaluate_checkpoint", "measure_checkpoint"} == follow


def test_what_if_takes_no_training(study):
    planned = study.planned("--forceall", "--", str(RESULTS / "figures/whatif.png"))
    assert planned["tabulate_whatif"] == planned["tabulate_overlap"] == 1
    assert planned["build_pairs"] > 1
    assert not {"train_policy", "evaluate_checkpoint"} & set(planned)


def test_another_studys_predictor_is_read_and_not_made(study):
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    config["predictor"] = "results/other/tables/predictor.json"
    (study.folder / "config/predicted.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    predictor = study.folder / config["predictor"]
    predictor.parent.mkdir(parents=True)
    build.predictor(predictor)
    assert study.planned(str(RESULTS / "tables/whatif.csv"), config="config/predicted.yaml") == {"tabulate_whatif": 1}


def test_another_gate_trains_nothing_again_but_stops_what_is_not_trained_yet(study):
    config = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    config["gates"] = {"judge_coverage": 1.0}
    changed = study.folder / "config/changed.yaml"
    changed.write_text(yaml.safe_dump(config, sort_keys=False))
    assert "train_policy" not in study.planned(config="config/changed.yaml")
    cell = CELL.replace("full", "top22-overall")
    output = study.snakemake(str(RESULTS / "models" / cell / "manifest.json"), config="config/changed.yaml", succeeds=False)
    assert re.search(r"ratings of generator qwen-\w+ are readable, below gates.judge_coverage 1.0: see the column", output)
    assert not (study.folder / RESULTS / "models" / cell / "manifest.json").exists()


def test_any_cell_can_be_requested(study):
    target = RESULTS / "evals" / CELL.replace("full", "top20-factuality").replace("seed0", "seed7.parquet")
    planned = study.planned(str(target))
    assert planned == {"build_pairs": 1, "train_policy": 1, "evaluate_checkpoint": 1}


def test_a_cell_is_exported_with_and_without_a_trailing_slash(study):
    target = RESULTS / "export" / CELL
    assert study.planned(f"{target}/") == study.planned(str(target)) == {"export_cell": 1}
    study.snakemake(f"{target}/")
    folder = study.folder / target
    assert {path.name for path in folder.iterdir()} - {".snakemake_timestamp"} == {"dataset", "model"}
    assert "qwen-l" in (folder / "dataset" / "README.md").read_text()
    assert study.planned(str(target)) == {}


def test_a_killed_judge_goes_on_from_the_store_and_leaves_no_server(study):
    ratings = RESULTS / "ratings/oracle/qwen-l.parquet"
    before = pl.read_parquet(study.folder / ratings)
    shutil.rmtree(study.folder / "store")
    run = subprocess.Popen(
        study.command("--forcerun", "rate_traces", "--", str(ratings)),
        cwd=study.folder,
        env=study.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers():
        return [line for file in study.folder.glob("store/*/*.jsonl") for line in file.read_bytes().splitlines()]

    def servers():
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if b"prefdelta.microworld.server" in file.read_bytes():
                    found += [file.parent.name] if Path(file.parent, "cwd").resolve() == study.folder.resolve() else []
        return found

    try:
        wait_for(lambda: len(answers()) > 20)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    wait_for(lambda: not servers(), patience=20)
    assert not (study.folder / ratings).exists()
    known = {line for line in answers() if line.endswith(b"}")}
    study.snakemake("--unlock")
    study.snakemake(str(ratings))
    assert known <= set(answers()), "an answer was lost"
    assert len({json.loads(line)["key"] for line in answers()}) == len(answers()), "something was asked twice"
    assert pl.read_parquet(study.folder / ratings).equals(before)


@pytest.mark.parametrize("name", ["paper", "small"])
def test_the_studies_of_real_models_plan_without_a_network_or_a_gpu(study, name):
    config = f"config/{name}.yaml"
    experiments = yaml.safe_load((study.folder / config).read_text())["experiments"]
    planned = study.planned(config=config)
    assert planned["plot_experiment"] + planned["plot_profile"] == len(experiments)
    assert planned["train_policy"] == planned["evaluate_checkpoint"] > 50
    assert planned["fetch_model"] >= 6
    assert "pretrain_model" not in planned


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("qwen-l_vs", "qwen-xxl_vs", "unknown chosen 'qwen-xxl'"),
        ("full", "tip5-overall", "top{k}-{criterion}"),
        ("full", "top100000-overall", "asks for 100000 pairs"),
        ("dpo", "ppo", "choose from dpo, kto, sft"),
        ("smoke", "smoky", "unknown study 'smoky'"),
    ],
)
def test_names_off_the_grid_fail_with_a_clear_message(study, name, wrong, message):
    target = str(RESULTS / "models" / CELL / "manifest.json").replace(name, wrong)
    assert message in study.snakemake("--dry-run", target, succeeds=False)


def test_bad_configuration_fails_before_any_job(study):
    source = (study.folder / "config/smoke.yaml").read_text()
    (study.folder / "config/bad.yaml").write_text(source.replace("{model: qwen-l,", "{model: qwen-xxl,"))
    output = study.snakemake(config="config/bad.yaml", succeeds=False)
    assert "generators.qwen-l.model: 'qwen-xxl' is unknown; choose from" in output
    assert "rule " not in output
    assert "Traceback" not in output


def test_corrupted_table_is_refused_with_column_and_check(study):
    ratings = study.folder / RESULTS / "ratings/oracle/qwen-l.parquet"
    whole = ratings.read_bytes()
    target = str(RESULTS / "pairs/oracle/qwen-l_vs_qwen-s/top21-overall.parquet")
    try:
        sink_batches([pl.read_parquet(ratings).with_columns(rating=pl.col("rating") + 3)], ratings)
        seal_parquet(ratings)
        output = study.snakemake(target, succeeds=False)
        assert "qwen-l.parquet breaks the Ratings model" in output
        assert "column 'rating' fails check less_than_or_equal_to(5)" in output
        ratings.write_bytes(whole[: len(whole) // 2])
        assert "qwen-l.parquet can't be trusted as a table" in study.snakemake(target, succeeds=False)
        assert not ratings.exists()  # so that the same command makes it again
    finally:
        ratings.write_bytes(whole)
    assert not (study.folder / target).exists()


def test_killed_training_leaves_no_target_and_resumes_to_the_same_weights(study):
    folder = study.folder / RESULTS / "models" / CELL
    manifest = folder / "manifest.json"
    before = json.loads(manifest.read_text())
    run = subprocess.Popen(
        study.command("--forcerun", "train_policy", "--", str(manifest.relative_to(study.folder))),
        cwd=study.folder,
        env=study.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: list(folder.glob(".trainer/checkpoint-*/manifest.json")))
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not manifest.exists()
    study.snakemake(str(manifest.relative_to(study.folder)))
    assert "going on from" in (study.folder / RESULTS / f"logs/models/{CELL}.log").read_text()
    after = json.loads(manifest.read_text())
    assert after["files"]["model.safetensors"] == before["files"]["model.safetensors"]
    assert after["losses"] == before["losses"]


def wait_for(condition, patience=120):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
