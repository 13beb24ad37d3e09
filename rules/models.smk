rule pretrain_model:
    output:
        paths.BASE,
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
        spec=lambda w: specs.pretrain_spec(grid.checked(STUDY, w), w.model),
        code=CODE["pretrain_model"],
    script:
        "../workflow/scripts/pretrain_model.py"


rule fetch_model:
    output:
        paths.BASE,
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
        spec=lambda w: specs.fetch_spec(grid.checked(STUDY, w), w.model),
        code=CODE["fetch_model"],
    script:
        "../workflow/scripts/fetch_model.py"
