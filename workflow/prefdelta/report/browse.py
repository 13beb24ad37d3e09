"""A page to browse pairs: prompt, both traces, ratings and deltas side by side, sorted by any delta."""

from pathlib import Path

from prefdelta.measure.pages import write_page
from prefdelta.tables.io import read_dimensions, read_table
from prefdelta.tables.stages import Pairs

MOST = 200
PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">{{ policy }}<title>{{ title }}</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #222 }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid #ddd; padding: 6px 8px; vertical-align: top }
th { text-align: left; position: sticky; top: 0; background: #fff }
th.sortable { cursor: pointer; text-decoration: underline dotted }
td.trace { font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; max-width: 26em }
td.number { text-align: right; white-space: nowrap } small { color: #666 } .wrong { color: #b00 } .right { color: #070 }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ shown }} of {{ total }} pairs{% if shown < total %}: half with the largest, half with the smallest overall delta{% endif %}.
Each cell of a criterion shows delta, and below it chosen - rejected mean rating. Click a heading to sort.</p>
<table><thead><tr><th>prompt</th><th>chosen: {{ chosen }}</th><th>rejected: {{ rejected }}</th>
{% for c in criteria %}<th class="sortable">{{ c }}</th>{% endfor %}</tr></thead><tbody>
{% for p in pairs %}<tr data-deltas="{% for c in criteria %}{{ p['delta_' + c] }} {% endfor %}">
<td class="trace">{{ p.prompt }}</td>
{% for side in ('chosen', 'rejected') %}<td class="trace">{{ p[side] }}
{% set grade = {true: 'correct', false: 'wrong', none: 'ungraded'}[p[side + '_correct']] %}
<small class="{{ 'right' if grade == 'correct' else 'wrong' }}">{{ grade }}</small>
<small>{{ p[side + '_tokens'] }} tokens</small></td>{% endfor %}
{% for c in criteria %}<td class="number">{{ '%+.1f' % p['delta_' + c] }}<br>
<small>{{ '%.1f' % p['chosen_' + c] }} - {{ '%.1f' % p['rejected_' + c] }}</small></td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<script>
let last = null;
document.querySelectorAll(".sortable").forEach((heading, column) => heading.addEventListener("click", () => {
  const body = document.querySelector("tbody"), sign = last === column ? 1 : -1;
  const value = row => Number(row.dataset.deltas.split(" ")[column]);
  [...body.rows].sort((a, b) => sign * (value(a) - value(b))).forEach(row => body.append(row));
  last = sign < 0 ? column : null;
}));
</script></body></html>
"""


def browse_pairs(pairs: Path, page: Path) -> None:
    """Writes one self-contained HTML page with at most `MOST` pairs: half from either end of the overall delta."""
    frame = read_table(pairs, Pairs).sort("delta_overall", "pair_id", descending=[True, False])
    ends = frame if len(frame) <= MOST else frame.head(MOST // 2).vstack(frame.tail(MOST // 2))
    chosen, rejected = frame["chosen_generator"][0], frame["rejected_generator"][0]
    write_page(
        PAGE,
        page,
        title=f"{chosen} over {rejected}, judged by {frame['judge'][0]}",
        total=len(frame),
        shown=len(ends),
        chosen=chosen,
        rejected=rejected,
        criteria=read_dimensions(pairs).criteria,
        pairs=list(ends.iter_rows(named=True)),
    )
