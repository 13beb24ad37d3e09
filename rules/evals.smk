rule evaluate_base:
    input:
        manifest=paths.BASE,
        suites=[paths.PROMPTS.replace("{split}", suite) for suite in STUDY.suites],
    output:
        paths.EVAL_BASE,
    log:
        "results/{study}/logs/evals/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/evals/{model}/base.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        spec=lambda w: specs.evaluation_spec(grid.checked(STUDY, w)),
        code=CODE["evaluate_model"],
    script:
        "../workflow/scripts/evaluate_model.py"


use rule evaluate_base as evaluate_checkpoint with:
    input:
        manifest=paths.CHECKPOINT,
        suites=[paths.PROMPTS.replace("{split}", suite) for suite in STUDY.suites],
    output:
        paths.EVAL,
    log:
        "results/{study}/logs/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
