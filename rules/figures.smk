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
        experiment=r"(?!capability\.)[^/.]+",
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
