REPORTED = [
    paths.ANSWERS,
    *(
        paths.FIGURE.replace("{experiment}", name)
        for name in [
            *STUDY.experiments,
            "capability",
            "judge_audit",
            "balance",
            "whatif",
        ]
    ),
    *(
        paths.TABLE.replace("{experiment}", name)
        for name in [*STUDY.experiments, *RESERVED]
    ),
    *(
        file.replace(".parquet", ".html")
        for name in PROFILES
        for file in grid.pair_files(STUDY, name)
    ),
]


rule render_answers:
    input:
        claims=paths.TABLE.replace("{experiment}", "claims"),
        figures=[
            paths.FIGURE.replace("{experiment}", name)
            for name in [
                *STUDY.experiments,
                "regressions",
                "judge_audit",
                "prediction",
            ]
        ],
    output:
        report(
            paths.ANSWERS,
            caption="answers.rst",
            category="Answers",
            labels={"of": "all questions", "as": "page"},
        ),
    log:
        "results/{study}/logs/answers.log",
    benchmark:
        "results/{study}/benchmarks/answers.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=lambda w: specs.answers_spec(grid.checked(STUDY, w)),
        code=CODE["render_answers"],
    script:
        "../workflow/scripts/render_answers.py"


rule render_report:
    input:
        REPORTED,
    output:
        paths.REPORT,
    log:
        "results/{study}/logs/report.log",
    benchmark:
        "results/{study}/benchmarks/report.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w, input: specs.canonical(
            {
                "config": config,
                "targets": list(input),
                "snakefile": str(workflow.main_snakefile),
            }
        ),
        code=CODE["render_report"],
    script:
        "../workflow/scripts/render_report.py"
