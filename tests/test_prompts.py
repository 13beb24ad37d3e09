"""The problems of each split."""

import signal

import polars as pl
import pytest

from prefdelta.audit.decontamination import Decontamination, tabulate_decontamination
from prefdelta.generate.prompts import PromptsError, make_items, make_prompts
from prefdelta.generate.settings import ItemsSettings, PromptsSettings
from prefdelta.microworld.problems import held_out, parse
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.sources import BenchmarkSource, CorpusSource
from prefdelta.tables.io import read_result_csv, read_table, rows_to_table, write_table
from prefdelta.tables.stages import Dropped, Prompts

TASKS = {"arithmetic": 60, "program": 40, "story": 50}


def prompts(path, split="train", seed=0, tasks=TASKS, operations=(2, 4)):
    if split != "train":
        suite(path, tasks, operations, seed, split)
        return read_table(path / f"{split}.parquet", Prompts)
    suite(path, {"arithmetic": 1}, (8, 8), seed)
    training(path, tasks, operations, seed)
    assert read_table(path / "dropped.parquet", Dropped).is_empty()
    return read_table(path / "p.parquet", Prompts)


def suite(path, tasks, operations=None, seed=0, split="suite"):
    """Writes the items of ``split``."""
    settings = ItemsSettings(split=split, tasks=tasks, operations=operations, seed=seed)
    make_items([], path / f"{split}.parquet", settings=settings)


def training(path, tasks, operations=None, seed=0):
    """Writes p.parquet and dropped.parquet, for the items of suite.parquet."""
    settings = PromptsSettings(tasks=tasks, operations=operations, seed=seed, ngram=8)
    make_prompts([path / "suite.parquet"], [], path / "p.parquet", path / "dropped.parquet", settings=settings)


@pytest.mark.parametrize("split", ["train", "in_domain"])
def test_there_are_as_many_distinct_prompts_of_each_task_as_asked(tmp_path, split):
    made = prompts(tmp_path, split)
    assert dict(made["task"].value_counts().iter_rows()) == TASKS
    assert made["prompt"].n_unique() == made["prompt_id"].n_unique() == len(made)
    assert made["split"].unique().to_list() == [split]


def test_answer_and_task_are_those_of_the_problem(tmp_path):
    for row in prompts(tmp_path).iter_rows(named=True):
        problem = parse(row["prompt"])
        assert (problem.domain, problem.answer) == (row["task"], row["answer"])


def test_operations_lie_between_fewest_and_most(tmp_path):
    lengths = {len(parse(prompt).operations) for prompt in prompts(tmp_path, operations=(2, 4))["prompt"]}
    assert lengths == {2, 3, 4}


@pytest.mark.parametrize("seed", range(3))
def test_training_and_evaluation_share_no_prompt(tmp_path, seed):
    # Problems of two operations are few, so splits that did not look at each other would meet.
    train, evaluation = (prompts(tmp_path, split, seed, operations=(2, 2)) for split in ("train", "in_domain"))
    assert not set(train["prompt"]) & set(evaluation["prompt"])
    assert not any(map(held_out, train["prompt"]))
    assert all(map(held_out, evaluation["prompt"]))


def test_a_seed_decides_the_prompts(tmp_path):
    first, again, other = prompts(tmp_path), prompts(tmp_path), prompts(tmp_path, seed=1)
    assert first.equals(again)
    assert set(first["prompt"]) != set(other["prompt"])


def test_a_task_has_the_same_prompts_whatever_other_tasks_there_are(tmp_path):
    alone = prompts(tmp_path, tasks={"story": 50})
    assert prompts(tmp_path).filter(pl.col("task") == "story").equals(alone)


def test_more_prompts_than_there_are_problems_are_refused_rather_than_sought_for_ever(tmp_path):
    def give_up(*_):
        pytest.fail("make_prompts goes on for ever")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(PrefdeltaError, match="arithmetic"):
            prompts(tmp_path, tasks={"arithmetic": 5000}, operations=(1, 1))  # there are 10 x 3 x 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_stories_share_words_with_evaluation_items_and_stay(tmp_path):
    # A story has few words, so most share eight in a row with some item.
    suite(tmp_path, {"story": 200}, (4, 4))
    training(tmp_path, {"story": 300}, (4, 4))
    assert len(read_table(tmp_path / "p.parquet", Prompts)) == 300


SUBJECTS = ("ants", "bees", "cats", "dogs", "eels", "foxes", "goats", "hares")
QUESTIONS = [f"How many legs do {n + 2} {name} and one spider have together, counted twice?" for n, name in enumerate(SUBJECTS)]
ITEM = "A farmer sells 7 cows on Monday and 5 cows on Tuesday. How many cows has he sold?"
LEAKED = f"Solve. {ITEM} Explain."  # a training problem that holds the item


def corpus(folder, questions, n):
    """A source in OpenR1-Math-220k's schema, as far as it is read."""
    pl.DataFrame({"problem": questions, "answer": "7", "question_type": "math-word-problem"}).write_parquet(
        folder / "corpus.parquet"
    )
    return {"openr1": CorpusSource(repo=str(folder / "corpus.parquet"), n=n, min_characters=20, max_characters=200)}


def from_data_sets(folder, questions, n):
    """Items of a set in GSM8K's schema, the prompts of `corpus`, and what was left out."""
    items = pl.DataFrame({"question": [ITEM], "answer": ["He sold 7 + 5 = 12.\n#### 12"]})
    items.write_parquet(folder / "items.parquet")
    suite(folder, {"gsm8k": BenchmarkSource(repo=str(folder / "items.parquet"))})
    training(folder, corpus(folder, questions, n))
    return read_table(folder / "p.parquet", Prompts), read_table(folder / "dropped.parquet", Dropped)


def test_items_and_prompts_of_data_sets_are_tables_of_their_split(tmp_path):
    made, _ = from_data_sets(tmp_path, QUESTIONS, 8)
    items = read_table(tmp_path / "suite.parquet", Prompts)
    assert (items["split"].to_list(), items["task"].to_list(), items["answer"].to_list()) == (["suite"], ["gsm8k"], ["12"])
    assert (set(made["split"]), set(made["task"]), set(made["answer"])) == ({"train"}, {"openr1"}, {"7"})
    assert len(made) == 8


def test_a_prompt_that_holds_an_evaluation_item_is_left_out_and_counted_with_the_unfit_ones(tmp_path):
    unfit = ["Short?", QUESTIONS[0].upper()]
    made, dropped = from_data_sets(tmp_path, [*QUESTIONS, LEAKED, *unfit], 8)
    assert not any(ITEM in prompt for prompt in made["prompt"])
    (leak,) = dropped.filter(reason="overlap").iter_rows(named=True)
    assert LEAKED in leak["prompt"]
    assert (leak["item_task"], leak["item_id"]) == ("gsm8k", read_table(tmp_path / "suite.parquet", Prompts)["prompt_id"][0])
    tabulate_decontamination(tmp_path / "p.parquet", tmp_path / "dropped.parquet", tmp_path / "decontamination.csv")
    counts = read_result_csv(tmp_path / "decontamination.csv", Decontamination)
    found = {(row["outcome"], row["item_task"]): row["n_prompts"] for row in counts.iter_rows(named=True)}
    assert found == {("kept", None): 8, ("overlap", "gsm8k"): 1, ("duplicate", None): 1, ("length", None): 1}


def test_a_smaller_set_of_prompts_is_part_of_a_larger_one_whatever_the_order_of_the_file(tmp_path):
    large, _ = from_data_sets(tmp_path, QUESTIONS, 6)
    small, _ = from_data_sets(tmp_path, QUESTIONS[::-1], 3)
    assert set(small["prompt_id"]) < set(large["prompt_id"])


def test_where_there_are_fewer_prompts_than_asked_for_all_are_taken_and_the_log_says_how_many(tmp_path, caplog):
    with caplog.at_level("INFO"):
        made, _ = from_data_sets(tmp_path, [*QUESTIONS, LEAKED, "Short?"], 9)
    assert len(made) == 8
    assert "openr1: 8 problems of at most 9 that are asked for; 1 were unfit and 1 too like an evaluation item" in caplog.text


def test_no_prompt_that_is_left_is_an_error(tmp_path):
    with pytest.raises(PromptsError, match=r"prompts.openr1: no problem of .* is left: 1 were unfit and 1 too like"):
        from_data_sets(tmp_path, [LEAKED, "Short?"], 9)
    assert not (tmp_path / "p.parquet").exists()


def test_where_nothing_was_left_out_the_table_counts_what_was_kept(tmp_path):
    from_data_sets(tmp_path, QUESTIONS, 8)
    write_table(rows_to_table([], Dropped), Dropped, tmp_path / "none.parquet")
    tabulate_decontamination(tmp_path / "p.parquet", tmp_path / "none.parquet", tmp_path / "decontamination.csv")
    assert read_result_csv(tmp_path / "decontamination.csv", Decontamination).rows() == [("openr1", "kept", None, 8)]
