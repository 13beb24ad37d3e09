rule evaluate_base:
    input:
        unpack(inputs(generation.evaluate_base)),
    output:
        predictions=paths.EVAL_BASE,
    log:
        "results/{study}/logs/evals/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/evals/{model}/base.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: w.get("model") or w.policy, 4000, 120),
    params:
        **params(generation.evaluate_base, "evaluate_model"),
    message:
        "Answers of the untuned {wildcards.model} to all evaluation items"
    script:
        "../workflow/scripts/{params.script}.py"


use rule evaluate_base as evaluate_temperatures with:
    input:
        unpack(inputs(generation.evaluate_temperatures)),
    output:
        tempered=paths.EVAL_TEMPERATURES,
    log:
        "results/{study}/logs/evals/{model}/temperatures.log",
    benchmark:
        "results/{study}/benchmarks/evals/{model}/temperatures.tsv"
    params:
        **params(generation.evaluate_temperatures),
    message:
        "Answers of the untuned {wildcards.model} at other temperatures"


use rule evaluate_base as evaluate_checkpoint with:
    input:
        unpack(inputs(generation.evaluate_checkpoint)),
    output:
        predictions=paths.EVAL,
    log:
        "results/{study}/logs/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    params:
        **params(generation.evaluate_checkpoint, "evaluate_model"),
    message:
        "Answers to all evaluation items: {wildcards.method} on {wildcards.chosen} over {wildcards.rejected}, {wildcards.selection}, seed {wildcards.seed}"
