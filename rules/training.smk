rule compute_reference:
    input:
        unpack(inputs(training.compute_reference)),
    output:
        references=paths.REFERENCE,
    log:
        "results/{study}/logs/reference/{policy}/{length}-{arithmetic}/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/reference/{policy}/{length}-{arithmetic}/{generator}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: w.policy, 3000, 60),
    params:
        **params(training.compute_reference),
    message:
        "Reference log-probabilities of the traces of {wildcards.generator} under {wildcards.policy}"
    script:
        "../workflow/scripts/compute_reference.py"


rule train_policy:
    input:
        unpack(inputs(training.train_policy)),
    output:
        manifest=paths.CHECKPOINT,
    log:
        "results/{study}/logs/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/models/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: MODEL_THREADS
    resources:
        mem_mb=lambda w: 96_000 * training_gpus(w) or 4000,
        runtime=lambda w: 24 * 60 if training_gpus(w) else 240,
        gpu=training_gpus,
    params:
        **params(training.train_policy),
    message:
        "{wildcards.policy}, {wildcards.method} on {wildcards.chosen} over {wildcards.rejected}, {wildcards.selection}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/train_policy.py"
