rule build_pairs:
    input:
        unpack(lambda w: grid.pair_inputs(STUDY, w)),
    output:
        paths.PAIRS,
    log:
        "results/{study}/logs/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.log",
    benchmark:
        "results/{study}/benchmarks/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spec=lambda w: specs.pairs_spec(STUDY, w.judge, w.selection),
        code=CODE["build_pairs"],
    script:
        "../workflow/scripts/build_pairs.py"


rule browse_pairs:
    input:
        pairs=paths.PAIRS,
    output:
        report(
            paths.BROWSE,
            caption="browse.rst",
            category="Pairs",
            labels={
                "chosen": "{chosen}",
                "rejected": "{rejected}",
                "selection": "{selection}",
            },
        ),
    log:
        "results/{study}/logs/browse/{judge}/{chosen}_vs_{rejected}/{selection}.log",
    benchmark:
        "results/{study}/benchmarks/browse/{judge}/{chosen}_vs_{rejected}/{selection}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=CODE["browse_pairs"],
    script:
        "../workflow/scripts/browse_pairs.py"
