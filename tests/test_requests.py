"""What will be asked of paid endpoints, and what it costs, before the first request: against values computed by hand."""

import build
import polars as pl
import pytest

from prefdelta.configure.load import load_study
from prefdelta.forecast.requests import Requests, answer_requests, tabulate_requests
from prefdelta.forecast.settings import Asked, RequestsSettings
from prefdelta.judge import rubric
from prefdelta.plan import forecasts
from prefdelta.study.dimensions import DIMENSIONS, PAPER
from prefdelta.study.run import Prices
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Prompts

PAID = {"kind": "url", "base_url": "https://a/v1", "api_key_env": "KEY"}
PRICES = {"input": 2.0, "output": 10.0}


def an_asked(**changes):
    words = {"name": "j", "generator": "g", "model": "m", "requests_per_prompt": 3, "characters": 400, "trace_tokens": 50}
    return Asked(**words | {"max_tokens": 7, "prices": Prices(**PRICES), "cap": 5.0} | changes)


def tabulated(folder, *asked):
    texts = ["x" * 40, "x" * 80]
    prompts = pl.DataFrame({"prompt_id": ["a", "b"], "split": "train", "task": "t", "prompt": texts, "answer": "1"})
    write_table(prompts, Prompts, folder / "prompts.parquet")
    tabulate_requests(folder / "prompts.parquet", folder / "requests.csv", settings=RequestsSettings(asked=list(asked)))
    return read_result_csv(folder / "requests.csv", Requests)


def test_requests_tokens_and_price_come_from_the_prompts(tmp_path):
    (row,) = tabulated(tmp_path, an_asked()).to_dicts()
    read, written = 3 * (2 * (100 + 50) + 120 / 4), 2 * 3 * 7
    assert (row["n_requests"], row["tokens_read"], row["tokens_written"]) == (6, read, written)
    assert row["price"] == pytest.approx((read * 2 + written * 10) / 1e6)
    assert row["cap"] == 5


def test_the_words_tell_each_who_asks_with_price_and_cap(tmp_path):
    judge = [an_asked(prices=Prices(input=1e4, output=0), generator=generator) for generator in "gh"]
    rows = tabulated(tmp_path, an_asked(name="g", prices=None, cap=None), *judge)
    first, second = answer_requests(rows)
    assert first == (
        "Requests by **g**: 6, about 990 tokens read and at most 42 written; what they cost is unknown without `prices` in `run`."
    )
    assert second == "Requests by **j**: 12, about 1.98e+03 tokens read and at most 84 written: at most 19.80 USD, cap 5.00."
    assert answer_requests(tabulated(tmp_path)) == []


def test_a_study_tells_what_it_asks_of_paid_endpoints_alone():
    content = build.config(judge=["paid", "oracle"], chosen=["rung1", "api"], versus=[])
    content["generators"]["api"] = {"backend": "openai", "model": "big", "endpoint": PAID, "system": "Think.", "draws": 3}
    content["judges"]["paid"] = {"model": "m", "endpoint": PAID, "repeats": 6, "choices_per_request": 3, "max_tokens": 100}
    content["judges"]["paid"]["separate_dimensions"] = True
    content["run"] |= {"judges": {"paid": {"prices": PRICES, "cap": 3}}, "generators": {"api": {"prices": PRICES}}}
    job = forecasts.tabulate_requests(load_study(content), {})
    assert list(job.inputs) == ["prompts"]
    asked = {(one.name, one.generator): one for one in job.settings.asked}
    assert {name for name, _ in asked} == {"paid", "api", "api.draw1", "api.draw2"}
    assert {generator for name, generator in asked if name == "paid"} >= {"rung1", "rung0", "api.draw2"}
    trace, rating = asked["api.draw1", "api.draw1"], asked["paid", "api"]
    assert (trace.requests_per_prompt, trace.characters, trace.max_tokens, trace.cap) == (4, len("Think."), 60, None)
    assert (rating.requests_per_prompt, rating.trace_tokens, rating.max_tokens, rating.cap) == (4 * 6 // 3 * 5, 60, 300, 3)
    assert rating.prices == trace.prices == Prices(**PRICES)
    content["judges"]["paid"] |= {"separate_dimensions": False, "step_coherence": "prefix"}
    by_step = {(one.name, one.generator): one for one in forecasts.tabulate_requests(load_study(content), {}).settings.asked}
    # Of 60 tokens, a request for the other dimensions and one for each of 3 steps, which see half of the trace.
    assert by_step["paid", "api"].requests_per_prompt == 4 * 6 // 3 * (1 + 3)
    assert by_step["paid", "api"].trace_tokens == (60 + 3 * 30) // 4
    assert rating.characters > len(rubric.messages(PAPER, DIMENSIONS[:1], "", "")[0]["content"])
