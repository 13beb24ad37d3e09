GENERATOR_DELTAS = paths.TABLE.replace("{experiment}", "generator_level_delta")


rule tabulate_capability:
    input:
        evals=[
            paths.EVAL_BASE.replace("{model}", model)
            for model in grid.evaluated_models(STUDY)
        ],
        manifests=[
            paths.BASE.replace("{model}", model)
            for model in grid.evaluated_models(STUDY)
        ],
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "capability"),
            caption="table.rst",
            category="Checks",
            labels={"of": "capability of every model", "as": "table"},
        ),
        md="results/{study}/tables/capability.md",
        tex="results/{study}/tables/capability.tex",
    log:
        "results/{study}/logs/tables/capability.log",
    benchmark:
        "results/{study}/benchmarks/tables/capability.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w: specs.capability_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_capability"],
    script:
        "../workflow/scripts/tabulate_capability.py"


rule tabulate_generator_deltas:
    input:
        traces=[paths.TRACES.replace("{generator}", name) for name in STUDY.generators],
        ratings=[
            paths.RATINGS.replace("{judge}", judge).replace("{generator}", name)
            for judge, names in grid.rated_generators(STUDY).items()
            for name in names
        ],
    output:
        csv=report(
            GENERATOR_DELTAS,
            caption="table.rst",
            category="Checks",
            labels={"of": "generator-level delta of every pair", "as": "table"},
        ),
        md=GENERATOR_DELTAS.replace(".csv", ".md"),
        tex=GENERATOR_DELTAS.replace(".csv", ".tex"),
    log:
        "results/{study}/logs/tables/generator_level_delta.log",
    benchmark:
        "results/{study}/benchmarks/tables/generator_level_delta.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w: specs.generator_deltas_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_generator_deltas"],
    script:
        "../workflow/scripts/tabulate_generator_deltas.py"


rule tabulate_coverage:
    input:
        rules.tabulate_generator_deltas.input.ratings,
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "coverage"),
            caption="table.rst",
            category="Checks",
            labels={"of": "missing ratings", "as": "table"},
        ),
        md="results/{study}/tables/coverage.md",
        tex="results/{study}/tables/coverage.tex",
    log:
        "results/{study}/logs/tables/coverage.log",
    benchmark:
        "results/{study}/benchmarks/tables/coverage.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w: specs.coverage_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_coverage"],
    script:
        "../workflow/scripts/tabulate_coverage.py"


rule tabulate_decontamination:
    input:
        prompts=paths.TRAINING_PROMPTS,
        dropped=paths.DROPPED,
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "decontamination"),
            caption="table.rst",
            category="Checks",
            labels={"of": "training prompts kept and left out", "as": "table"},
        ),
        md="results/{study}/tables/decontamination.md",
        tex="results/{study}/tables/decontamination.tex",
    log:
        "results/{study}/logs/tables/decontamination.log",
    benchmark:
        "results/{study}/benchmarks/tables/decontamination.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        code=CODE["tabulate_decontamination"],
    script:
        "../workflow/scripts/tabulate_decontamination.py"


rule tabulate_experiment:
    input:
        generator_deltas=GENERATOR_DELTAS,
        evals=lambda w: grid.experiment_files(STUDY, w, paths.EVAL),
        manifests=lambda w: grid.experiment_files(STUDY, w, paths.CHECKPOINT),
        bases=lambda w: grid.base_evals(STUDY, w),
    output:
        csv=report(
            paths.TABLE,
            caption="table.rst",
            category="Findings",
            subcategory="{experiment}",
            labels={"of": "{experiment}", "as": "table"},
        ),
        md=paths.TABLE.replace(".csv", ".md"),
        tex=paths.TABLE.replace(".csv", ".tex"),
    log:
        "results/{study}/logs/tables/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/tables/{experiment}.tsv"
    wildcard_constraints:
        experiment=rf"(?!({'|'.join([*RESERVED, *PROFILES])})\.)[^/.]+",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.experiment_spec(STUDY, w.experiment),
        code=CODE["tabulate_experiment"],
    script:
        "../workflow/scripts/tabulate_experiment.py"


rule tabulate_profile:
    input:
        generator_deltas=GENERATOR_DELTAS,
        pairs=lambda w: grid.pair_files(STUDY, w.experiment),
    output:
        csv=report(
            paths.TABLE,
            caption="table.rst",
            category="Findings",
            subcategory="{experiment}",
            labels={"of": "{experiment}", "as": "table"},
        ),
        md=paths.TABLE.replace(".csv", ".md"),
        tex=paths.TABLE.replace(".csv", ".tex"),
    log:
        "results/{study}/logs/tables/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/tables/{experiment}.tsv"
    wildcard_constraints:
        experiment="|".join(PROFILES) or "$^",
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.experiment_spec(grid.checked(STUDY, w), w.experiment),
        code=CODE["tabulate_profile"],
    script:
        "../workflow/scripts/tabulate_profile.py"
