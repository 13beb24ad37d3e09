"""Rule train_policy."""

import json

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.run.job import job
    from prefdelta.study.recipe import Gates
    from prefdelta.train.policy import train_policy

    with job(snakemake.log[0], snakemake.resources.gpu):
        by_side = {
            kind: {name.removesuffix(kind): file for name, file in snakemake.input.items() if name.endswith(kind)}
            for kind in ("_ratings", "_reference")
        }
        train_policy(
            snakemake.input.pairs,
            snakemake.input.base,
            by_side["_ratings"],
            by_side["_reference"],
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
            # Not in the spec: what is trained does not depend on them, so that another threshold trains nothing again.
            gates=Gates.model_validate(snakemake.config.get("gates", {})),
            threads=snakemake.threads,
        )
