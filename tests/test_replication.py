"""Replication: are claims matched by their words but for the policy, and what does each verdict take?"""

from pathlib import Path

import build
import pytest
from build import result

from prefdelta.answers.regressions import Regressions
from prefdelta.answers.replication import Replication, compared, replication_lines, tabulate_replication
from prefdelta.answers.replication_figure import plot_replication
from prefdelta.answers.settings import ReplicationSettings
from prefdelta.configure.load import load_study
from prefdelta.findings.experiment import Results
from prefdelta.plan import findings, reports
from prefdelta.run.errors import ConfigError
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table

SETTINGS = ReplicationSettings(study="s", suite="ood", original="first")


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        # estimate, half of the interval, corrected p
        ((8, 2, 0.001), (5, 3, 0.01), "holds again"),
        ((8, 2, 0.001), (1, 0.5, 0.001), "holds again"),  # smaller, but there
        ((8, 2, 0.001), (-3, 2, 0.01), "contradicted"),
        ((-8, 2, 0.001), (3, 2, 0.01), "contradicted"),
        ((8, 2, 0.001), (0, 2, 1.0), "contradicted"),  # not there, and closer to 0 than it was
        ((-8, 2, 0.001), (0, 2, 1.0), "contradicted"),
        ((8, 2, 0.001), (3, 6, 0.4), "not settled"),
        ((-8, 2, 0.001), (-14, 15, 0.4), "not settled"),
        ((8, 2, 0.001), None, "not asked"),
        ((1, 2, 0.4), (8, 2, 0.001), "no claim"),
        ((1, 2, 0.4), None, "no claim"),
    ],
)
def test_a_verdict_takes_both_estimates(before, now, verdict):
    def columns(found, of):
        estimate, half, p = found or (None, 0, None)
        ends = (None, None) if estimate is None else (estimate - half, estimate + half)
        return dict(
            zip([f"{of}{name}" for name in ("estimate", "ci_low", "ci_high", "p_holm")], (estimate, *ends, p), strict=True)
        )

    assert compared(columns(before, "original_") | columns(now, ""))["verdict"] == verdict


def test_the_interval_of_a_difference_is_recovered_from_both():
    row = {"estimate": 5.0, "ci_low": 1.0, "ci_high": 10.0, "p_holm": 0.01}
    row |= {"original_estimate": 8.0, "original_ci_low": 5.0, "original_ci_high": 20.0, "original_p_holm": 0.01}
    found = compared(row)
    assert found["difference"] == -3
    assert found["difference_low"] == pytest.approx(-3 - (4**2 + 12**2) ** 0.5)
    assert found["difference_high"] == pytest.approx(-3 + (5**2 + 3**2) ** 0.5)
    assert found["overlap"]
    assert not compared(row | {"ci_low": 3.0, "ci_high": 4.9, "estimate": 4.0})["overlap"]


def slope(policy, estimate, p=0.001, term="generator_delta"):
    interval = {"estimate": estimate, "ci_low": estimate - 1, "ci_high": estimate + 1, "p_value": p, "minimum_detectable": 1.5}
    interval |= {"adjusted_low": estimate - 1, "adjusted_high": estimate + 1, "p_holm": p, "primary": False}
    return {
        "fit": "ladder",
        "policy": policy,
        "kind": "trend",
        "term": term,
        "suite": "ood",
        **interval,
        "n_arms": 3,
        "n_items": 9,
    }


@pytest.fixture
def replication(tmp_path):
    def write(rows, model, name):
        write_result_table(rows_to_table(rows, model), model, tmp_path / f"{name}.csv")
        return tmp_path / f"{name}.csv"

    def made(original, again, slopes=((), ())):
        files = [{"ladder": write(rows, Results, name)} for rows, name in ((original, "original"), (again, "again"))]
        fits = [write(list(rows), Regressions, f"{name}-slopes") for rows, name in zip(slopes, ("original", "own"), strict=True)]
        tabulate_replication(*files, *fits, tmp_path / "replication.csv", settings=SETTINGS)
        return read_result_csv(tmp_path / "replication.csv", Replication)

    return made


def arms(policy, gain, difference, several=True):
    """Two arms of a policy against base, and the strong one against the weak one; labels as of several policies."""
    named = f"{policy}, " if several else ""
    rows = [
        result(f"{named}{arm}", versus, estimate, policy=policy, chosen=arm)
        for arm, versus, estimate in (
            ("weak", None, 50.0),
            ("strong", None, 60.0),
            ("weak", "base", 0.5),
            ("strong", "base", gain),
            ("strong", "weak", difference),
        )
    ]
    rows[2]["p_holm"] = 0.7
    rows[4]["versus"] = f"{named}weak"
    return rows


def test_claims_are_matched_by_their_words_and_counted(replication, tmp_path):
    again = [*arms("p1", 6.0, 5.0), *arms("p2", -6.0, 0.5)]
    again[-1]["p_holm"] = 0.9  # 0.5 [-1.5, 2.5] after 9 [7, 11]
    again.append(result("p2, strong", "p1, strong", 3.0, policy="p2", chosen="strong"))  # of two policies: matches nothing
    lost = result("lost", "base", 7.0)
    table = replication([*arms("policy", 8.0, 9.0, several=False), lost], again, ([slope("policy", 2.0)], [slope("p1", 1.5)]))
    found = {(row["claim"], row["policy"]): row["verdict"] for row in table.iter_rows(named=True)}
    assert found == {
        ("weak, against the base policy", "p1"): "no claim",
        ("weak, against the base policy", "p2"): "no claim",
        ("strong, against the base policy", "p1"): "holds again",
        ("strong, against the base policy", "p2"): "contradicted",
        ("strong, against weak", "p1"): "holds again",
        ("strong, against weak", "p2"): "contradicted",
        ("lost, against the base policy", None): "not asked",
        ("generator_delta", "p1"): "holds again",
    }
    counts, *lines = replication_lines(table, "first")
    assert counts == ("4 claims of first, each with every policy: 3 holds again, 0 not settled, 2 contradicted, 1 not asked")
    assert len(lines) == 4
    assert lines[0] == (
        "ladder: strong, against the base policy (sampled), +8.0 [+6.0, +10.0]: holds again with p1 +6.0 [+4.0, +8.0]; "
        "contradicted with p2 -6.0 [-8.0, -4.0]"
    )
    assert lines[2].endswith(": not asked")
    plot_replication(tmp_path / "replication.csv", tmp_path / "figure.png", settings=SETTINGS)
    assert "- ladder: strong, against weak (sampled)" in (tmp_path / "figure.rst").read_text()


def test_other_suites_tasks_and_decodings_are_kept_apart(replication):
    original = [result("strong", "base", 8.0), result("strong", "base", 5.0, decoding="greedy")]
    again = [result("strong", "base", 4.0, suite="id"), result("strong", "base", 4.0, task="t")]
    again.append(result("strong", "base", 6.0, decoding="greedy", policy="q"))
    table = replication(original, again)
    assert table.select("decoding", "policy", "verdict").rows() == [
        ("sampled", None, "not asked"),
        ("greedy", "q", "holds again"),
    ]


def test_without_another_study_there_is_an_empty_table_and_nothing_in_the_report(tmp_path):
    study = load_study(build.config())
    job = findings.tabulate_replication(study, {})
    assert not any(job.files.values())
    assert not [file for file in reports.reported(study) if "replication" in file]
    tabulate_replication({}, {}, None, None, tmp_path / "replication.csv", settings=SETTINGS)
    plot_replication(tmp_path / "replication.csv", tmp_path / "figure.png", settings=SETTINGS)
    assert "0 claims of first" in (tmp_path / "figure.rst").read_text()


def test_missing_tables_of_the_other_study_are_told_with_the_command_that_makes_them(tmp_path):
    folder = tmp_path / "first"
    study = load_study({**build.config(), "replicates": f"{folder}/"})
    names = [f"{folder}/tables/{name}.csv" for name in ("generator_delta", "regressions")]
    with pytest.raises(ConfigError, match=f"snakemake --configfile THAT-STUDY.yaml --cores all -- {' '.join(names)}$"):
        findings.tabulate_replication(study, {})
    (folder / "tables").mkdir(parents=True)
    for name in names:
        Path(name).touch()
    files = findings.tabulate_replication(study, {}).files
    assert [*files["originals"], *files["original_slopes"]] == names
    assert files["experiments"] == ["results/microworld/tables/generator_delta.csv"]
    assert {"results/microworld/tables/replication.csv", "results/microworld/figures/replication.png"} < {
        *reports.reported(study)
    }
    assert "results/microworld/figures/replication.png" in reports.render_answers(study, {}).files["figures"]
    assert findings.tabulate_claims(study, {}).files["replication"] == ["results/microworld/tables/replication.csv"]
