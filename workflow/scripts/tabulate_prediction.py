"""Rule tabulate_prediction."""

import json

from prefdelta.forecast.prediction import tabulate_prediction
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_prediction(
            snakemake.input.whatif,
            snakemake.output.csv,
            snakemake.output.arms,
            snakemake.output.predictor,
            **json.loads(snakemake.params.spec),
        )
