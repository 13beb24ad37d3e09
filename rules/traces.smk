rule sample_traces:
    input:
        unpack(inputs(generation.sample_traces)),
    output:
        traces=paths.TRACES,
    log:
        "results/{study}/logs/traces/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/traces/{generator}.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: generation.running_model(STUDY, w.generator), 3000, 60),
    params:
        **params(generation.sample_traces),
    message:
        "Traces of {wildcards.generator}"
    script:
        "../workflow/scripts/sample_traces.py"
