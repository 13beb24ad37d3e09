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


rule tabulate_judge_audit:
    input:
        traces=rules.tabulate_generator_deltas.input.traces,
        ratings=rules.tabulate_generator_deltas.input.ratings,
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "judge_audit"),
            caption="table.rst",
            category="Checks",
            labels={"of": "audit of the judges", "as": "table"},
        ),
        md="results/{study}/tables/judge_audit.md",
        tex="results/{study}/tables/judge_audit.tex",
    log:
        "results/{study}/logs/tables/judge_audit.log",
    benchmark:
        "results/{study}/benchmarks/tables/judge_audit.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.judge_audit_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_judge_audit"],
    script:
        "../workflow/scripts/tabulate_judge_audit.py"


rule tabulate_delta_correction:
    input:
        traces=rules.tabulate_generator_deltas.input.traces,
        ratings=rules.tabulate_generator_deltas.input.ratings,
        pairs=lambda w: grid.all_files(grid.checked(STUDY, w), paths.PAIRS),
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "delta_correction"),
            caption="table.rst",
            category="Checks",
            labels={"of": "deltas without the judge's noise", "as": "table"},
        ),
        md="results/{study}/tables/delta_correction.md",
        tex="results/{study}/tables/delta_correction.tex",
    log:
        "results/{study}/logs/tables/delta_correction.log",
    benchmark:
        "results/{study}/benchmarks/tables/delta_correction.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.delta_correction_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_delta_correction"],
    script:
        "../workflow/scripts/tabulate_delta_correction.py"


rule tabulate_balance:
    input:
        traces=rules.tabulate_generator_deltas.input.traces,
        pairs=lambda w: grid.all_files(grid.checked(STUDY, w), paths.PAIRS),
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "balance"),
            caption="table.rst",
            category="Checks",
            labels={"of": "balance of compared arms", "as": "table"},
        ),
        md="results/{study}/tables/balance.md",
        tex="results/{study}/tables/balance.tex",
    log:
        "results/{study}/logs/tables/balance.log",
    benchmark:
        "results/{study}/benchmarks/tables/balance.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.balance_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_balance"],
    script:
        "../workflow/scripts/tabulate_balance.py"


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


rule tabulate_whatif:
    input:
        generator_deltas=GENERATOR_DELTAS,
        capability=paths.TABLE.replace("{experiment}", "capability"),
        pairs=lambda w: grid.all_files(grid.checked(STUDY, w), paths.PAIRS),
        references=lambda w: grid.all_references(grid.checked(STUDY, w)),
        bases=lambda w: grid.all_base_evals(grid.checked(STUDY, w)),
        predictor=grid.predictor_files(STUDY),
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "whatif"),
            caption="table.rst",
            category="Checks",
            labels={"of": "arms before training", "as": "table"},
        ),
        md="results/{study}/tables/whatif.md",
        tex="results/{study}/tables/whatif.tex",
    log:
        "results/{study}/logs/tables/whatif.log",
    benchmark:
        "results/{study}/benchmarks/tables/whatif.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.whatif_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_whatif"],
    script:
        "../workflow/scripts/tabulate_whatif.py"


rule tabulate_overlap:
    input:
        lambda w: [
            paths.PAIRS.format(**words)
            for group in grid.pair_groups(grid.checked(STUDY, w))
            for words in group
        ],
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "overlap"),
            caption="table.rst",
            category="Checks",
            labels={"of": "pairs that arms share", "as": "table"},
        ),
        md="results/{study}/tables/overlap.md",
        tex="results/{study}/tables/overlap.tex",
    log:
        "results/{study}/logs/tables/overlap.log",
    benchmark:
        "results/{study}/benchmarks/tables/overlap.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.overlap_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_overlap"],
    script:
        "../workflow/scripts/tabulate_overlap.py"


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


rule tabulate_regressions:
    input:
        generator_deltas=GENERATOR_DELTAS,
        whatif=paths.TABLE.replace("{experiment}", "whatif"),
        evals=lambda w: grid.all_files(grid.checked(STUDY, w), paths.EVAL),
        bases=lambda w: grid.all_base_evals(grid.checked(STUDY, w)),
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "regressions"),
            caption="table.rst",
            category="Findings",
            subcategory="regressions",
            labels={"of": "what the gain depends on", "as": "table"},
        ),
        md="results/{study}/tables/regressions.md",
        tex="results/{study}/tables/regressions.tex",
    log:
        "results/{study}/logs/tables/regressions.log",
    benchmark:
        "results/{study}/benchmarks/tables/regressions.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.regressions_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_regressions"],
    script:
        "../workflow/scripts/tabulate_regressions.py"


rule tabulate_prediction:
    input:
        whatif=paths.TABLE.replace("{experiment}", "whatif"),
        evals=lambda w: grid.all_files(grid.checked(STUDY, w), paths.EVAL),
        bases=lambda w: grid.all_base_evals(grid.checked(STUDY, w)),
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "prediction"),
            caption="table.rst",
            category="Findings",
            subcategory="prediction",
            labels={"of": "how well gains are predicted", "as": "table"},
        ),
        md="results/{study}/tables/prediction.md",
        tex="results/{study}/tables/prediction.tex",
        arms=report(
            paths.TABLE.replace("{experiment}", "predicted_arms"),
            caption="table.rst",
            category="Findings",
            subcategory="prediction",
            labels={"of": "predicted gain of every arm", "as": "table"},
        ),
        arms_md="results/{study}/tables/predicted_arms.md",
        arms_tex="results/{study}/tables/predicted_arms.tex",
        predictor=paths.PREDICTOR,
    log:
        "results/{study}/logs/tables/prediction.log",
    benchmark:
        "results/{study}/benchmarks/tables/prediction.tsv"
    wildcard_constraints:
        study=STUDY.study,  # another study's predictor is a file that is there, nothing to make
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda w: specs.prediction_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_prediction"],
    script:
        "../workflow/scripts/tabulate_prediction.py"


rule tabulate_claims:
    input:
        regressions=paths.TABLE.replace("{experiment}", "regressions"),
        capability=paths.TABLE.replace("{experiment}", "capability"),
        prediction=paths.TABLE.replace("{experiment}", "prediction"),
        judge_audit=paths.TABLE.replace("{experiment}", "judge_audit"),
        delta_correction=paths.TABLE.replace("{experiment}", "delta_correction"),
        experiments=[
            paths.TABLE.replace("{experiment}", name)
            for name in STUDY.experiments
            if name not in PROFILES
        ],
    output:
        csv=report(
            paths.TABLE.replace("{experiment}", "claims"),
            caption="table.rst",
            category="Answers",
            labels={"of": "all claims", "as": "table"},
        ),
        md="results/{study}/tables/claims.md",
        tex="results/{study}/tables/claims.tex",
    log:
        "results/{study}/logs/tables/claims.log",
    benchmark:
        "results/{study}/benchmarks/tables/claims.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w: specs.claims_spec(grid.checked(STUDY, w)),
        code=CODE["tabulate_claims"],
    script:
        "../workflow/scripts/tabulate_claims.py"
