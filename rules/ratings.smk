rule rate_traces:
    input:
        unpack(inputs(rating.rate_traces)),
    output:
        ratings=paths.RATINGS,
    log:
        "results/{study}/logs/ratings/{judge}/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/ratings/{judge}/{generator}.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: rating.judge_model(STUDY, w.judge), 2000, 120),
    params:
        **params(rating.rate_traces),
    message:
        "Ratings of the traces of {wildcards.generator} by {wildcards.judge}"
    script:
        "../workflow/scripts/rate_traces.py"
