"""The selection grammar, and which pairs each form selects."""

import string

import build
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdelta.rubric import CRITERIA
from prefdelta.selection import GRAMMAR, STRATA, Selection, SelectionError, candidates, flip, parse, select

K, CRITERION, SEED = st.integers(1, 10**6), st.sampled_from(CRITERIA), st.integers(0, 2**31)
WELL_FORMED = st.one_of(
    st.just(("full", Selection("full"))),
    st.builds(lambda k, c: (f"top{k}-{c}", Selection("top", k=k, criterion=c)), K, CRITERION),
    st.builds(lambda k, c: (f"bottom{k}-{c}", Selection("bottom", k=k, criterion=c)), K, CRITERION),
    st.builds(lambda k, d: (f"random{k}-draw{d}", Selection("random", k=k, draw=d)), K, st.integers(0, 99)),
    st.builds(lambda x, c: (f"min{x}-{c}", Selection("min", criterion=c, least=x)), st.sampled_from([0, 1, 2.5]), CRITERION),
    st.builds(lambda s, k: (f"{s}-{k}", Selection(s, k=k)), st.sampled_from(list(STRATA)), K),
    st.builds(lambda k: (f"flipped-{k}", Selection("flipped", k=k)), K),
)
MALFORMED = [
    *("", "Full", "full ", "full\n", "full-5", "top-overall", "top5", "top5overall", "top5-", "top0-overall", "top05-overall"),
    *("top-5-overall", "top5.5-overall", "top5-speed", "top5-Overall", "bottom5-overall-overall", "random5", "random5-draw"),
    *("random5-1", "random0-draw1", "min-overall", "min1.-overall", "min.5-overall", "min-1-overall", "min1"),
    *("correct_over_wrong", "correct_over_wrong-0", "correct-over-wrong-5", "both_right-5", "flipped", "flipped5", "flipped-0"),
    pytest.param("top1٣-overall", id="digits of another script"),
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


@given(st.one_of(st.text(), st.text(string.ascii_letters + string.digits)).filter(lambda name: name != "full"))
def test_any_other_text_is_answered_with_the_grammar(name):
    with pytest.raises(SelectionError) as error:
        parse(name)
    assert GRAMMAR in str(error.value)


@pytest.mark.parametrize("name", ["random5-draw07", "min1.50-overall", "min01-overall"])
def test_a_selection_has_one_name_only_so_that_it_is_trained_once(name):
    with pytest.raises(SelectionError):
        parse(name)


@given(st.integers(4, 40), SEED, SEED, st.sampled_from(["full", "top4-overall", "random4-draw1", "min0-factuality", "flipped-4"]))
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


@pytest.mark.parametrize("name", ["top9-overall", "bottom9-overall", "random9-draw0", "flipped-9"])
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
