rule build_pairs:
    input:
        unpack(inputs(pairs.build_pairs)),
    output:
        pairs=paths.PAIRS,
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
        **params(pairs.build_pairs),
    message:
        "Pairs {wildcards.selection} of {wildcards.chosen} over {wildcards.rejected}, rated by {wildcards.judge}"
    script:
        "../workflow/scripts/build_pairs.py"


rule browse_pairs:
    input:
        unpack(inputs(pairs.browse_pairs)),
    output:
        page=report(
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
        **params(pairs.browse_pairs),
    message:
        "Page of the pairs {wildcards.selection} of {wildcards.chosen} over {wildcards.rejected}"
    script:
        "../workflow/scripts/browse_pairs.py"
