use rule tabulate_capability as tabulate_coverage with:
    input:
        unpack(inputs(audits.tabulate_coverage)),
    output:
        **table("coverage", "Checks", "missing ratings"),
    log:
        "results/{study}/logs/tables/coverage.log",
    benchmark:
        "results/{study}/benchmarks/tables/coverage.tsv"
    params:
        **params(audits.tabulate_coverage),
    message:
        "Table: missing ratings"


use rule tabulate_capability as tabulate_decontamination with:
    input:
        unpack(inputs(audits.tabulate_decontamination)),
    output:
        **table("decontamination", "Checks", "training prompts kept and left out"),
    log:
        "results/{study}/logs/tables/decontamination.log",
    benchmark:
        "results/{study}/benchmarks/tables/decontamination.tsv"
    params:
        **params(audits.tabulate_decontamination),
    message:
        "Table: training prompts kept and left out"


use rule tabulate_capability as tabulate_judge_audit with:
    input:
        unpack(inputs(audits.tabulate_judge_audit)),
    output:
        **table("judge_audit", "Checks", "audit of the judges"),
    log:
        "results/{study}/logs/tables/judge_audit.log",
    benchmark:
        "results/{study}/benchmarks/tables/judge_audit.tsv"
    params:
        **params(audits.tabulate_judge_audit),
    message:
        "Table: audit of the judges"


use rule plot_capability as plot_judge_audit with:
    input:
        unpack(inputs(audits.plot_judge_audit)),
    output:
        **figure("judge_audit", "Checks", "audit of the judges"),
    log:
        "results/{study}/logs/figures/judge_audit.log",
    benchmark:
        "results/{study}/benchmarks/figures/judge_audit.tsv"
    params:
        **plot_params(audits.plot_judge_audit),
    message:
        "Figure: audit of the judges"


use rule tabulate_capability as tabulate_delta_correction with:
    input:
        unpack(inputs(audits.tabulate_delta_correction)),
    output:
        **table("delta_correction", "Checks", "deltas without the judge's noise"),
    log:
        "results/{study}/logs/tables/delta_correction.log",
    benchmark:
        "results/{study}/benchmarks/tables/delta_correction.tsv"
    params:
        **params(audits.tabulate_delta_correction),
    message:
        "Table: deltas without the judge's noise"


use rule tabulate_capability as tabulate_balance with:
    input:
        unpack(inputs(audits.tabulate_balance)),
    output:
        **table("balance", "Checks", "balance of compared arms"),
    log:
        "results/{study}/logs/tables/balance.log",
    benchmark:
        "results/{study}/benchmarks/tables/balance.tsv"
    params:
        **params(audits.tabulate_balance),
    message:
        "Table: balance of compared arms"


use rule plot_capability as plot_balance with:
    input:
        unpack(inputs(audits.plot_balance)),
    output:
        **figure("balance", "Checks", "balance of compared arms"),
    log:
        "results/{study}/logs/figures/balance.log",
    benchmark:
        "results/{study}/benchmarks/figures/balance.tsv"
    params:
        **plot_params(audits.plot_balance),
    message:
        "Figure: balance of compared arms"
