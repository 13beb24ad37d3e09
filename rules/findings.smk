# Any name but those of tables that every study has: a wrong one is answered with the choices.
TRAINED = rf"(?!({'|'.join([*RESERVED, *PROFILES, *SWEEPS])})\.)[^/.]+"
PROFILED = "|".join(PROFILES) or "$^"
SWEPT = "|".join(SWEEPS) or "$^"


rule tabulate_capability:
    input:
        unpack(inputs(findings.tabulate_capability)),
    output:
        **table("capability", "Checks", "capability of every model"),
    log:
        "results/{study}/logs/tables/capability.log",
    benchmark:
        "results/{study}/benchmarks/tables/capability.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        **params(findings.tabulate_capability),
    message:
        "Table: capability of every model"
    script:
        "../workflow/scripts/{params.script}.py"


rule plot_capability:
    input:
        unpack(inputs(findings.plot_capability)),
    output:
        **figure("capability", "Checks", "capability of every model"),
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
        **plot_params(findings.plot_capability),
    message:
        "Figure: capability of every model"
    script:
        "../workflow/scripts/{params.script}.py"


use rule tabulate_capability as tabulate_experiment with:
    input:
        unpack(inputs(findings.tabulate_experiment)),
    output:
        **table("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/tables/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/tables/{experiment}.tsv"
    wildcard_constraints:
        experiment=TRAINED,
    params:
        **params(findings.tabulate_experiment),
    message:
        "Table of {wildcards.experiment}"


use rule tabulate_capability as tabulate_profile with:
    input:
        unpack(inputs(findings.tabulate_profile)),
    output:
        **table("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/tables/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/tables/{experiment}.tsv"
    wildcard_constraints:
        experiment=PROFILED,
    params:
        **params(findings.tabulate_profile),
    message:
        "Table of {wildcards.experiment}"


use rule tabulate_capability as tabulate_recipes with:
    input:
        unpack(inputs(recipes.tabulate_recipes)),
    output:
        **table("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/tables/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/tables/{experiment}.tsv"
    wildcard_constraints:
        experiment=SWEPT,
    params:
        **params(recipes.tabulate_recipes),
    message:
        "Table of {wildcards.experiment}"


use rule plot_capability as plot_experiment with:
    input:
        unpack(inputs(findings.plot_experiment)),
    output:
        **figure("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/figures/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/figures/{experiment}.tsv"
    wildcard_constraints:
        experiment=TRAINED,
    params:
        **plot_params(findings.plot_experiment),
    message:
        "Figure of {wildcards.experiment}"


use rule plot_capability as plot_recipes with:
    input:
        unpack(inputs(recipes.plot_recipes)),
    output:
        **figure("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/figures/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/figures/{experiment}.tsv"
    wildcard_constraints:
        experiment=SWEPT,
    params:
        **plot_params(recipes.plot_recipes),
    message:
        "Figure of {wildcards.experiment}"


use rule plot_capability as plot_profile with:
    input:
        unpack(inputs(findings.plot_profile)),
    output:
        **figure("{experiment}", "Findings", "{experiment}", "{experiment}"),
    log:
        "results/{study}/logs/figures/{experiment}.log",
    benchmark:
        "results/{study}/benchmarks/figures/{experiment}.tsv"
    wildcard_constraints:
        experiment=PROFILED,
    params:
        **plot_params(findings.plot_profile),
    message:
        "Figure of {wildcards.experiment}"


use rule tabulate_capability as tabulate_sharpening with:
    input:
        unpack(inputs(findings.tabulate_sharpening)),
    output:
        **table("sharpening", "Answers", "what each gain is made of"),
    log:
        "results/{study}/logs/tables/sharpening.log",
    benchmark:
        "results/{study}/benchmarks/tables/sharpening.tsv"
    params:
        **params(findings.tabulate_sharpening),
    message:
        "Table: what each gain is made of"


use rule plot_capability as plot_sharpening with:
    input:
        unpack(inputs(findings.plot_sharpening)),
    output:
        **figure("sharpening", "Answers", "what each gain is made of"),
    log:
        "results/{study}/logs/figures/sharpening.log",
    benchmark:
        "results/{study}/benchmarks/figures/sharpening.tsv"
    params:
        **plot_params(findings.plot_sharpening),
    message:
        "Figure: what each gain is made of"


use rule tabulate_capability as tabulate_generator_deltas with:
    input:
        unpack(inputs(findings.tabulate_generator_deltas)),
    output:
        **table(
            "generator_level_delta", "Checks", "generator-level delta of every pair"
        ),
    log:
        "results/{study}/logs/tables/generator_level_delta.log",
    benchmark:
        "results/{study}/benchmarks/tables/generator_level_delta.tsv"
    params:
        **params(findings.tabulate_generator_deltas),
    message:
        "Table: generator-level delta of every pair"


use rule tabulate_capability as tabulate_regressions with:
    input:
        unpack(inputs(findings.tabulate_regressions)),
    output:
        **table("regressions", "Findings", "what the gain depends on", "regressions"),
    log:
        "results/{study}/logs/tables/regressions.log",
    benchmark:
        "results/{study}/benchmarks/tables/regressions.tsv"
    params:
        **params(findings.tabulate_regressions),
    message:
        "Table: what the gain depends on"


use rule plot_capability as plot_regressions with:
    input:
        unpack(inputs(findings.plot_regressions)),
    output:
        **figure("regressions", "Findings", "what the gain depends on", "regressions"),
    log:
        "results/{study}/logs/figures/regressions.log",
    benchmark:
        "results/{study}/benchmarks/figures/regressions.tsv"
    params:
        **plot_params(findings.plot_regressions),
    message:
        "Figure: what the gain depends on"


use rule tabulate_capability as tabulate_two_deltas with:
    input:
        unpack(inputs(findings.tabulate_two_deltas)),
    output:
        **table("two_deltas", "Findings", "what each delta buys", "two_deltas"),
    log:
        "results/{study}/logs/tables/two_deltas.log",
    benchmark:
        "results/{study}/benchmarks/tables/two_deltas.tsv"
    params:
        **params(findings.tabulate_two_deltas),
    message:
        "Table: what each delta buys, given the other"


use rule tabulate_capability as tabulate_claims with:
    input:
        unpack(inputs(findings.tabulate_claims)),
    output:
        **table("claims", "Answers", "all claims"),
    log:
        "results/{study}/logs/tables/claims.log",
    benchmark:
        "results/{study}/benchmarks/tables/claims.tsv"
    params:
        **params(findings.tabulate_claims),
    message:
        "Table: all claims"


use rule tabulate_capability as tabulate_replication with:
    input:
        unpack(inputs(findings.tabulate_replication)),
    output:
        **table("replication", "Answers", "claims of another study"),
    log:
        "results/{study}/logs/tables/replication.log",
    benchmark:
        "results/{study}/benchmarks/tables/replication.tsv"
    params:
        **params(findings.tabulate_replication),
    message:
        "Table: claims of another study"


use rule plot_capability as plot_replication with:
    input:
        unpack(inputs(findings.plot_replication)),
    output:
        **figure("replication", "Answers", "claims of another study"),
    log:
        "results/{study}/logs/figures/replication.log",
    benchmark:
        "results/{study}/benchmarks/figures/replication.tsv"
    params:
        **plot_params(findings.plot_replication),
    message:
        "Figure: claims of another study"
