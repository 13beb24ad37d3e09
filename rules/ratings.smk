rule rate_traces:
    input:
        traces=paths.TRACES,
        manifest=lambda w: grid.base_files(
            STUDY, grid.judge_model(grid.checked(STUDY, w), w.judge)
        ),
        labels=lambda w: grid.judge_labels(grid.checked(STUDY, w), w.judge),
    output:
        paths.RATINGS,
    log:
        "results/{study}/logs/ratings/{judge}/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/ratings/{judge}/{generator}.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: grid.judge_model(STUDY, w.judge), 2000, 120),
    params:
        spec=lambda w: specs.ratings_spec(grid.checked(STUDY, w), w.judge),
        code=lambda w: code_with(
            "rate_traces", *endpoint_files(STUDY.judges[w.judge].endpoint)
        ),
    script:
        "../workflow/scripts/rate_traces.py"
