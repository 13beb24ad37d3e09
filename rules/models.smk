rule make_prompts:
    output:
        paths.PROMPTS,
    log:
        "results/{study}/logs/prompts/{split}.log",
    benchmark:
        "results/{study}/benchmarks/prompts/{split}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=lambda w: specs.prompts_spec(grid.checked(STUDY, w), w.split),
        code=CODE["make_prompts"],
    script:
        "../workflow/scripts/make_prompts.py"


rule pretrain_model:
    output:
        paths.BASE,
    log:
        "results/{study}/logs/models/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/models/{model}/base.tsv"
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
