"""The problems of each split."""

import signal

import polars as pl
import pytest

from prefdelta.errors import PrefdeltaError
from prefdelta.microworld.problems import parse
from prefdelta.prompts import held_out, make_prompts
from prefdelta.tables import Prompts, read_table

TASKS = {"arithmetic": 60, "program": 40, "story": 50}


def prompts(path, split="train", seed=0, tasks=TASKS, operations=(2, 4)):
    make_prompts(path / "p.parquet", split=split, tasks=tasks, operations=list(operations), seed=seed)
    return read_table(path / "p.parquet", Prompts)


@pytest.mark.parametrize("split", ["train", "in_domain"])
def test_there_are_as_many_distinct_prompts_of_each_task_as_asked(tmp_path, split):
    made = prompts(tmp_path, split)
    assert dict(made["task"].value_counts().iter_rows()) == TASKS
    assert made["prompt"].n_unique() == made["prompt_id"].n_unique() == len(made)
    assert made["split"].unique().to_list() == [split]


def test_answer_and_task_are_those_of_the_problem(tmp_path):
    for row in prompts(tmp_path).iter_rows(named=True):
        problem = parse(row["prompt"])
        assert (problem.domain, str(problem.answer)) == (row["task"], row["answer"])


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
