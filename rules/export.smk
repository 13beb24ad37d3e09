rule export_cell:
    input:
        unpack(inputs(exports.export_cell)),
    output:
        folder=directory(paths.EXPORT),
    log:
        "results/{study}/logs/export/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/export/{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}/seed{seed}.tsv"
    conda:
        "../envs/prefdelta.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        **params(exports.export_cell),
    message:
        "Export of {wildcards.method} on {wildcards.chosen} over {wildcards.rejected}, {wildcards.selection}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/export_cell.py"
