rule make_items:
    input:
        unpack(inputs(problems.make_items)),
    output:
        prompts=paths.PROMPTS,
    log:
        "results/{study}/logs/prompts/{split}.log",
    benchmark:
        "results/{study}/benchmarks/prompts/{split}.tsv"
    wildcard_constraints:
        split=r"(?!(train|dropped)\.)[^/]+",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        **params(problems.make_items),
    message:
        "Evaluation items of {wildcards.split}"
    script:
        "../workflow/scripts/make_items.py"


rule make_prompts:
    input:
        unpack(inputs(problems.make_prompts)),
    output:
        prompts=paths.TRAINING_PROMPTS,
        dropped=paths.DROPPED,
    log:
        "results/{study}/logs/prompts/train.log",
    benchmark:
        "results/{study}/benchmarks/prompts/train.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        **params(problems.make_prompts),
    message:
        "Training prompts, without those that are too like an evaluation item"
    script:
        "../workflow/scripts/make_prompts.py"
