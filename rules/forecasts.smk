use rule tabulate_capability as tabulate_whatif with:
    input:
        unpack(inputs(forecasts.tabulate_whatif)),
    output:
        **table("whatif", "Checks", "arms before training"),
    log:
        "results/{study}/logs/tables/whatif.log",
    benchmark:
        "results/{study}/benchmarks/tables/whatif.tsv"
    params:
        **params(forecasts.tabulate_whatif),
    message:
        "Table: arms before training"


use rule plot_capability as plot_whatif with:
    input:
        unpack(inputs(forecasts.plot_whatif)),
    output:
        **figure("whatif", "Checks", "arms before training"),
    log:
        "results/{study}/logs/figures/whatif.log",
    benchmark:
        "results/{study}/benchmarks/figures/whatif.tsv"
    params:
        **plot_params(forecasts.plot_whatif),
    message:
        "Figure: arms before training"


use rule tabulate_capability as tabulate_requests with:
    input:
        unpack(inputs(forecasts.tabulate_requests)),
    output:
        **table("requests", "Checks", "requests to paid endpoints"),
    log:
        "results/{study}/logs/tables/requests.log",
    benchmark:
        "results/{study}/benchmarks/tables/requests.tsv"
    params:
        **params(forecasts.tabulate_requests),
    message:
        "Table: requests to paid endpoints"


use rule tabulate_capability as tabulate_overlap with:
    input:
        unpack(inputs(forecasts.tabulate_overlap)),
    output:
        **table("overlap", "Checks", "pairs that arms share"),
    log:
        "results/{study}/logs/tables/overlap.log",
    benchmark:
        "results/{study}/benchmarks/tables/overlap.tsv"
    params:
        **params(forecasts.tabulate_overlap),
    message:
        "Table: pairs that arms share"


use rule tabulate_capability as tabulate_prediction with:
    input:
        unpack(inputs(forecasts.tabulate_prediction)),
    output:
        **table("prediction", "Findings", "how well gains are predicted", "prediction"),
        **table(
            "predicted_arms",
            "Findings",
            "predicted gain of every arm",
            "prediction",
            "arms",
        ),
        predictor=paths.PREDICTOR,
    log:
        "results/{study}/logs/tables/prediction.log",
    benchmark:
        "results/{study}/benchmarks/tables/prediction.tsv"
    params:
        **params(forecasts.tabulate_prediction),
    message:
        "Table: how well gains are predicted"


use rule plot_capability as plot_prediction with:
    input:
        unpack(inputs(forecasts.plot_prediction)),
    output:
        **figure(
            "prediction", "Findings", "gains predicted before training", "prediction"
        ),
    log:
        "results/{study}/logs/figures/prediction.log",
    benchmark:
        "results/{study}/benchmarks/figures/prediction.tsv"
    params:
        **plot_params(forecasts.plot_prediction),
    message:
        "Figure: gains predicted before training"
