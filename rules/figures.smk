rule draw_experiment:
    input:
        table=paths.TABLE,
        pairs=lambda w: (
            grid.pair_files(STUDY, w.experiment) if w.experiment in PROFILES else []
        ),
    output:
        png=report(
            paths.FIGURE,
            caption="figure.rst",
            category="Findings",
            subcategory="{experiment}",
            labels={"of": "{experiment}", "as": "figure"},
        ),
        svg=paths.FIGURE.replace(".png", ".svg"),
        pdf=paths.FIGURE.replace(".png", ".pdf"),
        answer=paths.ANSWER,
    log:
        "results/{study}/logs/figures/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/figures/{experiment}.tsv"
    wildcard_constraints:
        experiment=rf"(?!({'|'.join(RESERVED)})\.)[^/.]+",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.figure_spec(grid.checked(STUDY, w), w.experiment),
        code=CODE["draw_experiment"],
    script:
        "../workflow/scripts/draw_experiment.py"


rule draw_capability:
    input:
        table=paths.TABLE.replace("{experiment}", "capability"),
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "capability"),
            caption="figure.rst",
            category="Checks",
            labels={"of": "capability of every model", "as": "figure"},
        ),
        svg="results/{study}/figures/capability.svg",
        pdf="results/{study}/figures/capability.pdf",
        answer="results/{study}/figures/capability.rst",
    log:
        "results/{study}/logs/figures/capability.log",
    benchmark:
        "results/{study}/benchmarks/figures/capability.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.capability_figure_spec(grid.checked(STUDY, w)),
        code=CODE["draw_capability"],
    script:
        "../workflow/scripts/draw_capability.py"


rule draw_judge_audit:
    input:
        table=paths.TABLE.replace("{experiment}", "judge_audit"),
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "judge_audit"),
            caption="figure.rst",
            category="Checks",
            labels={"of": "audit of the judges", "as": "figure"},
        ),
        svg="results/{study}/figures/judge_audit.svg",
        pdf="results/{study}/figures/judge_audit.pdf",
        answer="results/{study}/figures/judge_audit.rst",
    log:
        "results/{study}/logs/figures/judge_audit.log",
    benchmark:
        "results/{study}/benchmarks/figures/judge_audit.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.judge_audit_figure_spec(grid.checked(STUDY, w)),
        code=CODE["draw_judge_audit"],
    script:
        "../workflow/scripts/draw_judge_audit.py"


rule draw_balance:
    input:
        table=paths.TABLE.replace("{experiment}", "balance"),
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "balance"),
            caption="figure.rst",
            category="Checks",
            labels={"of": "balance of compared arms", "as": "figure"},
        ),
        svg="results/{study}/figures/balance.svg",
        pdf="results/{study}/figures/balance.pdf",
        answer="results/{study}/figures/balance.rst",
    log:
        "results/{study}/logs/figures/balance.log",
    benchmark:
        "results/{study}/benchmarks/figures/balance.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        code=CODE["draw_balance"],
    script:
        "../workflow/scripts/draw_balance.py"


rule draw_whatif:
    input:
        table=paths.TABLE.replace("{experiment}", "whatif"),
        overlap=paths.TABLE.replace("{experiment}", "overlap"),
        predictor=grid.predictor_files(STUDY),
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "whatif"),
            caption="figure.rst",
            category="Checks",
            labels={"of": "arms before training", "as": "figure"},
        ),
        svg="results/{study}/figures/whatif.svg",
        pdf="results/{study}/figures/whatif.pdf",
        answer="results/{study}/figures/whatif.rst",
    log:
        "results/{study}/logs/figures/whatif.log",
    benchmark:
        "results/{study}/benchmarks/figures/whatif.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.whatif_figure_spec(grid.checked(STUDY, w)),
        code=CODE["draw_whatif"],
    script:
        "../workflow/scripts/draw_whatif.py"


rule draw_prediction:
    input:
        table=paths.TABLE.replace("{experiment}", "prediction"),
        arms=paths.TABLE.replace("{experiment}", "predicted_arms"),
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "prediction"),
            caption="figure.rst",
            category="Findings",
            subcategory="prediction",
            labels={"of": "gains predicted before training", "as": "figure"},
        ),
        svg="results/{study}/figures/prediction.svg",
        pdf="results/{study}/figures/prediction.pdf",
        answer="results/{study}/figures/prediction.rst",
    log:
        "results/{study}/logs/figures/prediction.log",
    benchmark:
        "results/{study}/benchmarks/figures/prediction.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.regressions_figure_spec(grid.checked(STUDY, w)),
        code=CODE["draw_prediction"],
    script:
        "../workflow/scripts/draw_prediction.py"


rule draw_regressions:
    input:
        table=paths.TABLE.replace("{experiment}", "regressions"),
        grids=[
            paths.TABLE.replace("{experiment}", name)
            for name, experiment in STUDY.experiments.items()
            if experiment.figure == "grid"
        ],
    output:
        png=report(
            paths.FIGURE.replace("{experiment}", "regressions"),
            caption="figure.rst",
            category="Findings",
            subcategory="regressions",
            labels={"of": "what the gain depends on", "as": "figure"},
        ),
        svg="results/{study}/figures/regressions.svg",
        pdf="results/{study}/figures/regressions.pdf",
        answer="results/{study}/figures/regressions.rst",
    log:
        "results/{study}/logs/figures/regressions.log",
    benchmark:
        "results/{study}/benchmarks/figures/regressions.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        # The caption reads this file when the report is made; Snakemake does not compare a Path between runs.
        answer=lambda w, output: Path(output.answer),
        spec=lambda w: specs.regressions_figure_spec(grid.checked(STUDY, w)),
        code=CODE["draw_regressions"],
    script:
        "../workflow/scripts/draw_regressions.py"
