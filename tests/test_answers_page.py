"""The page of answers: every question once, with its claims, its figures and its caveats."""

import base64

import pytest

from prefdelta.answers.answers_page import render_answers, shared_sentences
from prefdelta.answers.claims import PREDICTION, Claims
from prefdelta.answers.settings import AnswersSettings
from prefdelta.tables.io import rows_to_table, write_result_table


def claim(question, words, caveat, p=0.001, **changes):
    tested = {"estimate": 1.0, "ci_low": 0.5, "ci_high": 1.5, "p_value": p, "p_holm": p, "minimum_detectable": 2.25}
    return {"question": question, "claim": words, "primary": False, "test": "t", "caveat": caveat, **tested, **changes}


def test_page_has_every_question_with_claims_figures_and_caveats(tmp_path):
    rows = [
        claim("Bigger?", "a, against <b>: rises", "All small.", primary=True),
        claim("Why?", "c, against d: falls", "None known.", p=0.2),
        claim("Why?", "g, against h: equivalent", "None known.", p=0.2, p_equivalent=0.01),
        claim("Bigger?", "e, against f: falls", "All small. Budgets differ: pairs +5 %."),
        {"question": PREDICTION, "claim": "held_out_pairs: R^2 0.50", "estimate": 0.5, "test": "none", "caveat": "Few arms."}
        | {"primary": False},
    ]
    write_result_table(rows_to_table(rows, Claims), Claims, tmp_path / "claims.csv")
    figures = {name: tmp_path / f"{name}.png" for name in ("ladder", "grid", "prediction")}
    for name, figure in figures.items():
        figure.write_bytes(name.encode())
    settings = AnswersSettings(
        study="s",
        suite="far",
        seeds="Seeds vary <little>.",
        smallest_effect=2.5,
        figures={"Bigger?": ["ladder", "grid"], "Why?": []},
    )
    render_answers(tmp_path / "claims.csv", figures, tmp_path / "answers.html", settings=settings)
    page = (tmp_path / "answers.html").read_text()
    head, *sections = page.split("<h2")
    assert "Seeds vary &lt;little&gt;." in head and "smallest effect of interest (2.5 points)" in head
    assert page.count("<b>Primary:</b> a, against") == page.count("<b>Primary:</b>") == 1
    assert [section.partition(">")[2].partition("<")[0] for section in sections] == ["Bigger?", "Why?", PREDICTION]
    bigger, why, prediction = sections
    assert "a, against &lt;b&gt;: rises" in bigger and "e, against f: falls" in bigger and "c, against" not in bigger
    assert all(base64.b64encode(name).decode() in bigger for name in (b"ladder", b"grid"))
    assert base64.b64encode(b"prediction").decode() in prediction
    assert bigger.count("All small.") == 1 and "<small> Budgets differ: pairs +5 %.</small>" in bigger
    assert bigger.count('class="found"') == 2 and why.count('class="found"') == 1
    assert "0.200" in why and "2.2" in why


@pytest.mark.parametrize(
    ("texts", "shared"),
    [
        (["All small.", "All small. But a.", "All small. But b."], "All small."),
        (["One. Two. p = 0.2.", "One. Two. p = 0.3."], "One. Two."),
        (["The same. All of it.", "The same. All of it."], "The same. All of it."),
        (["This.", "That."], ""),
    ],
)
def test_what_all_caveats_begin_with_is_said_once(texts, shared):
    assert shared_sentences(texts) == shared
