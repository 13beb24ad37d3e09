"""The selection grammar, and which pairs each form selects."""

import itertools
import math
import random
import statistics
import string
from collections import Counter

import build
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdelta.pairs.select import candidates, flip, select
from prefdelta.study.dimensions import THE_FIVE
from prefdelta.study.selections import GRAMMAR, POOLED, STRATA, WITHIN, Selection, SelectionError, draw_for_seed, parse

K, CRITERION, SEED = st.integers(1, 10**6), st.sampled_from(THE_FIVE.criteria), st.integers(0, 2**31)
DRAW, ALIKE = st.integers(0, 99), st.sampled_from(WITHIN)
WELL_FORMED = st.one_of(
    st.just(("full", Selection("full"))),
    st.builds(lambda k, c: (f"top{k}-{c}", Selection("top", k=k, criterion=c)), K, CRITERION),
    st.builds(lambda k, c: (f"bottom{k}-{c}", Selection("bottom", k=k, criterion=c)), K, CRITERION),
    st.builds(lambda k, d: (f"random{k}-draw{d}", Selection("random", k=k, draw=d)), K, DRAW),
    st.builds(
        lambda e, k, c, w: (f"{e}{k}-{c}-within_{w}", Selection(e, k=k, criterion=c, within=w)),
        *(st.sampled_from(["top", "bottom"]), K, CRITERION, ALIKE),
    ),
    st.builds(lambda k, w, d: (f"random{k}-within_{w}-draw{d}", Selection("random", k=k, within=w, draw=d)), K, ALIKE, DRAW),
    st.builds(lambda k, c, d: (f"matched{k}-{c}-draw{d}", Selection("matched", k=k, criterion=c, draw=d)), K, CRITERION, DRAW),
    st.builds(lambda x, c: (f"min{x}-{c}", Selection("min", criterion=c, least=x)), st.sampled_from([0, 1, 2.5]), CRITERION),
    st.builds(
        lambda k, c, b, d: (f"band{k}-{c}-{b[0]}-draw{d}", Selection("band", k, c, draw=d, least=b[1], below=b[2])),
        *(K, CRITERION, st.sampled_from([("minus0.5to1", -0.5, 1), ("0to0.25", 0, 0.25), ("minus2tominus1.5", -2, -1.5)]), DRAW),
    ),
    st.builds(lambda s, k, c: (f"{s}-{k}-{c}", Selection(s, k=k, criterion=c)), st.sampled_from(POOLED[:-1]), K, CRITERION),
    st.builds(lambda k: (f"right_over_wrong-{k}", Selection("right_over_wrong", k=k)), K),
    st.builds(lambda s, k: (f"{s}-{k}", Selection(s, k=k)), st.sampled_from(list(STRATA)), K),
    st.builds(lambda k: (f"flipped-{k}", Selection("flipped", k=k)), K),
)
MALFORMED = [
    *(f"top{10**15}-overall", f"random5-draw{10**15}"),
    pytest.param(f"min1{'0' * 400}-overall", id="min of 400 digits"),
    pytest.param(f"both_wrong-{'9' * 5000}", id="5000 digits"),
    *("", "Full", "full ", "full\n", "full-5", "top-overall", "top5", "top5overall", "top5-", "top0-overall", "top05-overall"),
    *("top-5-overall", "top5.5-overall", "top5-Speed", "top5-Overall", "bottom5-overall-overall", "random5", "random5-draw"),
    *("random5-1", "random0-draw1", "min-overall", "min1.-overall", "min.5-overall", "min-1-overall", "min1"),
    *("correct_over_wrong", "correct_over_wrong-0", "correct-over-wrong-5", "both_right-5", "flipped", "flipped5", "flipped-0"),
    *("top5-within_length", "top5-overall-within", "top5-overall-within_", "top5-overall-within_speed", "top-overall-within_"),
    *("top5-within_length-overall", "bottom5-overall-within_length-draw1", "random5-within_length", "random5-within_speed-draw1"),
    *("random5-draw1-within_length", "matched5-overall", "matched5-draw1", "matched0-overall-draw1", "matched-overall-draw1"),
    *("matched5-sp.eed-draw1", "matched5-overall-within_length-draw1"),
    *("min1-overall-within_length", "flipped-5-within_length", "both_correct-5-within_length", "full-within_length"),
    pytest.param("top1٣-overall", id="digits of another script"),
    *("band5-overall-0to1", "band5-overall-1to0-draw0", "band5-overall-1to1-draw0", "band5-overall--1to1-draw0"),
    *("band5-overall-minus0to1-draw0", "band5-overall-minus1.to1-draw0", "band5-0to1-draw0", "band5-overall-0to-draw0"),
    *("best_over_worst-5", "best_over_worst5-overall", "best_over_low-0-overall", "right_over_wrong-5-overall"),
]
PAIRS = st.builds(build.pairs, st.integers(1, 40), SEED)


def selected(pairs, name, seed=0):
    """What `build_pairs` does with pairs, here all in one part: sorts, chooses, and flips last."""
    wanted = parse(name)
    found = select(candidates(pairs.lazy().sort("prompt_id", "pair_id"), wanted, seed), wanted).collect()
    return flip(found) if wanted.kind == "flipped" else found


@given(WELL_FORMED)
def test_a_well_formed_name_parses_to_what_it_says(case):
    name, meaning = case
    assert parse(name) == meaning


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_name_is_answered_with_the_grammar(name):
    with pytest.raises(SelectionError) as error:
        parse(name)
    assert GRAMMAR in str(error.value)
    assert f"'{name}'" in str(error.value)


def test_the_configurations_manual_shows_the_grammar():
    manual = (build.CONFIG.parent / "README.md").read_text(encoding="utf-8")
    assert f"```\n{GRAMMAR}\n```" in manual


@given(st.one_of(st.text(), st.text(string.ascii_letters + string.digits)).filter(lambda name: name != "full"))
def test_any_other_text_is_answered_with_the_grammar(name):
    with pytest.raises(SelectionError) as error:
        parse(name)
    assert GRAMMAR in str(error.value)


ALIASES = ["random5-draw07", "matched5-overall-draw07", "min1.50-overall", "min01-overall", "band5-overall-0to1.0-draw0"]


@pytest.mark.parametrize("name", ALIASES)
def test_a_selection_has_one_name_only_so_that_it_is_trained_once(name):
    with pytest.raises(SelectionError):
        parse(name)


ANY_ORDER = ["full", "top4-overall", "random4-draw1", "min0-factuality", "flipped-4", "matched4-overall-draw1"]
ANY_ORDER += ["top4-overall-within_length", "bottom4-overall-within_correctness", "random4-within_correctness-draw1"]


@given(st.integers(4, 40), SEED, SEED, st.sampled_from(ANY_ORDER))
def test_a_selection_does_not_depend_on_the_order_of_rows(n, seed, shuffle, name):
    pairs = build.pairs(n).with_columns(delta_factuality=pl.lit(0.0), delta_overall=pl.Series([0.0, 1.0] * n)[:n])
    shuffled = pairs.sample(fraction=1, shuffle=True, seed=shuffle)
    assert selected(pairs, name, seed).equals(selected(shuffled, name, seed))


@given(PAIRS, SEED)
def test_full_keeps_every_pair(pairs, seed):
    assert selected(pairs, "full", seed).sort("pair_id").equals(pairs.sort("pair_id"))


@given(PAIRS, CRITERION, SEED, st.data())
def test_top_and_bottom_take_the_largest_and_the_smallest_deltas(pairs, criterion, seed, data):
    k = data.draw(st.integers(1, len(pairs)))
    deltas = pairs[f"delta_{criterion}"].sort()
    assert selected(pairs, f"bottom{k}-{criterion}", seed)[f"delta_{criterion}"].sort().equals(deltas.head(k))
    assert selected(pairs, f"top{k}-{criterion}", seed)[f"delta_{criterion}"].sort().equals(deltas.tail(k))


@given(PAIRS, CRITERION, st.sampled_from([0, 0.5, 1]))
def test_min_keeps_exactly_the_pairs_with_at_least_that_delta(pairs, criterion, least):
    enough = pairs.filter(pl.col(f"delta_{criterion}") >= least)
    if enough.is_empty():
        with pytest.raises(SelectionError):
            selected(pairs, f"min{least}-{criterion}")
    else:
        assert selected(pairs, f"min{least}-{criterion}").sort("pair_id").equals(enough.sort("pair_id"))


@pytest.mark.parametrize("kind", ["top", "bottom"])
def test_ties_are_broken_by_seed_and_id(kind):
    tied = build.pairs(60).with_columns(delta_overall=pl.lit(1.0))
    first, again, other = (selected(tied, f"{kind}20-overall", seed)["pair_id"] for seed in (0, 0, 1))
    assert first.equals(again)
    assert set(first) != set(other)
    assert set(first) != set(tied["pair_id"].head(20))


def test_another_draw_is_another_sample_and_the_same_draw_the_same():
    pairs = build.pairs(60)
    draws = {draw: set(selected(pairs, f"random20-draw{draw}")["pair_id"]) for draw in range(5)}
    assert all(len(ids) == 20 for ids in draws.values())
    assert len({frozenset(ids) for ids in draws.values()}) == 5
    assert draws[3] == set(selected(pairs, "random20-draw3")["pair_id"])
    assert draws[3] != set(selected(pairs, "random20-draw3", seed=1)["pair_id"])


def test_every_pair_is_drawn_about_equally_often():
    pairs = build.pairs(20)
    drawn = [name for draw in range(400) for name in selected(pairs, f"random5-draw{draw}")["pair_id"]]
    counts = [drawn.count(name) for name in pairs["pair_id"]]
    assert 60 < min(counts) <= max(counts) < 140  # 100 +- 9


@pytest.mark.parametrize(
    "name, of_seed",
    [
        ("random5", "random5-draw3"),
        ("random5-within_length", "random5-within_length-draw3"),
        ("matched5-overall", "matched5-overall-draw3"),
        ("band5-overall-minus1to0.5", "band5-overall-minus1to0.5-draw3"),
        *((name, name) for name in ("random5-draw1", "random5-within_length-draw1", "matched5-overall-draw1")),
        *(
            (name, name)
            for name in ("full", "top5-overall", "top5-overall-within_length", "flipped-5", "best_over_low-5-overall")
        ),
    ],
)
def test_only_random_selections_without_a_draw_are_others_for_every_seed(name, of_seed):
    assert draw_for_seed(name, 3) == of_seed
    assert parse(of_seed).draw in (0, 1, 3)


def lengths(row, step):
    chosen, rejected = row["chosen_tokens"], row["rejected_tokens"]
    return round(math.log(chosen / rejected, step)), round(math.log(chosen * rejected, 1.25) / 2)


def correctness(row):
    return row["chosen_correct"], row["rejected_correct"]


GROUP = {"length": lambda row: lengths(row, 1.1), "correctness": correctness}


def grouped(pairs, group):
    """The ids of ``pairs`` by their ``group``."""
    found = {}
    for row in pairs.iter_rows(named=True):
        found.setdefault(group(row), set()).add(row["pair_id"])
    return found


EXTREME = {"top{}-{}": 1, "bottom{}-{}": -1}
SIMILAR = PAIRS.map(lambda pairs: pairs.with_columns(pl.col("chosen_tokens", "rejected_tokens") % 3 + 9))  # so groups are large


@given(st.one_of(PAIRS, SIMILAR), CRITERION, SEED, st.sampled_from(sorted(GROUP)), st.data())
def test_selections_within_groups_keep_the_composition(pairs, criterion, seed, within, data):
    k, form = data.draw(st.integers(1, len(pairs))), data.draw(st.sampled_from([*EXTREME, "random{}"]))
    name = draw_for_seed(f"{form.format(k, criterion)}-within_{within}", 0)
    found = set(selected(pairs, name, seed)["pair_id"])
    assert len(found) == k
    for ids in grouped(pairs, GROUP[within]).values():
        assert abs(len(ids & found) - len(ids) * k / len(pairs)) < 1


@given(st.one_of(PAIRS, SIMILAR), CRITERION, SEED, st.sampled_from(sorted(GROUP)), st.data())
def test_top_and_bottom_within_groups_take_each_groups_extreme_deltas(pairs, criterion, seed, within, data):
    k = data.draw(st.integers(1, len(pairs)))
    delta = dict(pairs.select("pair_id", f"delta_{criterion}").iter_rows())
    for form, sign in EXTREME.items():
        found = set(selected(pairs, f"{form.format(k, criterion)}-within_{within}", seed)["pair_id"])
        for ids in grouped(pairs, GROUP[within]).values():
            if taken := ids & found:
                left_out = [sign * delta[name] for name in ids - found]
                assert min(sign * delta[name] for name in taken) >= max(left_out, default=-math.inf)


def test_groups_too_small_for_a_pair_are_not_left_out_at_one_end():
    # Each pair alone in its group, from 100 times shorter to 100 times longer: half of either end are still taken.
    tokens = [round(1.5**i) for i in range(1, 41)]
    pairs = build.pairs(40).with_columns(chosen_tokens=pl.Series(tokens), rejected_tokens=pl.Series(tokens[::-1]))
    assert len(grouped(pairs, GROUP["length"])) == 40
    found = selected(pairs, "random20-within_length-draw0")
    assert 9 <= found.filter(pl.col("chosen_tokens") < pl.col("rejected_tokens")).height <= 11


@pytest.mark.parametrize("within", sorted(GROUP))
def test_another_draw_within_groups_is_another_sample_and_the_same_draw_the_same(within):
    pairs = build.pairs(60).with_columns(chosen_tokens=pl.lit(10), rejected_tokens=pl.lit(10))
    draws = {draw: frozenset(selected(pairs, f"random20-within_{within}-draw{draw}")["pair_id"]) for draw in range(5)}
    assert len(set(draws.values())) == 5
    assert draws[3] == set(selected(pairs, f"random20-within_{within}-draw3")["pair_id"])
    assert draws[3] != set(selected(pairs, f"random20-within_{within}-draw3", seed=1)["pair_id"])


@given(PAIRS, SEED, st.data())
def test_within_both_correct_is_the_same_of_the_pairs_of_two_right_answers(pairs, seed, data):
    right = pairs.filter("chosen_correct", "rejected_correct")
    k = data.draw(st.integers(1, max(1, len(right))))
    for form in ("top{}-overall", "bottom{}-overall", "random{}"):
        name = draw_for_seed(f"{form.format(k)}-within_both_correct", 0)
        if right.is_empty():
            with pytest.raises(SelectionError):
                selected(pairs, name, seed)
        else:
            assert selected(pairs, name, seed).equals(selected(right, name, seed))


def test_too_few_pairs_of_two_right_answers_are_said_to_be_these():
    pairs = build.pairs(10, correct=[*STRATA.values(), (True, True)] * 2)
    for form in ("top{}-overall", "bottom{}-overall", "random{}"):
        assert len(selected(pairs, draw_for_seed(f"{form.format(4)}-within_both_correct", 0))) == 4
        with pytest.raises(SelectionError, match=r"asks for 5, but there are only 4 pairs whose answers are both right"):
            selected(pairs, draw_for_seed(f"{form.format(5)}-within_both_correct", 0))


def difficulty(pairs):
    """prompt -> the share of right answers in its pairs."""
    right = pl.col("chosen_correct").cast(pl.Int64) + pl.col("rejected_correct").cast(pl.Int64)
    return dict(pairs.group_by("prompt_id").agg(right.mean() / 2).iter_rows())


@given(st.one_of(PAIRS, SIMILAR), CRITERION, SEED, DRAW, st.data())
def test_matched_pairs_are_as_many_of_each_kind_as_the_top_pairs(pairs, criterion, seed, draw, data):
    share, k = difficulty(pairs), data.draw(st.integers(1, len(pairs)))

    def kinds(name):
        rows = selected(pairs, name, seed).iter_rows(named=True)
        return Counter((lengths(row, 1.25), correctness(row), min(3, int(4 * share[row["prompt_id"]]))) for row in rows)

    assert kinds(f"matched{k}-{criterion}-draw{draw}") == kinds(f"top{k}-{criterion}")


def confounded_pairs(n=3000, seed=0):
    """Pairs whose delta goes with correctness, lengths and how easy the prompt is, and varies besides."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        if i % 4 == 0:
            easy = rng.random()
        right = rng.random() < (1 + easy) / 2, rng.random() < easy
        tokens = [round(math.exp(rng.gauss(4.5 - easy + 0.2 * is_right, 0.3))) for is_right in right]
        delta = 0.7 * (right[0] - right[1]) + math.log(tokens[0] / tokens[1]) + 0.5 * easy + rng.gauss(0, 0.7)
        rows.append((*right, *tokens, max(-4.0, min(4.0, delta))))
    names = ["chosen_correct", "rejected_correct", "chosen_tokens", "rejected_tokens", "delta_overall"]
    return build.pairs(n, per_prompt=4).with_columns(pl.DataFrame(rows, names, orient="row").get_columns())


def test_matched_pairs_are_like_the_top_pairs_in_all_but_the_delta():
    pairs = confounded_pairs()
    pairs = pairs.with_columns(
        easy=pl.col("prompt_id").replace_strict(difficulty(pairs)),
        ratio=(pl.col("chosen_tokens") / pl.col("rejected_tokens")).log(),
        length=(pl.col("chosen_tokens") * pl.col("rejected_tokens")).log(),
    )
    top = selected(pairs, "top750-overall")

    def differences(found):
        """Standardised mean differences to the top pairs."""
        names = ["chosen_correct", "rejected_correct", "ratio", "length", "easy"]
        return {name: (top[name].mean() - found[name].mean()) / pairs[name].cast(pl.Float64).std() for name in names}

    for draw in range(3):
        matched, random = (selected(pairs, name) for name in (f"matched750-overall-draw{draw}", f"random750-draw{draw}"))
        by_chance = differences(random)
        confounded = [name for name, value in by_chance.items() if abs(value) > 0.2]
        assert {"chosen_correct", "rejected_correct", "ratio"} <= set(confounded)
        for name, value in differences(matched).items():
            assert abs(value) < 0.1
            assert name not in confounded or abs(value) < abs(by_chance[name]) / 4
        assert random["delta_overall"].mean() < matched["delta_overall"].mean() < top["delta_overall"].mean() - 0.3


def test_matched_pairs_are_a_random_draw_of_all_that_are_alike():
    pairs = confounded_pairs(400)
    draws = [frozenset(selected(pairs, f"matched100-overall-draw{draw}")["pair_id"]) for draw in range(5)]
    assert len(set(draws)) == 5
    assert draws[3] == set(selected(pairs, "matched100-overall-draw3")["pair_id"])
    assert draws[3] != set(selected(pairs, "matched100-overall-draw3", seed=1)["pair_id"])
    # Where all are alike, each pair is drawn about equally often, those of the top set, too.
    alike = build.pairs(20, correct=[(True, False)] * 20).with_columns(chosen_tokens=pl.lit(9), rejected_tokens=pl.lit(9))
    drawn = Counter(name for draw in range(400) for name in selected(alike, f"matched5-overall-draw{draw}")["pair_id"])
    assert 60 < min(drawn[name] for name in alike["pair_id"]) <= max(drawn.values()) < 140  # 100 +- 9


BANDS = st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (-2.0, -0.5), (-0.25, 0.25)])


def band_name(k, criterion, band, draw):
    return f"band{k}-{criterion}-{'to'.join(f'{level:g}'.replace('-', 'minus') for level in band)}-draw{draw}"


def quarters(pairs, criterion, band):
    """The ids of pairs in each quarter of ``band``, by hand."""
    edges = [band[0] + (band[1] - band[0]) * place / 4 for place in range(5)]
    deltas = list(pairs.select("pair_id", f"delta_{criterion}").iter_rows())
    return [{name for name, delta in deltas if low <= delta + 1e-9 < high} for low, high in itertools.pairwise(edges)]


@given(st.builds(build.pairs, st.integers(1, 200), SEED), CRITERION, BANDS, st.integers(1, 30), SEED, DRAW)
def test_a_band_has_equally_many_pairs_of_each_quarter_or_says_what_it_has_room_for(pairs, criterion, band, k, seed, draw):
    pairs = pairs.with_columns(pl.col(f"delta_{criterion}").round(9))
    there, name = quarters(pairs, criterion, band), band_name(k, criterion, band, draw)
    shares = [k * (place + 1) // 4 - k * place // 4 for place in range(4)]
    if all(len(ids) >= share for ids, share in zip(there, shares, strict=True)):
        found = set(selected(pairs, name, seed)["pair_id"])
        assert [len(found & ids) for ids in there] == shares
        assert len(found) == k
    else:
        with pytest.raises(SelectionError, match=r"asks for \d+( pairs with a delta from|, but there are only \d+ pairs)"):
            selected(pairs, name, seed)


def test_a_quarter_with_too_few_pairs_is_named_with_what_the_band_has_room_for():
    deltas = [0.0] * 9 + [0.25] * 9 + [0.5] * 2 + [0.75] * 9 + [1.0] * 9
    pairs = build.pairs(38).with_columns(delta_overall=pl.Series(deltas))
    assert Counter(selected(pairs, "band8-overall-0to1-draw0")["delta_overall"]) == dict.fromkeys((0, 0.25, 0.5, 0.75), 2)
    with pytest.raises(SelectionError, match=r"3 pairs with a delta from 0.5 to 0.75, but there are only 2: .* room for 8"):
        selected(pairs, "band12-overall-0to1-draw0")


def test_the_same_band_of_pairs_whose_deltas_differ_has_the_same_mean_delta():
    rng = random.Random(0)
    worlds = [
        build.pairs(4000).with_columns(delta_overall=pl.Series([round(rng.gauss(mean, 0.7), 1) for _ in range(4000)]))
        for mean in (0.0, 1.5)
    ]
    low, high = (selected(world, "band200-overall-0to2-draw0")["delta_overall"].mean() for world in worlds)
    plain = [world.filter(pl.col("delta_overall").is_between(0, 2, closed="left"))["delta_overall"].mean() for world in worlds]
    assert plain[1] - plain[0] > 0.5
    assert abs(high - low) < 0.1


def test_bands_are_drawn_anew_by_draw_and_seed():
    pairs = build.pairs(400).with_columns(delta_overall=pl.Series([0.0, 0.3, 0.6, 0.9] * 100))
    draws = {draw: frozenset(selected(pairs, f"band40-overall-0to1-draw{draw}")["pair_id"]) for draw in range(5)}
    assert len(set(draws.values())) == 5
    assert draws[3] == set(selected(pairs, "band40-overall-0to1-draw3")["pair_id"])
    assert draws[3] != set(selected(pairs, "band40-overall-0to1-draw3", seed=1)["pair_id"])


def pooled(ratings, correct=None, logps=None):
    """Every sample over every other, of prompts whose samples have ``ratings`` (a list for each prompt), all by one criterion."""
    rows = []
    for prompt, levels in enumerate(ratings):
        for one, other in itertools.permutations(range(len(levels)), 2):
            row = {"pair_id": f"p{prompt}s{one}|p{prompt}s{other}", "prompt_id": f"p{prompt}"}
            for side, sample in (("chosen", one), ("rejected", other)):
                row |= {f"{side}_trace_id": f"p{prompt}s{sample}", f"{side}_overall": float(levels[sample])}
                row |= {f"{side}_correct": correct[prompt][sample] if correct else True}
                row |= {f"{side}_logp": logps[prompt][sample] if logps else 0.0}
            row["delta_overall"] = row["chosen_overall"] - row["rejected_overall"]
            rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"chosen_correct": pl.Boolean, "rejected_correct": pl.Boolean})


def sides(found):
    return list(found.select("chosen_trace_id", "rejected_trace_id").iter_rows())


@given(st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=6), min_size=1, max_size=8), SEED)
def test_the_best_of_a_prompts_samples_is_over_the_worst_or_over_the_one_two_deviations_below_the_mean(ratings, seed):
    pairs, differing = pooled(ratings), [number for number, levels in enumerate(ratings) if len(set(levels)) > 1]
    for kind in ("best_over_worst", "best_over_low"):
        if not differing:
            with pytest.raises(SelectionError, match=r"asks for 1, but there are only 0 prompts with such a pair"):
                selected(pairs, f"{kind}-1-overall", seed)
            continue
        found = selected(pairs, f"{kind}-{len(differing)}-overall", seed)
        assert found["prompt_id"].to_list() == [f"p{number}" for number in differing]
        for number, row in zip(differing, found.iter_rows(named=True), strict=True):
            levels = ratings[number]
            assert row["chosen_overall"] == max(levels)
            low = statistics.mean(levels) - 2 * statistics.pstdev(levels)
            below = [level for level in levels if level < max(levels)]
            wanted = min(levels) if kind == "best_over_worst" else min(below, key=lambda level: round(abs(level - low), 9))
            assert row["rejected_overall"] == wanted


def test_with_many_samples_the_worst_is_an_outlier_and_two_deviations_below_the_mean_is_another_sample():
    levels = [3.0] * 10 + [2.5] * 10 + [2.0, 0.0]
    (worst,), (low,) = (sides(selected(pooled([levels]), f"{kind}-1-overall")) for kind in ("best_over_worst", "best_over_low"))
    assert worst[1] == "p0s21"
    assert low[1] == "p0s20"
    assert worst[0] in {f"p0s{sample}" for sample in range(10)}


def test_ties_among_a_prompts_samples_are_broken_by_seed():
    pairs = pooled([[5] * 4 + [1] * 4])
    drawn = {tuple(sides(selected(pairs, "best_over_worst-1-overall", seed))) for seed in range(20)}
    assert len(drawn) > 5
    assert selected(pairs, "best_over_worst-1-overall", 3).equals(selected(pairs, "best_over_worst-1-overall", 3))


def test_a_right_answer_is_over_a_wrong_one_of_the_same_prompt_whatever_their_ratings():
    right = [[True, False, True], [True, True, True], [False, False, False], [False, None, True]]
    pairs = pooled([[1, 5, 1], [1, 2, 3], [3, 2, 1], [3, 2, 1]], correct=right)
    for seed in range(5):
        found = selected(pairs, "right_over_wrong-2", seed)
        assert found["prompt_id"].to_list() == ["p0", "p3"]
        assert found["chosen_correct"].all() and not found["rejected_correct"].any()
        assert sides(found)[1] == ("p3s2", "p3s0")
    with pytest.raises(SelectionError, match=r"asks for 3, but there are only 2 prompts with such a pair"):
        selected(pairs, "right_over_wrong-3")


def test_margins_choose_among_the_pairs_of_best_over_worst():
    logps = [[-0.1, -0.5], [-0.9, -0.2], [-0.3, -0.3], [None, -0.2]]  # of the better sample, and of the worse one
    pairs = pooled([[5, 1]] * 4, logps=logps)
    assert sides(selected(pairs, "largest_margin-1-overall")) == [("p0s0", "p0s1")]
    assert sides(selected(pairs, "smallest_margin-1-overall")) == [("p1s0", "p1s1")]
    assert len(selected(pairs, "smallest_margin-3-overall")) == 3
    with pytest.raises(SelectionError, match=r"only 3 prompts"):
        selected(pairs, "largest_margin-4-overall")


def test_ways_to_choose_a_pair_of_one_policy_have_the_same_prompts():
    rng = random.Random(0)
    pairs = pooled([[rng.randint(1, 5) for _ in range(4)] + [0] for _ in range(40)])
    one, other = (selected(pairs, f"{kind}-10-overall")["prompt_id"] for kind in ("best_over_worst", "best_over_low"))
    assert one.equals(other)
    assert one.n_unique() == 10


def strata_pairs(n_prompts=12, n_incomplete=8):
    """Prompts with pairs in all four strata (two in the first), and others without a pair of the last."""
    sides = list(STRATA.values())
    complete = build.pairs(5 * n_prompts, per_prompt=5, correct=[*sides, sides[0]] * n_prompts)
    incomplete = build.pairs(3 * n_incomplete, per_prompt=3, correct=sides[:3] * n_incomplete)
    others = {name: "other " + incomplete[name] for name in ("pair_id", "prompt_id")}
    return pl.concat([complete, incomplete.with_columns(**others)])


@pytest.mark.parametrize("seed", range(3))
def test_strata_have_the_stated_correctness_on_the_same_prompts(seed):
    pairs, prompts = strata_pairs(), []
    for name, (chosen, rejected) in STRATA.items():
        found = selected(pairs, f"{name}-7", seed)
        assert found["chosen_correct"].to_list() == [chosen] * 7
        assert found["rejected_correct"].to_list() == [rejected] * 7
        prompts.append(found["prompt_id"].to_list())
        assert len(set(prompts[-1])) == 7
    assert prompts == [prompts[0]] * 4


@pytest.mark.parametrize("stratum", STRATA)
def test_a_stratum_with_too_few_complete_prompts_says_how_many_there_are(stratum):
    with pytest.raises(SelectionError, match=r"asks for 13, but there are only 12 prompts with pairs in all four strata"):
        selected(strata_pairs(), f"{stratum}-13")


MORE = ["matched9-overall-draw0", "top9-overall-within_length", "random9-within_correctness-draw0"]


@pytest.mark.parametrize("name", ["top9-overall", "bottom9-overall", "random9-draw0", "flipped-9", *MORE])
def test_more_pairs_than_there_are_is_an_error(name):
    with pytest.raises(SelectionError, match=r"asks for 9, but there are only 8 pairs"):
        selected(build.pairs(8), name)


@given(PAIRS)
def test_flip_exchanges_the_sides_and_negates_every_delta(pairs):
    flipped = flip(pairs)
    assert flipped.columns == pairs.columns
    for name in pairs.columns:
        if name.startswith("delta_"):
            assert flipped[name].equals(-pairs[name])
        elif name.startswith("chosen"):
            other = name.replace("chosen", "rejected")
            assert flipped[name].equals(pairs[other], check_names=False)
            assert flipped[other].equals(pairs[name], check_names=False)
        elif not name.startswith("rejected"):
            assert flipped[name].equals(pairs[name])
    assert flip(flipped).equals(pairs)


def test_the_order_is_the_same_on_every_platform_and_with_every_version():
    golden = [17659780004382039558, 9695762986297787166, 7062782868807804211]
    ids = ["c0|r0", "a longer id, of several words|é", ""]
    pairs = pl.LazyFrame({"pair_id": ids})
    orders = [candidates(part, parse("random2-draw1"), 3).collect()["_order"] for part in (pairs, pairs.head(1), pairs.tail(1))]
    assert orders[0].to_list() == golden
    assert [orders[1][0], orders[2][0]] == [golden[0], golden[2]]  # whatever the width of the others


def test_flipped_selects_random_pairs_and_flips_them():
    pairs = build.pairs(40)
    found = selected(pairs, "flipped-15")
    original = found.select("pair_id").join(pairs, on="pair_id", maintain_order="left").select(pairs.columns)
    assert len(found) == 15
    assert flip(found).equals(original)


@pytest.mark.parametrize(
    "name", ["top2-overall-within_correctness", "random2-within_both_correct-draw0", "matched2-overall-draw0"]
)
def test_what_goes_by_correctness_takes_graded_answers_only(name):
    pairs = build.pairs(6, per_prompt=1).with_columns(
        chosen_correct=pl.Series([True, True, None, None, True, True]),
        rejected_correct=pl.Series([True, True, True, None, None, True]),
    )
    found = candidates(pairs.lazy(), parse(name), 0).collect()
    assert len(found) == 3 and found["chosen_correct"].null_count() == found["rejected_correct"].null_count() == 0
    assert len(candidates(pairs.lazy(), parse("top2-overall"), 0).collect()) == 6
