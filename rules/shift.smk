rule measure_base:
    input:
        unpack(inputs(shift.measure_base)),
    output:
        shifts=paths.SHIFT_BASE,
    log:
        "results/{study}/logs/shift/{model}/base.log",
    benchmark:
        "results/{study}/benchmarks/shift/{model}/base.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: w.get("model") or w.policy, 3000, 60),
    params:
        **params(shift.measure_base, "measure_shift"),
    message:
        "Entropy of the untuned {wildcards.model} at each temperature"
    script:
        "../workflow/scripts/measure_shift.py"


use rule measure_base as measure_checkpoint with:
    input:
        unpack(inputs(shift.measure_checkpoint)),
    output:
        shifts=paths.SHIFT,
    log:
        "results/{study}/logs/shift/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/shift/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    params:
        **params(shift.measure_checkpoint, "measure_shift"),
    message:
        "Shift of {wildcards.policy} by {wildcards.method} on {wildcards.chosen} over {wildcards.rejected}, {wildcards.selection}, seed {wildcards.seed}"
