rule compute_reference:
    input:
        traces=paths.TRACES,
        manifest=paths.BASE.replace("{model}", "{policy}"),
    output:
        paths.REFERENCE,
    log:
        "results/{study}/logs/reference/{policy}/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/reference/{policy}/{generator}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=lambda w: specs.reference_spec(grid.checked(STUDY, w)),
        code=CODE["compute_reference"],
    script:
        "../workflow/scripts/compute_reference.py"


rule train_policy:
    input:
        pairs=lambda w: paths.PAIRS.format(**grid.checked_names(STUDY, w)),
        base=paths.BASE.replace("{model}", "{policy}"),
        chosen_reference=paths.REFERENCE.replace("{generator}", "{chosen}"),
        rejected_reference=paths.REFERENCE.replace("{generator}", "{rejected}"),
    output:
        paths.CHECKPOINT,
    log:
        "results/{study}/logs/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        spec=lambda w: specs.training_spec(STUDY, dict(w.items())),
        code=CODE["train_policy"],
    script:
        "../workflow/scripts/train_policy.py"
