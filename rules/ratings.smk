rule rate_traces:
    input:
        traces=paths.TRACES,
    output:
        paths.RATINGS,
    log:
        "results/{study}/logs/ratings/{judge}/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/ratings/{judge}/{generator}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        spec=lambda w: specs.ratings_spec(grid.checked(STUDY, w), w.judge),
        # The server of the micro-world's judge is started by name, so its code is named here.
        code=[CODE["rate_traces"], SERVER_CODE],
    script:
        "../workflow/scripts/rate_traces.py"
