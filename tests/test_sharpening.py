"""What a gain is made of: are its parts those of the evaluations, and what is measured of a checkpoint that of its softmax?"""

import math
from itertools import combinations

import build
import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.evaluate.settings import ShiftSettings
from prefdelta.evaluate.shift import measure_shift
from prefdelta.findings.settings import SharpeningSettings, ShiftedArm
from prefdelta.findings.sharpening import (
    BASE,
    BEST,
    Sharpening,
    at_best_temperature,
    at_entropy,
    beyond_temperature,
    tabulate_sharpening,
)
from prefdelta.findings.sharpening_figure import plot_sharpening
from prefdelta.measure.scores import pass_at
from prefdelta.measure.settings import Bootstrap, SuiteSettings
from prefdelta.microworld.pretrain import make_tokenizer
from prefdelta.study.lattice import Cell
from prefdelta.study.models import Chat
from prefdelta.tables.io import read_result_csv, read_table, rows_to_table, write_table
from prefdelta.tables.stages import Pairs, Predictions, Prompts, Shifts, Tempered, Traces
from prefdelta.train.reference import completion_sums
from prefdelta.train.settings import ReferenceRun


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    cases = [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)]
    for k in range(1, 7):
        several = [(n, c) for n, c, size in cases if size == k]
        frame = pl.DataFrame(several, schema={"n": pl.UInt32, "c": pl.UInt32}, orient="row")
        found = frame.select(pass_at(k, pl.col("n"), pl.col("c"))).to_series()
        for (n, c), value in zip(several, found, strict=True):
            subsets = list(combinations([place < c for place in range(n)], k))
            assert value == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_accuracy_at_equal_entropy_is_interpolated_and_ends_with_what_was_measured():
    points = [(6.0, np.array([10.0, 30.0])), (0.0, np.array([100.0, 0.0])), (2.0, np.array([50.0, 20.0]))]
    assert at_entropy(points, 2.0).tolist() == [50, 20]
    assert at_entropy(points, 1.0).tolist() == [75, 10]
    assert at_entropy(points, 5.0) == pytest.approx([20, 27.5])
    assert at_entropy(points, 9.0).tolist() == [10, 30]
    assert at_entropy(points[:1], 1.0).tolist() == [10, 30]


def test_the_best_temperature_is_no_optimistic_choice():
    random, n_items, n_worlds = np.random.default_rng(0), 40, 400
    chosen, largest = [], []
    for _ in range(n_worlds):  # all temperatures are equally good
        curve = {value: 100.0 * (random.random(n_items) < 0.5) for value in (1.0, 0.8, 0.5, 0.0)}
        chosen.append(at_best_temperature(curve, [n_items])[0].mean())
        largest.append(max(scores.mean() for scores in curve.values()))
    error = np.std(chosen) / math.sqrt(n_worlds)
    assert np.mean(largest) > 50 + 5
    assert abs(np.mean(chosen) - 50) < 4 * error
    better = {1.0: np.full(10, 40.0), 0.5: np.array([60.0] * 5 + [70.0] * 5)}
    found, value = at_best_temperature(better, [5, 5])
    assert value == 0.5 and found.tolist() == better[0.5].tolist()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small untrained policy, and what training could have made of it."""
    folders = [tmp_path_factory.mktemp(name) for name in ("base", "trained")]
    for folder in folders:
        build.checkpoint(folder, make_tokenizer())
    model = AutoModelForCausalLM.from_pretrained(folders[1])
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folders[1])
    for folder in folders:
        write_manifest(folder / "manifest.json", {})
    return folders


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_log_probabilities_and_entropy_are_those_of_the_tempered_softmax(checkpoints, temperature):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoints[0]).eval(), make_tokenizer()
    tokenizer.padding_side = "right"
    prompt, n_words = tokenizer("<user>3+4<assistant>")["input_ids"], len(tokenizer)
    with torch.no_grad():  # all completions of two tokens
        batch = torch.tensor([[*prompt, token] for token in range(n_words)])
        logps = torch.log_softmax(model(batch).logits[:, len(prompt) - 1 :].double() / temperature, -1)
    first, second = logps[0, 0], logps[:, 1]
    both = first[:, None] + second
    sequences = [([*prompt, token, (7 * token) % n_words], len(prompt)) for token in range(n_words)]
    outputs = ("log_probs", "entropy")
    sums = completion_sums(model, tokenizer, sequences, 16, temperature=temperature, outputs=outputs)
    drawn = [both[token, (7 * token) % n_words].item() for token in range(n_words)]
    assert sums[:, 0] == pytest.approx(drawn, abs=1e-4)
    exact = -(both.exp() * both).sum().item()
    assert float(first.exp() @ torch.tensor(sums[:, 1])) == pytest.approx(exact, abs=1e-4)


SPOILED = "sook"  # which was sampled as two tokens that are no words together


def predictions(path, samples, model=Predictions, ended=True, **columns):
    """Answers to items: of each sample the texts by item."""
    tokenizer = make_tokenizer()
    rows = [
        {
            "item_id": f"q{number}",
            "suite": "ood",
            "task": "t",
            "sample": sample,
            "text": text,
            "correct": True,
            "n_tokens": len(tokenizer(text)["input_ids"]) + ended + (text == SPOILED),
            **columns,
        }
        | {"finish_reason": "stop" if ended else "length"}
        for sample, texts in enumerate(samples)
        for number, text in enumerate(texts)
    ]
    write_table(rows_to_table(rows, model), model, path)
    return path


def shifts_of(folder, checkpoints, traces, seen=(), ended=True, own=1, tempered=None, before=()):
    """The `Shifts` of a checkpoint (``own``: of which) whose answers are the traces of generator c, trained on pairs ``seen``.

    ``before``: what was sampled before that, to each item the same.
    """
    files = {}
    for side, frame in traces.items():
        files[side] = folder / f"{side}.parquet"
        write_table(frame, Traces, files[side])
    items = traces["chosen"].filter(sample=0).select("prompt_id", "prompt", "text")
    columns = {"split": pl.lit("ood"), "task": pl.lit("t"), "answer": pl.lit("1")}
    prompts = items.select("prompt_id", "prompt", **columns).select(list(Prompts.to_schema().columns))
    write_table(prompts, Prompts, folder / "prompts.parquet")
    pairs = None
    if seen:
        frame = build.pairs(len(seen)).with_columns(
            pair_id=pl.Series([f"{c}|{r}" for c, r in seen]),
            chosen_trace_id=pl.Series([c for c, _ in seen]),
            rejected_trace_id=pl.Series([r for _, r in seen]),
        )
        pairs = folder / "pairs.parquet"
        write_table(frame, Pairs, pairs)
    texts = [*([text] * len(items) for text in before), items["text"]]
    answers = predictions(folder / "e.parquet", texts, ended=ended, decoding="sampled")
    measure_shift(
        checkpoints[own] / "manifest.json",
        checkpoints[0] / "manifest.json",
        [folder / "prompts.parquet"],
        answers,
        predictions(folder / "t.parquet", texts, Tempered, temperature=0.5) if tempered else None,
        pairs,
        files if pairs else {},
        folder / "shifts.parquet",
        settings=ShiftSettings(temperature=1.0, max_length=1024, chat=Chat(), dtype="float32"),
        run=ReferenceRun(batch_size=8),
        threads=1,
    )
    return read_table(folder / "shifts.parquet", Shifts)


def test_a_policy_has_not_moved_from_itself_and_a_checkpoint_has(tmp_path, checkpoints):
    traces = {side: build.traces(side[0], n_prompts=6, samples=2) for side in ("chosen", "rejected")}
    itself = shifts_of(tmp_path, checkpoints, traces, own=0, tempered=True)
    assert itself["logp"].equals(itself["base_logp"]) and set(itself["kind"]) == {"answer"}
    assert sorted(set(itself["temperature"])) == [0.5, 1.0]
    moved = shifts_of(tmp_path, checkpoints, traces, seen=[("q0:c:0", "q0:r:0")])
    answers, before = moved.filter(kind="answer"), itself.filter(temperature=1.0)
    assert answers["base_logp"].to_list() == pytest.approx(before["logp"].to_list(), abs=1e-4)
    assert (answers["logp"] - answers["base_logp"]).abs().min() > 1e-3
    spoiled = shifts_of(tmp_path, checkpoints, traces, own=0, before=[SPOILED])
    assert spoiled["logp"].to_list() == pytest.approx(before["logp"].to_list(), abs=1e-4)
    cut = shifts_of(tmp_path, checkpoints, traces, ended=False, own=0)  # such an answer has no end token
    assert (before["n_tokens"] - cut["n_tokens"]).to_list() == [1] * 6 and (cut["logp"] > before["logp"]).all()


def test_held_out_pairs_hold_no_trace_that_was_trained_on(tmp_path, checkpoints):
    traces = {side: build.traces(side[0], n_prompts=3, samples=2) for side in ("chosen", "rejected")}
    seen = [("q0:c:0", "q0:r:1"), ("q1:r:0", "q1:c:0")]  # across samples, and flipped
    moved = shifts_of(tmp_path, checkpoints, traces, seen=seen)
    expected = {"q1:c:1|q1:r:1", "q2:c:0|q2:r:0", "q2:c:1|q2:r:1"}
    for side in ("chosen", "rejected"):
        assert set(moved.filter(kind=side)["key"]) == expected
    everything = [(f"q{prompt}:c:{n}", f"q{prompt}:r:{n}") for prompt in range(3) for n in range(2)]
    assert set(shifts_of(tmp_path, checkpoints, traces, seen=everything)["kind"]) == {"answer"}


WORDS = {"policy": "p", "method": "dpo", "judge": "j", "chosen": "c", "rejected": "r", "selection": "full"}


def scored(path, model, rights, **columns):
    """Answers to 10 items in ``model``: of each of ``rights`` (by sample) the first so many are right."""
    rows = [
        {"item_id": f"i{item}", "suite": "ood", "task": "t", "sample": sample, "text": "", "correct": item < right, "n_tokens": 1}
        | {"finish_reason": "stop", **column}
        for column, several in ((columns | more, several) for more, several in rights)
        for sample, right in enumerate(several)
        for item in range(10)
    ]
    write_table(rows_to_table(rows, model), model, path)
    return path


def shifts(path, entropies, logp=-4.0, base_logp=-6.0, pairs=()):
    rows = [
        {"kind": "answer", "temperature": at, "key": f"i{item}", "suite": "ood", "task": "t", "entropy": entropy, "n_tokens": 4}
        | {"logp": logp, "base_logp": base_logp}
        for at, entropy in entropies
        for item in range(10)
    ]
    rows += [
        {"kind": kind, "temperature": 1.0, "key": f"{n}", "logp": -9 + change, "base_logp": -9.0, "entropy": 0.0, "n_tokens": 1}
        for n, changes in enumerate(pairs)
        for kind, change in zip(("chosen", "rejected"), changes, strict=True)
    ]
    write_table(rows_to_table(rows, Shifts), Shifts, path)
    return path


@pytest.fixture
def sharpening(tmp_path):
    """A policy whose accuracy is 30 (T = 1), 50 (0.5) and 40 (greedy) points with an entropy of 6, 2 and 0; and an arm."""
    cells = [Cell(**WORDS, seed=seed) for seed in range(2)]
    base = scored(tmp_path / "base", Predictions, [({"decoding": "sampled"}, [3, 3]), ({"decoding": "greedy"}, [4])])
    evals, moved, manifests = {}, {}, {}
    for cell, right in zip(cells, (7, 9), strict=True):
        answers = [({"decoding": "sampled"}, [right, right - 2]), ({"decoding": "greedy"}, [8])]
        evals[cell] = scored(tmp_path / f"e{cell.seed}", Predictions, answers)
        moved[cell] = shifts(tmp_path / f"s{cell.seed}", [(1.0, 4.0)], pairs=[(1, -1), (0, 2), (1, 1), (2, -4)])
        manifests[cell] = tmp_path / f"m{cell.seed}" / "manifest.json"
        manifests[cell].parent.mkdir()
        write_manifest(manifests[cell], {"metrics": {"rewards/accuracies": 0.75, "rewards/margins": 2.0}})
    settings = SharpeningSettings(
        arms=[ShiftedArm(**WORDS, cells=cells, beta=0.5, held_out="another draw")],
        suites=["id", "ood"],
        temperature=1.0,
        bootstrap=Bootstrap(n_resamples=100, seed=0),
    )
    tabulate_sharpening(
        evals,
        {"p": base},
        {"p": scored(tmp_path / "tempered", Tempered, [({"temperature": 0.5}, [5, 5])])},
        moved,
        {"p": shifts(tmp_path / "base_shifts", [(1.0, 6.0), (0.5, 2.0)])},
        manifests,
        tmp_path / "sharpening.csv",
        settings=settings,
    )
    return tmp_path / "sharpening.csv"


def test_a_gain_is_sharpening_and_what_is_new(sharpening):
    results = read_result_csv(sharpening, Sharpening)
    rows = {row["quantity"]: row for row in results.filter(arm="c over r, full").iter_rows(named=True)}
    found = {name: row["estimate"] for name, row in rows.items()}
    # The arm has 70 points at an entropy of 4, at which the policy has 40.
    expected = {"accuracy": 70, "gain": 40, "sharpening": 10, "new": 30, "over_best": 20}
    expected |= {"greedy_accuracy": 80, "greedy_gain": 40, "greedy_over_best": 30, "pass@2": 80}
    expected |= {"kl": 2, "kl_per_token": 0.5, "entropy": 4, "entropy_per_token": 1, "length": 4}
    expected |= {"held_out_accuracy": 62.5, "held_out_margin": 0.75, "chosen_change": 1, "rejected_change": -0.5}
    expected |= {"training_accuracy": 75, "training_margin": 2}
    assert found == pytest.approx(expected)
    assert rows["held_out_margin"]["held_out"] == "another draw" and rows["held_out_margin"]["n_items"] == 4
    assert {name for name, row in rows.items() if row["p_holm"] is not None} == {
        *("gain", "sharpening", "new", "over_best", "greedy_gain", "greedy_over_best")
    }
    base = results.filter(arm=BASE, quantity="accuracy").select("temperature", "estimate").rows()
    assert dict(base) == pytest.approx({1.0: 30, 0.5: 50, 0.0: 40})
    assert results.filter(arm=BEST).select("temperature", "estimate").rows() == [(0.5, pytest.approx(50))]


def test_the_figure_and_the_claims_say_what_is_new(sharpening, tmp_path):
    figure = tmp_path / "figure.png"
    plot_sharpening(sharpening, figure, settings=SuiteSettings(study="s", suite="ood"))
    caption = figure.with_suffix(".rst").read_text(encoding="utf-8")
    assert "- **p** untuned, by temperature (0: greedy): 30.0 at 1, 50.0 at 0.5, 40.0 at 0." in caption
    assert "- **c over r, full** gains +40.0: sharpening +10.0, new +30.0." in caption
    results = read_result_csv(sharpening, Sharpening)
    said = {what: row["estimate"] for what, row in beyond_temperature(results, [WORDS, WORDS], "ood")}
    best = "against the base policy at its best temperature (mostly 0.5: 50.0)"
    assert said == pytest.approx(
        {
            f"c over r, full: sampled accuracy, {best}": 20,
            f"c over r, full: greedy accuracy, {best}": 30,
            "c over r, full: greedy accuracy, against the base policy's": 40,
        }
    )
