"""Rubrics by configuration: what a judge rates, from the words that it is asked in to what is made of its ratings."""

import copy
import json
import zlib
from functools import partial
from pathlib import Path

import build
import polars as pl
import pytest
from loopback import completion, server

from prefdelta.audit.balance import Balance, plot_balance, tabulate_balance
from prefdelta.audit.coverage import tabulate_coverage
from prefdelta.audit.delta_correction import DeltaCorrection, tabulate_delta_correction
from prefdelta.audit.judge_audit import JudgeAudit, tabulate_judge_audit
from prefdelta.audit.judge_audit_figure import plot_judge_audit
from prefdelta.configure.load import load_study
from prefdelta.endpoint.answers import Choice
from prefdelta.findings.experiment import Results
from prefdelta.findings.generator_deltas import GeneratorDeltas, tabulate_generator_deltas
from prefdelta.findings.profile import plot_profile, tabulate_profile
from prefdelta.judge import rubric
from prefdelta.judge.labels import LabelsError, read_labels
from prefdelta.judge.ratings import rate_traces
from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.pairs.build import build_pairs
from prefdelta.plan import audits, findings, pairs
from prefdelta.report.browse import browse_pairs
from prefdelta.run.errors import ConfigError
from prefdelta.run.job import bind
from prefdelta.study import paths
from prefdelta.study.dimensions import DIMENSIONS, PAPER, THE_FIVE, Dimension, Rubric
from prefdelta.study.judges import Judge
from prefdelta.study.lattice import check_names, trained_cells
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.tables.check import TableError
from prefdelta.tables.io import read_dimensions, read_result_csv, read_table, write_table
from prefdelta.tables.stages import Pairs, Ratings, Traces

TWO, FILE = Rubric.model_validate(build.TWO), build.CONFIG.parent / "rubrics" / "paper.yaml"
ASKED = {"kind": "url", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "KEY"}
LABELS = {"kind": "file", "path": "labels.csv"}


def config(endpoint=ASKED, experiment=(), **judge):
    """The default study with a second judge, ``checker``, who is its experiment's only one."""
    content = build.config(**{"judge": ["checker"], **dict(experiment)})
    content["judges"]["checker"] = {"model": "m", "endpoint": endpoint, **judge}
    return content


def changed(**changes):
    return {**copy.deepcopy(build.TWO), **changes}


# What a judge is asked, and how its answers are read


@pytest.mark.parametrize("asked", json.loads(Path(__file__).with_name("rubric_requests.json").read_text(encoding="utf-8")))
def test_the_papers_rubric_asks_byte_for_byte_as_stored_answers_were_asked(asked):
    traces = "a=7;a+3", "a)x+3 to 07=10;\n#10;"
    if step := asked.get("step"):
        assert rubric.step_messages(PAPER, *traces, tuple(step)) == asked["messages"]
    else:
        dimensions = tuple(asked["dimensions"])
        assert rubric.messages(PAPER, dimensions, *traces) == asked["messages"]
        assert json.dumps(rubric.response_format(PAPER, dimensions)) == json.dumps(asked["response_format"])


def test_the_file_to_copy_is_the_rubric_that_judges_have_by_default():
    study = load_study(config(rubric=str(FILE)))
    assert study.judges["checker"].rubric == study.judges["oracle"].rubric == PAPER
    assert PAPER.rated == THE_FIVE
    assert "rubric" not in study.judges["checker"].model_dump()  # so that jobs are what they were before there was a choice


def test_the_prompt_is_written_from_the_rubric():
    (system, _), schema = rubric.messages(TWO, TWO.rated.names, "1+1", "2"), rubric.response_format(TWO, TWO.rated.names)
    for words in ("in two dimensions, each with a whole level from 0 to 10.", "clarity: Is it clear?\n  0 = not at all\n  10 = "):
        assert words in system["content"]
    assert "Levels that are not described lie between their neighbours." in system["content"]  # not the same ones of each
    assert "wrong final answer" not in system["content"]
    (alone, _) = rubric.messages(TWO, ("correctness",), "1+1", "2")
    assert "Levels 1, 2, 3, 4, 6, 7, 8 and 9 lie between their neighbours." in alone["content"]
    properties = schema["json_schema"]["schema"]["properties"]
    assert list(properties.items()) == [(name, {"type": "integer", "enum": list(range(11))}) for name in TWO.rated.names]
    real = Rubric.model_validate(changed(numbers="real"))
    assert "each with a number from 0 to 10. " in rubric.messages(real, TWO.rated.names, "", "")[0]["content"]
    number = rubric.response_format(real, ("clarity",))["json_schema"]["schema"]["properties"]["clarity"]
    assert number == {"type": "number", "minimum": 0, "maximum": 10}


@pytest.mark.parametrize(
    ("written", "whole", "real"),
    [
        ("0", 0, 0),
        ("10", 10, 10),
        ("11", None, None),
        ("-1", None, None),
        ("7.5", None, 7.5),
        ("true", None, None),
        ("NaN", None, None),
    ],
)
def test_an_answer_is_read_on_the_rubrics_scale_and_what_is_off_it_is_missing(written, whole, real):
    answer = Choice(f'{{"clarity": {written}, "correctness": 3}}', finish_reason="stop")
    for numbers, expected, told in (("whole", whole, "no level from 0 to 10"), ("real", real, "no number from 0 to 10")):
        found = rubric.parse(Rubric.model_validate(changed(numbers=numbers)), TWO.rated.names, answer, "trace")
        assert found == ({"clarity": expected, "correctness": 3}, None if expected is not None else told)


def test_ratings_of_a_judge_with_two_dimensions_and_its_lowest_level_is_a_rating(tmp_path, asking):
    def judge(number, body):
        levels = {"clarity": 0, "correctness": 12 if "#1" in body["messages"][1]["content"] else 10}
        return completion(*[json.dumps(levels)] * body.get("n", 1))

    traces = build.traces(n_prompts=1, samples=2).with_columns(text=pl.Series(["#0;", "#1;"]))
    write_table(traces, Traces, tmp_path / "traces.parquet")
    with server(judge) as (endpoint, bodies):
        settings = RatingsSettings(judge="checker", settings=Judge(model="m", endpoint=endpoint, repeats=2, rubric=build.TWO))
        run = RatingsRun(requests=RequestsRun(concurrency=2, retries=1, timeout=10), model=ModelRun(gpus=0))
        files = tmp_path / "traces.parquet", None, None, tmp_path / "ratings.parquet"
        rate_traces(*files, settings=settings, run=run, threads=1, log_file=tmp_path / "log")
    assert bodies[0]["response_format"]["json_schema"]["schema"]["required"] == ["clarity", "correctness"]
    assert read_dimensions(tmp_path / "ratings.parquet") == TWO.rated
    ratings = read_table(tmp_path / "ratings.parquet", Ratings)
    assert ratings.schema["rating"] == pl.Int64
    assert ratings.filter(dimension="clarity")["rating"].to_list() == [0] * 4
    right = ratings.filter(dimension="correctness")
    assert right["rating"].to_list() == [10, 10, None, None]
    assert right["reason"].to_list() == [None, None, "no level from 0 to 10", "no level from 0 to 10"]


def test_labels_can_be_real_and_without_ends(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("trace_id;dimension;rating\na;reward;-3,25\nb;reward;41\n")
    free = Rubric(dimensions=[Dimension(name="reward")], scale=None, numbers="real").rated
    labels = read_labels(file, pl.Series(["a", "b"]), "people", free)
    assert dict(labels.select("trace_id", "rating").iter_rows()) == {"a": -3.25, "b": 41.0}
    write_table(labels, Ratings, tmp_path / "ratings.parquet", free)
    assert read_table(tmp_path / "ratings.parquet", Ratings).schema["rating"] == pl.Float64
    with pytest.raises(LabelsError, match=r"line 2: the dimension must be one of clarity, correctness"):
        read_labels(file, pl.Series(["a"]), "people", TWO.rated)
    file.write_text("trace_id,dimension,rating\na,clarity,7.5\n")
    with pytest.raises(LabelsError, match=r"line 2: the rating must be a level from 0 to 10"):
        read_labels(file, pl.Series(["a"]), "people", TWO.rated)


def test_a_table_is_refused_that_is_not_of_the_dimensions_that_it_says(tmp_path):
    pairs = build.pairs(4, rated=TWO.rated)
    with pytest.raises(TableError, match="column 'chosen_factuality': expected Float64, found none"):
        write_table(pairs, Pairs, tmp_path / "pairs.parquet")
    with pytest.raises(TableError, match="column 'chosen_clarity' fails check less_than_or_equal_to"):
        write_table(pairs.with_columns(chosen_clarity=pl.lit(10.5)), Pairs, tmp_path / "pairs.parquet", TWO.rated)


# What is refused before anything runs

ONE = {"name": "clarity", "question": "Is it?", "levels": {"0": "no", "10": "yes"}}
WRONG = {
    "micro-world": (
        {"kind": "microworld", "noise": 0.1},
        {"rubric": build.TWO},
        ["judges.checker", "oracle knows the paper's rubric only"],
    ),
    "model of ratings": (
        {"kind": "transformers", "model": "rater"},
        {"rubric": build.TWO},
        ["judges.checker.rubric", "'rater' has learned the paper's rubric only"],
    ),
    "twice": (ASKED, {"rubric": changed(dimensions=[ONE, ONE])}, ["judges.checker.rubric", "'clarity' is named twice"]),
    "another column": (ASKED, {"rubric": changed(dimensions=[ONE | {"name": "tokens"}])}, ["'tokens'", "choose another"]),
    "begins so": (ASKED, {"rubric": changed(dimensions=[ONE | {"name": "overall_form"}])}, ["'overall_form'", "choose another"]),
    "no name": (ASKED, {"rubric": changed(dimensions=[ONE | {"name": "Is clear"}])}, ["rubric.dimensions.0.name", "'Is clear'"]),
    "none": (ASKED, {"rubric": changed(dimensions=[])}, ["judges.checker.rubric.dimensions", "at least 1"]),
    "upside down": (
        ASKED,
        {"rubric": changed(scale=[10, 0])},
        ["judges.checker.rubric", "scale: the lowest rating stands first"],
    ),
    "too many": (ASKED, {"rubric": changed(scale=[0, 10**12])}, ["more than 1001 levels", "`numbers: real`"]),
    "halves": (ASKED, {"rubric": changed(scale=[0, 9.5])}, ["scale: whole ratings need", "`numbers: real`"]),
    "level off the scale": (
        ASKED,
        {"rubric": changed(dimensions=[ONE | {"levels": {"0": "no", "10": "yes", "11": "more"}}])},
        ["clarity: '11' is no level from 0 to 10"],
    ),
    "no question": (ASKED, {"rubric": changed(dimensions=[{"name": "clarity"}])}, ["clarity needs a `question`", '"0" and "10"']),
    "no scale": (ASKED, {"rubric": changed(scale=None, numbers="real")}, ["judges.checker", "a lowest and a highest rating"]),
    "step of another": (
        ASKED,
        {"rubric": changed(step=ONE | {"name": "pace"})},
        ["step: 'pace' is none of the dimensions clarity"],
    ),
    "no step": (
        ASKED,
        {"rubric": build.TWO, "step_coherence": "prefix"},
        ["judges.checker", "rubric.step must say in which words"],
    ),
    "unknown key": (ASKED, {"rubric": changed(scales=[0, 1])}, ["judges.checker.rubric.scales", "did you mean 'scale'?"]),
    "no file": (ASKED, {"rubric": "no-rubric.yaml"}, ["no-rubric.yaml can't be read"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_rubric_that_can_not_be_is_refused_with_key_and_what_to_do(what):
    endpoint, judge, words = WRONG[what]
    content = config(endpoint, **judge)
    shape = next(model for model in content["models"].values() if "start" not in model)
    content["models"]["rater"] = {**shape, "writes": "ratings"}
    with pytest.raises(ConfigError) as error:
        load_study(content)
    for word in words:
        assert word in str(error.value)


def test_what_is_wrong_in_a_file_with_a_rubric_is_told_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text('scale: [0, 1]\ndimensions:\n  - name: clarity\n    levels: {0: "no"}\n')
    with pytest.raises(ConfigError, match=r"mine.yaml, line 4: the key `dimensions.0.levels.0` was read as a number"):
        load_study(config(rubric=str(file)))


def test_a_criterion_that_a_judge_of_the_experiment_lacks_is_refused_with_the_nearest():
    experiment = {"selection": ["top5-clearity"], "versus": []}
    with pytest.raises(ConfigError) as error:
        load_study(config(rubric=build.TWO, experiment=experiment))
    assert str(error.value) == (
        "experiments.generator_delta.selection: 'top5-clearity' goes by 'clearity', which the judge checker does not rate; "
        "choose from clarity, correctness, overall (did you mean 'clarity'?)"
    )


def test_one_of_several_judges_that_lacks_a_criterion_is_enough_and_so_is_a_path():
    both = {"selection": ["top5-clarity"], "judge": ["checker", "oracle"], "versus": []}
    with pytest.raises(ConfigError, match="goes by 'clarity', which the judge oracle does not rate"):
        load_study(config(rubric=build.TWO, experiment=both))
    study = load_study(config(rubric=build.TWO))
    check_names(study, {"judge": "checker", "selection": "top5-clarity"})
    with pytest.raises(ConfigError, match="which the judge checker does not rate"):
        check_names(study, {"judge": "checker", "selection": "top5-factuality"})


def test_labels_need_names_only():
    rubric = {"scale": None, "numbers": "real", "dimensions": [{"name": "reward"}]}
    assert load_study(config(LABELS, rubric=rubric)).judges["checker"].rubric.rated.criteria == ("reward", "overall")


# From ratings to tables and figures, by two judges of one study


def rated(traces, names, low, high):
    """Two ratings of each trace and dimension, from ``low`` to ``high``, which follow from the ids."""

    def levels(trace_id, name):
        drawn = zlib.crc32(f"{trace_id} {name}".encode())
        first = drawn % (high - low + 1) + low
        return [first, min(high, first + drawn // 100 % 2)]

    return build.ratings(traces, levels, names)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study's ratings by its judges, ``oracle`` with the paper's rubric and ``checker`` with another, and what is made of them.

    Yields the study and ``make(plan, stage, words, **outputs)``, which runs a job as its rule does, and returns the first output.
    """
    folder = tmp_path_factory.mktemp("study")
    words = {
        "title": "t",
        "question": "q?",
        "caveat": "c",
        "chosen": ["high"],
        "rejected": ["low"],
        "seeds": 1,
        "method": ["sft"],
    }
    selections = ["full", "top5-clarity", "bottom5-correctness-within_length", "min1-clarity", "best_over_worst-5-clarity"]
    both = {**words, "figure": "bars", "judge": ["oracle", "checker"], "selection": ["full", "top5-overall"]}
    content = config(rubric=build.TWO, repeats=2)
    content |= {
        "generators": {name: {"model": "rung0"} for name in ("high", "low")},
        "reference_judge": "oracle",
        "experiments": {
            "both": both | {"versus": [{"judge": "oracle"}]},
            "checked": {
                **words,
                "figure": "bars",
                "judge": ["checker"],
                "selection": selections,
                "versus": [{"selection": "full"}],
            },
            "shape": {**words, "figure": "profile", "judge": ["oracle", "checker"]},
        },
    }
    study = load_study(content)

    def make(plan, stage, words=(), **outputs):
        job = plan(study, {"study": study.study, **dict(words)})
        stage(**bind(stage, job.files, outputs, {"content": job.content, "run": job.run_settings}, {}))
        return Path(next(iter(outputs.values())))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in study.generators:
            traces = build.traces(name, n_prompts=12, samples=2)
            for pattern, table, model, of in (
                (paths.TRACES, traces, Traces, THE_FIVE),
                (partial(paths.RATINGS.format, judge="oracle"), rated(traces, DIMENSIONS, 1, 5), Ratings, THE_FIVE),
                (partial(paths.RATINGS.format, judge="checker"), rated(traces, TWO.rated.names, 0, 10), Ratings, TWO.rated),
            ):
                file = Path((pattern.format if isinstance(pattern, str) else pattern)(study=study.study, generator=name))
                file.parent.mkdir(parents=True, exist_ok=True)
                write_table(table, model, file, of)
        for cell in trained_cells(study):
            file = Path(pairs.pair_file(study, cell.pairs))
            file.parent.mkdir(parents=True, exist_ok=True)
            make(pairs.build_pairs, build_pairs, vars(cell.pairs), pairs=str(file))
        yield study, make


def pair_table(study, selection, judge="checker"):
    (found,) = {cell.pairs for cell in trained_cells(study) if (cell.judge, cell.selection) == (judge, selection)}
    return Path(pairs.pair_file(study, found))


def test_pairs_have_the_means_and_deltas_of_their_judges_dimensions(made):
    study, _ = made
    full = read_table(pair_table(study, "full"), Pairs)
    assert read_dimensions(pair_table(study, "full")) == TWO.rated
    criteria = [name.removeprefix("delta_") for name in full.columns if name.startswith("delta_")]
    assert criteria == ["clarity", "correctness", "overall"]
    assert len(full) == 24 and full["chosen_clarity"].max() > 5
    for side in ("chosen", "rejected"):
        assert (
            full[f"{side}_overall"] - full.select(pl.mean_horizontal(f"{side}_clarity", f"{side}_correctness")).to_series()
        ).abs().max() < 1e-9
    oracle = read_table(pair_table(study, "full", "oracle"), Pairs)
    assert "delta_factuality" in oracle.columns and "delta_clarity" not in oracle.columns


def test_selections_go_by_a_dimension_of_the_judge(made):
    study, _ = made
    full, top = (read_table(pair_table(study, name), Pairs) for name in ("full", "top5-clarity"))
    assert sorted(top["delta_clarity"]) == sorted(full["delta_clarity"])[-5:]
    assert read_table(pair_table(study, "min1-clarity"), Pairs)["delta_clarity"].min() >= 1
    assert len(read_table(pair_table(study, "bottom5-correctness-within_length"), Pairs)) == 5
    assert (read_table(pair_table(study, "best_over_worst-5-clarity"), Pairs)["delta_clarity"] > 0).all()


def test_balance_compares_the_ratings_that_both_judges_give(made):
    _, make = made
    file = make(audits.tabulate_balance, tabulate_balance, table="balance.csv")
    table = read_result_csv(file, Balance)
    levels = table.filter(unit="levels")
    by_experiment = {name: set(rows["covariate"]) for (name,), rows in levels.group_by("experiment")}
    sides = ("chosen", "rejected", "delta")
    assert by_experiment["checked"] == {f"{side}_{name}" for side in sides for name in ("clarity", "correctness", "overall")}
    assert by_experiment["both"] == {f"{side}_overall" for side in sides}
    plot_balance(file, Path("balance.png"))
    assert Path("balance.png").stat().st_size


def test_the_audit_has_each_judges_dimensions_and_compares_what_can_be(made):
    study, make = made
    file = make(audits.tabulate_judge_audit, tabulate_judge_audit, table="judge_audit.csv")
    table = read_result_csv(file, JudgeAudit).filter(pl.col("generator").is_null())
    checker = table.filter(judge="checker")
    assert set(checker["dimension"]) == {"clarity", "correctness", "overall"}
    assert set(table.filter(judge="oracle")["dimension"]) == set(THE_FIVE.criteria)
    shares = checker.filter(pl.col("statistic").str.starts_with("share_of_"), dimension="clarity")
    assert shares["statistic"].to_list() == [f"share_of_{level}" for level in range(11)]
    assert shares["estimate"].sum() == pytest.approx(1)
    # Two scales: ranks can be compared, of what both rate; levels can not.
    ranks = checker.filter(statistic="spearman").drop_nulls("estimate")
    assert ranks["dimension"].to_list() == ["overall"]
    assert checker.filter(pl.col("statistic").is_in(["kappa", "bias", "length_bias"])).is_empty()
    assert not checker.filter(statistic="icc", dimension="clarity")["estimate"].has_nulls()
    plot_judge_audit(file, Path("judge_audit.png"), settings=audits.plot_judge_audit(study, {}).settings)
    assert "**checker**: with 2 ratings" in Path("judge_audit.rst").read_text()


def test_corrected_deltas_are_of_the_selections_criterion_and_of_the_reference_where_it_rates_that(made):
    _, make = made
    table = read_result_csv(
        make(audits.tabulate_delta_correction, tabulate_delta_correction, table="delta_correction.csv"), DeltaCorrection
    )
    rows = {(row["judge"], row["selection"]): row for row in table.iter_rows(named=True)}
    top = rows["checker", "top5-clarity"]
    assert top["criterion"] == "clarity" and abs(top["judged"]) > 4 and top["reference_judge"] is None
    assert rows["checker", "top5-overall"]["reference_judge_scaled"] is not None


def test_other_tables_and_pages_follow_the_judges(made):
    study, make = made
    coverage = pl.read_csv(make(audits.tabulate_coverage, tabulate_coverage, table="coverage.csv"))
    asked = coverage.filter(judge="checker", generator="low").select("dimension", "n_asked").rows()
    assert asked == [("clarity", 48), ("correctness", 48)]
    deltas = read_result_csv(
        make(findings.tabulate_generator_deltas, tabulate_generator_deltas, table="deltas.csv"), GeneratorDeltas
    )
    quantities = {judge: rows["quantity"].unique(maintain_order=True).to_list() for (judge,), rows in deltas.group_by("judge")}
    assert quantities == {"checker": ["accuracy", *TWO.rated.criteria], "oracle": ["accuracy", *THE_FIVE.criteria]}
    shape = make(findings.tabulate_profile, tabulate_profile, {"experiment": "shape"}, table="shape.csv")
    assert read_result_csv(shape, Results).filter(judge="checker")["dimension"].to_list() == list(TWO.rated.criteria)
    job = findings.plot_profile(study, {"experiment": "shape"})
    plot_profile(shape, {arm: Path(file) for arm, file in job.inputs["pairs"].items()}, Path("shape.png"), settings=job.settings)
    assert "clarity +" in (said := Path("shape.rst").read_text()) or "clarity -" in said
    browse_pairs(pair_table(study, "full"), Path("page.html"))
    assert '<th class="sortable">correctness</th>' in (page := Path("page.html").read_text()) and "factuality" not in page
