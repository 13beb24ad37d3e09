rule evaluate_base:
    input:
        manifest=paths.BASE,
        suites=SUITES,
    output:
        paths.EVAL_BASE,
    log:
        "results/{study}/logs/evals/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/evals/{model}/base.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: grid.evaluated_model(STUDY, w), 4000, 120),
    params:
        spec=lambda w: specs.evaluation_spec(STUDY, grid.evaluated_model(STUDY, w)),
        code=code_with(
            "evaluate_model",
            *backend_files(STUDY.backend),
            *(file for suite in STUDY.suites.values() for file in task_files(suite)),
        ),
    script:
        "../workflow/scripts/evaluate_model.py"


use rule evaluate_base as evaluate_checkpoint with:
    input:
        manifest=paths.CHECKPOINT,
        suites=SUITES,
    output:
        paths.EVAL,
    log:
        "results/{study}/logs/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/evals/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
