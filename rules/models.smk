rule pretrain_model:
    input:
        unpack(inputs(checkpoints.pretrain_model)),
    output:
        manifest=paths.BASE,
    log:
        "results/{study}/logs/models/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/models/{model}/base.tsv"
    wildcard_constraints:
        model=rf"(?!({'|'.join(HUB) or '$^'})/)[^/]+",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        **params(checkpoints.pretrain_model),
    message:
        "Model {wildcards.model}, trained on what its authors write"
    script:
        "../workflow/scripts/pretrain_model.py"


rule fetch_model:
    input:
        unpack(inputs(checkpoints.fetch_model)),
    output:
        manifest=paths.BASE,
    log:
        "results/{study}/logs/models/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/models/{model}/base.tsv"
    wildcard_constraints:
        model="|".join(HUB) or "$^",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        **params(checkpoints.fetch_model),
    message:
        "Model {wildcards.model}, from its repository"
    script:
        "../workflow/scripts/fetch_model.py"
