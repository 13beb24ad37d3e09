"""Pages and tables that show other people's texts: nothing in them runs, hides or computes."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import build
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdelta.audit.coverage import Coverage
from prefdelta.measure.pages import write_page
from prefdelta.report.browse import browse_pairs
from prefdelta.tables.cells import formulas_as_texts, latex_cell, markdown_cell, texts_as_given, visible
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Pairs

OVERRIDE, ISOLATE, MARK, JOINER, TAG, BELL = "\u202e", "\u2067", "\u200f", "\u200d", "\U000e0041", "\x07"
HOSTILE = f"</td><script>alert(1)</script><img src=x onerror=alert(2)>{OVERRIDE}evil{ISOLATE}{MARK}{TAG}{BELL}"


class Elements(HTMLParser):
    """What a browser would find: tags with their attributes, and the texts of <style> and <script>."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.code = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("style", "script") and data.strip():
            self.code.append((self.tags[-1][0], data))
            self.tags.append(("", {}))


@pytest.fixture
def page(tmp_path):
    frame = build.pairs(4).with_columns(prompt=pl.lit(HOSTILE), chosen=pl.lit(HOSTILE))
    write_table(frame, Pairs, tmp_path / "pairs.parquet")
    browse_pairs(tmp_path / "pairs.parquet", tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_texts_of_models_are_shown_whole_and_are_no_part_of_the_page(page):
    found = Elements(page)
    assert "img" not in {tag for tag, _ in found.tags}
    assert [kind for kind, _ in found.code] == ["style", "script"]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert not set(page) & {OVERRIDE, ISOLATE, MARK, TAG, BELL}
    for code in ("[U+202E]evil[U+2067]", "[U+200F]", "[U+E0041]", "[U+0007]"):
        assert page.count(code) == 8


def test_the_policy_of_a_page_lets_its_own_code_through_and_nothing_else(page):
    found = Elements(page)
    (policy,) = [attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.keys() == {"default-src", "img-src", "base-uri", "form-action", "style-src", "script-src"}
    assert {rules[name] for name in ("default-src", "base-uri", "form-action")} == {"'none'"}
    for kind, code in found.code:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_a_page_without_code_may_run_none(tmp_path):
    write_page("<head>{{ policy }}</head>{{ text }}", tmp_path / "page.html", text="<script>alert(1)</script>", policy="none")
    text = (tmp_path / "page.html").read_text()
    assert "script-src" not in text and "default-src 'none'" in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("text", ["plain", "a\tb\nc", "思考\u3000過程", "é\u00a0!", "🙂"])
def test_what_can_be_seen_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u2028", "\ufeff", "\x1b", "\ud800", "\u00ad", "\u202a", "\u2069"])
def test_what_can_not_be_seen_is_shown(mark):
    assert visible(f"a{mark}b") == f"a[U+{ord(mark):04X}]b"


def test_all_that_latex_would_not_set_as_it_is_is_escaped():
    found = latex_cell("\\input{a}~b^c|d <e> 5_%&#$\nnext")
    assert found == (
        r"\textbackslash{}input\{a\}\textasciitilde{}b\textasciicircum{}c\textbar{}d \textless{}e\textgreater{} "
        r"5\_\%\&\#\$ next"
    )


@pytest.mark.parametrize("text", ["[1ex] a", "*", "[-1]*", " [x"])
def test_no_cell_is_an_argument_of_the_row_before_it(text, tmp_path):
    write_result_table(coverage(text), Coverage, tmp_path / "coverage.csv")
    tex = (tmp_path / "coverage.tex").read_text()
    assert not re.search(r"(\\\\|\\\w+rule)\s*[\[*(]", tex)
    assert text.replace("[", "{[}").replace("*", "{*}") in tex


def test_signs_in_a_row_stay_signs_in_latex():
    assert latex_cell("a--b ---c ``d'' ?` !` -1, 'e") == "a-{}-b -{}-{}-c `{}`d'{}' ?{}` !{}` -1, 'e"


@pytest.mark.parametrize(
    "text, cell",
    [
        ("_x_ __y__ a_b a__b _", r"\_x\_ \_\_y\_\_ a_b a\_\_b \_"),
        ("思_考 1_2 (_a_)", r"思_考 1_2 (\_a\_)"),
        ("https://x.org, HTTP://x, ftp://y", r"https\://x.org, HTTP\://x, ftp\://y"),
        ("www.x.org WWW.y.org a.b: c", r"www\.x.org WWW\.y.org a.b: c"),
        ("$x$ $$y$$", r"\$x\$ \$\$y\$\$"),
    ],
)
def test_a_cell_of_markdown_has_no_emphasis_address_or_formula(text, cell):
    assert markdown_cell(text) == cell


def test_a_text_is_one_cell_of_markdown_without_code_links_or_html():
    assert markdown_cell("a|b\\|c\n`d` <img> [e](f) *g* ~h~ &lt;") == (r"a\|b\\\|c \`d\` \<img> \[e](f) \*g\* \~h\~ \&lt;")


def coverage(judge):
    row = {"judge": judge, "generator": "g", "dimension": "overall", "n_asked": 10, "n_missing": 1, "reasons": "{}"}
    return rows_to_table([row], Coverage)


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "''=1", "'quoted", "1-2"]
)
def test_a_spreadsheet_computes_no_text_and_our_reader_gives_it_back(text, tmp_path):
    path = tmp_path / "coverage.csv"
    write_result_table(coverage(text), Coverage, path)
    assert read_result_csv(path, Coverage)["judge"].to_list() == [text]
    cell = pl.read_csv(path)["judge"][0]
    assert not re.match(r"[=+\-@\t\r\n\uff1d]", cell)
    assert cell == (text if text in ("'quoted", "1-2") else f"'{text}")


def test_numbers_below_nothing_stay_numbers(tmp_path):
    frame = pl.DataFrame({"text": ["-1"], "number": [-1.5]})
    assert formulas_as_texts(frame).rows() == [("'-1", -1.5)]


@given(st.lists(st.text(alphabet="'=+-@\t\r\n\uff1da", max_size=6) | st.none(), min_size=1))
def test_every_text_comes_back(texts):
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    assert texts_as_given(formulas_as_texts(frame)).equals(frame)
