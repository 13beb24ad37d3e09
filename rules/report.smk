rule render_answers:
    input:
        unpack(inputs(reports.render_answers)),
    output:
        page=report(
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
        **params(reports.render_answers),
    message:
        "Page of all answers"
    script:
        "../workflow/scripts/render_answers.py"


rule render_report:
    input:
        unpack(inputs(reports.render_report)),
        texts=report_texts,
        accepted=lambda w: [
            file
            for file in [paths.ACCEPTED.format(study=w.study)]
            if Path(file).exists()
        ],
    output:
        report=paths.REPORT,
        provenance=paths.PROVENANCE,
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
        **params(reports.render_report, run=report_run),
    message:
        "Report"
    script:
        "../workflow/scripts/render_report.py"
