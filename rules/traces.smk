rule sample_traces:
    input:
        prompts=paths.PROMPTS.replace("{split}", "train"),
        manifest=lambda w: paths.BASE.format(
            study=w.study, model=grid.checked(STUDY, w).generators[w.generator].model
        ),
    output:
        paths.TRACES,
    log:
        "results/{study}/logs/traces/{generator}.log",
    benchmark:
        "results/{study}/benchmarks/traces/{generator}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=lambda w: specs.traces_spec(STUDY, w.generator),
        code=CODE["sample_traces"],
    script:
        "../workflow/scripts/sample_traces.py"
