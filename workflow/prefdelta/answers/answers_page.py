"""The answers: one page with every question of a study, its claims, its figure and its caveats."""

import base64
from pathlib import Path
from typing import Any

from prefdelta.answers.claims import DIMENSIONS, JUDGE, PREDICTION, SHARPENING, Claims
from prefdelta.answers.replication import REPLICATION
from prefdelta.answers.settings import AnswersSettings
from prefdelta.measure.intervals import LEVEL
from prefdelta.measure.pages import write_page
from prefdelta.tables.io import read_result_csv

SHOWN_BY = {SHARPENING: ["sharpening"], DIMENSIONS: ["regressions"], JUDGE: ["judge_audit"], PREDICTION: ["prediction"]}
SHOWN_BY[REPLICATION] = ["replication"]
PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">{{ policy }}<title>{{ study }}: answers</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { border-bottom: 1px solid #ddd; padding: 4px 8px; text-align: left }
td.number { text-align: right; white-space: nowrap } img { max-width: 100% } .found { font-weight: 600 } small { color: #555 }
</style></head><body>
<h1>{{ study }}: answers</h1>
<p>Differences are points of sampled accuracy on {{ suite }}, with 95 % intervals over evaluation items and seeds. The
<b>primary</b> contrast of an experiment is tested by itself; any other together with those that have the same control (Holm), and
its interval is adjusted likewise. A claim says <i>rises</i> or <i>falls</i> where that test stays below 0.05, <i>equivalent</i>
where two one-sided tests find the difference within the smallest effect of interest ({{ smallest_effect }}), else <i>not
settled</i>. <i>Detectable</i>: the smallest true size that such a test, so corrected, finds in 80 % of cases.</p>
<p>{{ seeds }}</p>
<ol>{% for s in sections %}<li><a href="#q{{ loop.index }}">{{ s.question }}</a></li>{% endfor %}</ol>
{% for s in sections %}
<h2 id="q{{ loop.index }}">{{ s.question }}</h2>
{% for image in s.images %}<img alt="{{ s.question }}" src="data:image/png;base64,{{ image }}">{% endfor %}
<table><thead><tr><th>claim</th><th>p</th><th>p (Holm)</th><th>detectable</th><th>but</th></tr></thead><tbody>
{% for c in s.claims %}<tr><td{% if found(c) %} class="found"{% endif %}>
{% if c.primary %}<b>Primary:</b> {% endif %}{{ c.claim }}</td>
<td class="number">{{ p(c.p_value) }}</td><td class="number">{{ p(c.p_holm) }}</td>
<td class="number">{% if c.minimum_detectable is not none %}{{ '%.1f' % c.minimum_detectable }}{% endif %}</td>
<td><small>{{ c.caveat.removeprefix(s.caveat) }}</small></td></tr>
{% endfor %}</tbody></table>
<p><small><b>Caveat.</b> {{ s.caveat }}</small></p>
{% endfor %}</body></html>
"""


def render_answers(claims: Path, figures: dict[str, Path], page: Path, *, settings: AnswersSettings) -> None:
    """Writes the self-contained page of all `Claims`, by question, with the images of ``figures``, which are by name."""

    def p(value: float | None) -> str:
        return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"

    def found(claim: dict[str, Any]) -> bool:
        return any(p is not None and p < 1 - LEVEL for p in (claim["p_holm"], claim["p_equivalent"]))

    sections: list[dict[str, Any]] = []
    for (question,), rows in read_result_csv(claims, Claims).partition_by("question", as_dict=True, maintain_order=True).items():
        images = [figures[name].read_bytes() for name in (settings.figures | SHOWN_BY).get(str(question), [])]
        sections.append(
            {
                "question": question,
                "images": [base64.b64encode(image).decode() for image in images],
                "claims": rows.rows(named=True),
                "caveat": shared_sentences(rows["caveat"].to_list()),
            }
        )
    smallest = "none is configured" if settings.smallest_effect is None else f"{settings.smallest_effect:g} points"
    write_page(
        PAGE,
        page,
        study=settings.study,
        suite=settings.suite,
        seeds=settings.seeds,
        smallest_effect=smallest,
        sections=sections,
        p=p,
        found=found,
    )


def shared_sentences(texts: list[str]) -> str:
    """The sentences that all ``texts`` begin with."""
    first = texts[0]
    starts = [first[: place + 1] for place, sign in enumerate(first) if sign == "."]
    whole = [start for start in starts if all(text == start or text.startswith(f"{start} ") for text in texts)]
    return whole[-1] if whole else ""
