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
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: w.policy, 3000, 60),
    params:
        spec=lambda w: specs.reference_spec(grid.checked(STUDY, w), w.policy),
        code=CODE["compute_reference"],
    script:
        "../workflow/scripts/compute_reference.py"


rule train_policy:
    input:
        unpack(lambda w: grid.training_ratings(STUDY, w)),
        unpack(lambda w: grid.training_references(STUDY, w)),
        pairs=lambda w: paths.PAIRS.format(**grid.checked_names(STUDY, w)),
        base=paths.BASE.replace("{model}", "{policy}"),
    output:
        paths.CHECKPOINT,
    log:
        "results/{study}/logs/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: MODEL_THREADS
    resources:
        mem_mb=lambda w: grid.training_size(STUDY, w.method)["mem_mb"],
        runtime=lambda w: grid.training_size(STUDY, w.method)["runtime"],
        gpu=lambda w: grid.training_size(STUDY, w.method)["gpu"],
    params:
        spec=lambda w: specs.training_spec(STUDY, dict(w.items())),
        code=CODE["train_policy"],
    script:
        "../workflow/scripts/train_policy.py"
