rule sample_traces:
    input:
        prompts=paths.TRAINING_PROMPTS,
        manifest=lambda w: grid.base_files(
            STUDY, grid.generator_model(grid.checked(STUDY, w), w.generator)
        ),
    output:
        paths.TRACES,
    log:
        "results/{study}/logs/traces/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/traces/{generator}.tsv"
    conda:
        "../envs/vllm.yaml"
    threads: MODEL_THREADS
    resources:
        **sized(lambda w: grid.running_model(STUDY, w.generator), 3000, 60),
    params:
        spec=lambda w: specs.traces_spec(STUDY, w.generator),
        code=lambda w: code_with(
            "sample_traces",
            *backend_files(grid.backend(STUDY, w.generator)),
            *endpoint_files(grid.endpoint(STUDY, w.generator)),
            *task_files(STUDY.prompts),
        ),
    script:
        "../workflow/scripts/sample_traces.py"
