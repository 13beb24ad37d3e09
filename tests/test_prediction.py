"""Prediction of gains: is a known dependence found, do held-out arms stay out, and is what can't be known missing?"""

import json

import build
import numpy as np
import polars as pl
import pytest

from prefdelta.forecast.prediction import PredictedArms, Prediction, tabulate_prediction
from prefdelta.forecast.prediction_figure import plot_prediction
from prefdelta.forecast.predictor import PredictorError, features, in_log_odds, in_points, log_odds, predict, read_predictor
from prefdelta.forecast.settings import PredictionSettings
from prefdelta.forecast.whatif import WhatIf
from prefdelta.measure.settings import ArmSettings, Bootstrap, SuiteSettings
from prefdelta.study.lattice import Cell
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Predictions

QUALITY = {"a": 3.2, "b": 3.6, "c": 3.9, "d": 4.3, "e": 4.6}
SHIFTS = {"full": 0.0, "top50-overall": 0.5, "bottom50-overall": -0.5}
N_ITEMS, SAMPLES, BASE = 100, 5, 50.0


def an_arm(chosen, rejected, selection="full", method="dpo", **words):
    generator_delta = QUALITY[chosen] - QUALITY[rejected]
    delta = generator_delta + SHIFTS.get(selection, 0.0)
    numbers = dict.fromkeys(
        [name for name, column in WhatIf.to_schema().columns.items() if "float" in str(column.dtype).lower()], 0.5
    )
    numbers |= {"delta_overall": delta, "generator_delta_overall": generator_delta, "generator_delta": 30 * generator_delta}
    numbers |= {"n_pairs": 100.0, "n_steps": 10, "n_passes": 1.0, "n_seeds": 1, "base_accuracy": BASE, "chosen_correct": 0.5}
    numbers |= dict.fromkeys(["predicted_gain", "predicted_low", "predicted_high"])
    names = {"policy": "policy", "method": method, "trainer": method, "judge": "j", "experiments": "x"}
    return {**numbers, **names, "chosen": chosen, "rejected": rejected, "selection": selection, **words}


def saturating(delta):
    return delta / (abs(delta) + 0.5)


def gain_of(row):
    """The truth of these tests (points): linear in log-odds."""
    odds = 0.1 + 1.2 * saturating(row["delta_overall"]) + 0.9 * saturating(row["generator_delta_overall"])
    return float(in_points(np.array(row["base_accuracy"]), np.array(odds)))


def every_arm():
    return [an_arm(one, other, selection) for one in QUALITY for other in QUALITY if one != other for selection in SHIFTS]


def write_eval(path, accuracy):
    number = pl.int_range(N_ITEMS * SAMPLES, eager=True)
    frame = pl.DataFrame({"sample": number % SAMPLES, "correct": number < round(accuracy / 100 * N_ITEMS * SAMPLES)})
    frame = frame.with_columns(item_id="i" + (number // SAMPLES).cast(pl.String), answer=pl.lit(None, pl.String))
    constant = {"suite": "ood", "task": "t", "decoding": "sampled", "text": "", "finish_reason": "stop"}
    frame = frame.with_columns(**{name: pl.lit(value) for name, value in constant.items()}, n_tokens=number)
    write_table(frame, Predictions, path)


def tabulate(folder, rows, gains, models=None):
    """The splits by name, the arms, and the predictor p.json; all of them are files in ``folder``."""
    bases, evals, arms = {"policy": folder / "base.parquet"}, {}, []
    write_eval(bases["policy"], BASE)
    for number, (row, gain) in enumerate(zip(rows, gains, strict=True)):
        words = {word: row[word] for word in ("policy", "method", "judge", "chosen", "rejected", "selection")}
        cell = Cell(**words, seed=0)
        evals[cell] = folder / f"{number}.parquet"
        write_eval(evals[cell], BASE + gain)
        arms.append(ArmSettings(**words, cells=[cell]))
    write_result_table(rows_to_table(rows, WhatIf), WhatIf, folder / "whatif.csv")
    bootstrap = Bootstrap(n_resamples=50, seed=0)
    settings = PredictionSettings(study="s", suite="ood", arms=arms, models=models or {}, bootstrap=bootstrap)
    outputs = [folder / name for name in ("prediction.csv", "arms.csv", "p.json")]
    tabulate_prediction(folder / "whatif.csv", evals, bases, *outputs, settings=settings)
    splits = {row["split"]: row for row in read_result_csv(outputs[0], Prediction).iter_rows(named=True)}
    return splits, read_result_csv(outputs[1], PredictedArms)


def plot(folder):
    settings = SuiteSettings(study="s", suite="ood")
    plot_prediction(folder / "prediction.csv", folder / "arms.csv", folder / "figure.png", settings=settings)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Every arm with its true gain: a folder with p.json, the arms before training, the splits, the arms."""
    folder, rows = tmp_path_factory.mktemp("known"), every_arm()
    return folder, rows, *tabulate(folder, rows, [gain_of(row) for row in rows])


def test_a_known_dependence_is_found_on_pairs_and_generators_that_were_held_out(known):
    folder, rows, splits, arms = known
    assert splits["held_out_pairs"]["r2"] > 0.98
    assert splits["held_out_generators"]["r2"] > 0.95
    assert splits["held_out_pairs, dpo"]["n_arms"] == len(rows)
    assert splits["held_out_pairs, selections"]["n_arms"] == 2 * splits["held_out_pairs, full sets"]["n_arms"]
    assert splits["held_out_pairs, delta above 0"]["n_arms"] == sum(row["delta_overall"] > 0 for row in rows)
    assert splits["held_out_pairs"]["r2"] > splits["held_out_pairs, by generator_delta alone"]["r2"] + 0.05
    assert splits["held_out_pairs, by the mean alone"]["r2"] <= 0
    assert arms["estimate"].to_list() == pytest.approx([gain_of(row) for row in rows], abs=0.11)
    made = read_predictor(folder / "p.json")
    slopes = {name: feature.coefficient / feature.sd for name, feature in made.features.items() if feature.sd}
    assert slopes == pytest.approx({"delta": 1.2, "generator_delta": 0.9}, rel=0.1)
    assert splits["noise_ceiling"]["r2"] > 0.9
    assert "frozen" not in splits and arms["predicted_frozen"].null_count() == len(rows)


def test_a_stored_predictor_says_what_the_fit_said(known):
    folder, rows, _, arms = known
    predicted = predict(folder / "p.json", rows_to_table(rows, WhatIf))
    assert predicted["predicted_gain"].to_list() == pytest.approx(arms["predicted_in_sample"].to_list())
    ends = [in_log_odds(BASE, predicted[name].to_numpy()) for name in ("predicted_low", "predicted_high")]
    assert (ends[1] - ends[0]) / 2 == pytest.approx(1.96 * read_predictor(folder / "p.json").held_out_error, rel=1e-3)


def test_log_odds_are_finite_even_about_half_and_back_again():
    assert log_odds(np.array([0.0, 50.0, 100.0])) == pytest.approx([-np.log(201), 0, np.log(201)])
    assert log_odds(np.array(80.0)) == pytest.approx(np.log(80.5 / 20.5))
    base, gain = np.array([0.0, 3.0, 50.0, 97.0, 100.0]), np.array([100.0, -3.0, 7.5, 2.0, -40.0])
    assert in_points(base, in_log_odds(base, gain)) == pytest.approx(gain)
    # The same log-odds are fewer points where less is left to gain, and none leads beyond 0 or 100.
    gains = in_points(np.array([50.0, 90.0, 99.0]), np.full(3, 1.0))
    assert (np.diff(gains) < 0).all()
    assert in_points(np.array([99.0, 1.0]), np.array([50.0, -50.0])) == pytest.approx([1.0, -1.0])


def test_a_fit_at_one_accuracy_holds_at_another(known):
    folder, rows, *_ = known
    far = [row | {"base_accuracy": 85.0} for row in rows]
    predicted = predict(folder / "p.json", rows_to_table(far, WhatIf))["predicted_gain"].to_numpy()
    assert predicted == pytest.approx([gain_of(row) for row in far], abs=1.5)
    assert predicted.max() < 15 < max(map(gain_of, rows))


def test_frozen_predictions_are_held_against_what_came_out(tmp_path):
    """Two arms of a method that is predicted well, and two of one where the worse arm is put first."""
    rows = [an_arm("e", "a"), an_arm("b", "a"), *(an_arm(chosen, "a", method="kto", trainer="kto") for chosen in "eb")]
    guesses, gains = [30.0, 10.0, 30.0, 10.0], [30.0, 10.0, 4.0, 16.0]
    rows = [
        row | {"predicted_gain": guess, "predictor": "other, ood, sha256 0f"} for row, guess in zip(rows, guesses, strict=True)
    ]
    rows.append(an_arm("c", "a") | {"predicted_gain": None, "predictor": "other, ood, sha256 0f"})
    splits, arms = tabulate(tmp_path, rows, [*gains, 50.0])
    frozen = splits["frozen"]
    assert (frozen["predictor"], frozen["n_arms"], frozen["n_choices"]) == ("other, ood, sha256 0f", 4, 2)
    errors = np.array(gains) - guesses
    assert frozen["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert frozen["r2"] == pytest.approx(1 - (errors**2).mean() / np.var(gains))
    # 0 points are missed by DPO's choice and 12 by KTO's; at random half of 20 and half of 12.
    assert frozen["regret"] == pytest.approx(6)
    assert frozen["regret_at_random"] == pytest.approx(8)
    assert frozen["regret_by_generator_delta"] == pytest.approx(6)
    assert frozen["regret_low"] <= 6 <= frozen["regret_high"]
    assert arms["predicted_frozen"].to_list() == [*guesses, None]
    plot(tmp_path)
    answer = (tmp_path / "figure.rst").read_text()
    assert (
        "points below the best (at random 8.0, by generator-level delta alone 6.0); predicted by other, ood, sha256 0f" in answer
    )
    own = [row | {"predictor": "s, ood, sha256 0f"} for row in rows]  # a copy of what this study itself has made
    assert "frozen" not in tabulate(tmp_path, own, [*gains, 50.0])[0]


def test_nothing_is_predicted_from_noise(tmp_path):
    rows = every_arm()
    splits, _ = tabulate(tmp_path, rows, np.random.default_rng(0).normal(0, 10, len(rows)))
    assert splits["held_out_pairs"]["r2"] < 0.1
    assert splits["held_out_generators"]["r2"] < 0.1


def predictions_with_and_without(tmp_path, rows, touched, models=None):
    """Held-out predictions of ``rows``, and the same after the gains of the ``touched`` ones have changed their sign."""
    gains, found = np.array([gain_of(row) for row in rows]), []
    for name, measured in (("before", gains), ("after", np.where(touched, -gains, gains))):
        (tmp_path / name).mkdir()
        found.append(tabulate(tmp_path / name, rows, measured, models)[1])
    return found


def test_what_is_held_out_does_not_reach_its_own_prediction(tmp_path):
    rows = every_arm()
    touched = np.array([{row["chosen"], row["rejected"]} == {"a", "b"} for row in rows])
    before, after = predictions_with_and_without(tmp_path, rows, touched)
    same = (before["predicted"] - after["predicted"]).abs() < 1e-9
    assert same.to_list() == touched.tolist()  # either direction, every selection
    near = np.array([bool({row["chosen"], row["rejected"]} & {"a", "b"}) for row in rows])
    same = (before["predicted_new_generators"] - after["predicted_new_generators"]).abs() < 1e-9
    assert same.to_list() == near.tolist()


def test_generators_that_share_a_model_are_held_out_together(tmp_path):
    rows = [*every_arm(), an_arm("a", "b") | {"chosen": "a-again"}]
    touched = np.arange(len(rows)) == len(rows) - 1
    alike = [{row["chosen"], row["rejected"]} <= {"a", "a-again", "b"} for row in rows]
    before, after = predictions_with_and_without(tmp_path, rows, touched, {"a-again": "a"})
    assert ((before["predicted"] - after["predicted"]).abs() < 1e-9).to_list() == alike


def test_a_kind_of_training_that_the_fit_did_not_have_is_not_predicted(tmp_path):
    rows = [*every_arm(), an_arm("a", "b", method="sft", chosen_correct=0.3)]
    splits, arms = tabulate(tmp_path, rows, [*(gain_of(row) for row in rows[:-1]), -18.0])
    assert splits["held_out_pairs, sft"]["n_arms"] == 0
    assert splits["held_out_pairs, sft"]["r2"] is None
    alone = arms.filter(method="sft").row(0, named=True)
    assert alone["predicted"] is None
    assert alone["predicted_in_sample"] is not None
    assert arms.filter(method="dpo")["predicted"].null_count() == 0


def test_too_few_arms_predict_nothing(tmp_path):
    rows = every_arm()[:4]
    splits, arms = tabulate(tmp_path, rows, [gain_of(row) for row in rows])
    assert splits["held_out_pairs"]["n_arms"] == 0
    assert arms["predicted"].null_count() == len(rows)
    assert read_predictor(tmp_path / "p.json").held_out_error is None
    predicted = predict(tmp_path / "p.json", rows_to_table(rows, WhatIf))
    assert predicted["predicted_gain"].null_count() == 0
    assert predicted["predicted_low"].null_count() == len(rows)
    plot(tmp_path)  # nothing to show, and no error


def test_exchanged_sides_turn_the_generators_delta():
    table = features(rows_to_table([an_arm("e", "a"), an_arm("e", "a", "flipped-50"), an_arm("e", "a", "random50")], WhatIf))
    full, flipped, random = table["generator_delta"]
    assert full == random == -flipped > 0


def test_imitation_depends_on_the_chosen_side_alone():
    rows = [an_arm("e", "a", method="sft", trainer="sft", chosen_correct=share) for share in (0.3, 0.8)]
    worse, better = features(rows_to_table(rows, WhatIf)).rows(named=True)
    assert worse == {"delta": 0, "generator_delta": 0, "chosen_over_policy": pytest.approx(np.log(30.5 / 70.5))}
    assert better["chosen_over_policy"] == pytest.approx(np.log(80.5 / 20.5))


def test_an_unknown_feature_or_accuracy_gives_no_prediction(tmp_path):
    rows = [an_arm("e", "a"), an_arm("e", "a", generator_delta_overall=None), an_arm("e", "a", base_accuracy=None)]
    known, *unknown = predict(build.predictor(tmp_path / "p.json"), rows_to_table(rows, WhatIf)).drop("predictor").rows()
    assert None not in known
    assert unknown == [(None, None, None)] * 2


def test_a_wrong_predictor_says_what_is_wrong(tmp_path):
    with pytest.raises(PredictorError, match=r"none\.json can't be read"):
        read_predictor(tmp_path / "none.json")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"study": "s"}))
    with pytest.raises(PredictorError, match="suite: Field required"):
        read_predictor(bad)
    build.predictor(bad, features={"length": {"mean": 0, "sd": 1, "coefficient": 1}})
    with pytest.raises(PredictorError, match="length, not delta"):
        predict(bad, rows_to_table([an_arm("a", "b")], WhatIf))
    build.predictor(bad, residual_sd=3.9)  # in points, as it was before log-odds
    with pytest.raises(PredictorError, match="residual_sd: Extra inputs"):
        read_predictor(bad)


def test_the_figure_names_the_worst_arm(tmp_path):
    rows = every_arm()
    gains = [gain_of(row) - (25 if (row["chosen"], row["selection"]) == ("e", "full") else 0) for row in rows]
    tabulate(tmp_path, rows, gains)
    plot(tmp_path)
    assert (tmp_path / "figure.svg").stat().st_size > 0
    answer = (tmp_path / "figure.rst").read_text()
    assert "held-out pair of generators, 1: dpo, j, e over " in answer
    assert "held_out_pairs, dpo: R²" in answer


def test_without_right_answers_gains_are_predicted_and_no_regret_is_by_the_generator_delta(tmp_path):
    rows = [
        an_arm(one, "a", selection) | {"generator_delta": None, "chosen_correct": None} for one in "bcde" for selection in SHIFTS
    ]
    splits, arms = tabulate(tmp_path, rows, [gain_of(row) for row in rows])
    assert splits["in_sample"]["n_arms"] == 12 and splits["in_sample"]["regret_by_generator_delta"] is None
    assert splits["held_out_pairs, by generator_delta alone"]["n_arms"] == 0
    assert arms["predicted"].null_count() == 0
    plot(tmp_path)
    assert "by generator-level delta alone unknown" in (tmp_path / "figure.rst").read_text()
