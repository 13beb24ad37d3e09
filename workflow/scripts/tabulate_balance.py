"""Rule tabulate_balance."""

import json

from prefdelta.audit.balance import tabulate_balance
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_balance(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
