"""The forward without padding computes what TRL's padded one does, on models of both families, with and without an adapter."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GptOssConfig, GptOssForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefdelta.microworld.pretrain import make_model, make_tokenizer
from prefdelta.train.packed import pack, use_packed_forward

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def batch(prompts, completions, seed=0):
    """A padded batch as DPO's collator makes it: for each prompt's length, a row for each of its completions' lengths."""
    random = torch.Generator().manual_seed(seed)
    heads = [torch.randint(4, 50, (n,), generator=random) for n in prompts]
    rows = [
        (head, torch.randint(4, 50, (n,), generator=random))
        for side in zip(*completions, strict=True)
        for head, n in zip(heads, side, strict=True)
    ]
    length = max(len(head) + len(tail) for head, tail in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, (head, tail) in enumerate(rows):
        end = len(head) + len(tail)
        ids[number, :end], mask[number, :end], labels[number, len(head) : end] = torch.cat([head, tail]), 1, tail
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True, "use_cache": False}


MIXES = {
    "mixed": batch([5, 20, 9], [(30, 4), (7, 8), (1, 60)]),
    "equal": batch([6, 6], [(10, 10), (10, 10)]),
    "one prompt": batch([12], [(3, 5, 5, 40)]),
    "no prompt": batch([0, 0], [(4, 9), (3, 3)]),
    "nothing left of a completion": batch([8, 3], [(0, 4), (5, 2)]),
}


def scores(model, inputs):
    """Outputs of the fused forward, and the gradient of a weighted sum of log-probabilities and entropies."""
    output = model(**inputs)
    weights = torch.linspace(-1, 2, output.log_probs.numel()).view_as(output.log_probs)
    (weights * output.log_probs).sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return {name: output[name].detach().float() for name in OUTPUTS}, gradients


def assert_equal_before_and_after_packing(model, inner, inputs):
    add_fused_lm_head(inner, outputs=OUTPUTS)
    padded, gradients = scores(model, inputs)
    assert use_packed_forward(inner)
    packed, others = scores(model, inputs)
    for name in OUTPUTS:
        torch.testing.assert_close(packed[name], padded[name], atol=1e-5, rtol=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-8, rtol=1e-5)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients.values())


@pytest.fixture(params=["qwen3", "llama"])
def model(request):
    torch.manual_seed(0)
    return make_model(request.param, 16, 2, 2, make_tokenizer()).eval()


@pytest.mark.parametrize("mix", MIXES)
def test_equals_the_padded_forward_in_outputs_and_gradients(model, mix):
    assert_equal_before_and_after_packing(model, model, MIXES[mix])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_equals_the_padded_forward_under_an_adapter(model, checkpointing):
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False))
    if checkpointing:
        adapted.enable_input_require_grads()
        adapted.gradient_checkpointing_enable()
        adapted.train()
    assert_equal_before_and_after_packing(adapted, model, MIXES["mixed"])


def test_equals_the_padded_forward_with_grouped_heads():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)).eval()
    assert_equal_before_and_after_packing(model, model, MIXES["mixed"])


@pytest.mark.parametrize(
    "model",
    [
        MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8)),
        GptOssForCausalLM(
            GptOssConfig(**SMALL, num_key_value_heads=2, head_dim=8, num_local_experts=4, layer_types=["full_attention"] * 2)
        ),
    ],
    ids=["window", "sinks"],
)
def test_models_that_it_does_not_fit_are_left_as_they_are(model):
    model.eval()
    add_fused_lm_head(model, outputs=OUTPUTS)
    before, _ = scores(model, MIXES["mixed"])
    assert not use_packed_forward(model)
    after, _ = scores(model, MIXES["mixed"])
    assert all(torch.equal(before[name], after[name]) for name in OUTPUTS)


def test_a_prompt_is_there_once_for_all_of_its_completions():
    inputs = MIXES["mixed"]
    packing = pack(inputs["input_ids"], inputs["attention_mask"], inputs["labels"])
    assert len(packing.tokens) == 5 + 30 + 4 + 20 + 7 + 8 + 9 + 1 + 60
    assert len(packing.predictors) == 30 + 4 + 7 + 8 + 1 + 60
