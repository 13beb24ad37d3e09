rule export_cell:
    input:
        pairs=lambda w: paths.PAIRS.format(**grid.checked_names(STUDY, w)),
        checkpoint=paths.CHECKPOINT,
        evals=paths.EVAL,
        base_evals=paths.EVAL_BASE.replace("{model}", "{policy}"),
    output:
        directory(paths.EXPORT),
    log:
        "results/{study}/logs/export/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/export/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        spec=lambda w: specs.export_spec(STUDY, dict(w.items())),
        code=CODE["export_cell"],
    script:
        "../workflow/scripts/export_cell.py"
