"""Rule tabulate_balance."""

import json

from prefdelta.balance import tabulate_balance
from prefdelta.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_balance(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
