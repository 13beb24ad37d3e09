SUITES = [paths.PROMPTS.replace("{split}", suite) for suite in STUDY.suites]


rule make_items:
    output:
        paths.PROMPTS,
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
        spec=lambda w: specs.items_spec(grid.checked(STUDY, w), w.split),
        code=lambda w: code_with(
            "make_items", *task_files(grid.checked(STUDY, w).suites[w.split])
        ),
    script:
        "../workflow/scripts/make_items.py"


rule make_prompts:
    input:
        SUITES,
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
        spec=lambda w: specs.prompts_spec(grid.checked(STUDY, w)),
        code=code_with("make_prompts", *task_files(STUDY.prompts)),
    script:
        "../workflow/scripts/make_prompts.py"
