import functools

# Real models come with long texts to tokenise and code to run.
MODEL_THREADS = 8 if HUB else 1


@functools.cache
def study_here():
    """The study as it runs here. Of a cluster's nodes this machine knows nothing."""
    has_gpus = workflow.non_local_exec or devices.any_here()
    return STUDY if has_gpus or not HUB else checkpoints.without_gpus(STUDY)


@functools.lru_cache(maxsize=4096)
def planned(plan, words):
    """The job of ``plan`` for the words of a path. What can't be planned ends the process."""
    try:
        return plan(study_here(), dict(words))
    except ConfigError as error:
        sys.exit(str(error))


def job_of(plan, wildcards):
    return planned(plan, tuple(wildcards.items()))


def inputs(plan):
    """The input files of a rule, by the names of its stage function's parameters."""
    return lambda wildcards: job_of(plan, wildcards).files


@functools.cache
def code_of(script, *starts):
    reached = code(SCRIPTS / f"{script}.py", *starts)
    if workflow.is_main_process:
        codebook.keep(reached)
    return reached.digest


def params(plan, script=None, run=None):
    """What jobs depend on besides their files, and how they are run: as planned, or ``run``.

    Snakemake does not compare what a function of threads gives: run settings make nothing again.
    """
    script = script or plan.__name__
    return {
        "content": lambda wildcards: job_of(plan, wildcards).content,
        "run": run or (lambda wildcards, threads: job_of(plan, wildcards).run_settings),
        "code": lambda wildcards: code_of(script, *job_of(plan, wildcards).starts),
        "script": script,
    }


def plot_params(plan):
    """Those of a figure's rule, and the answer in words, which the figure's caption reads when the report is made."""
    return params(plan) | {"answer": lambda wildcards, output: Path(output.answer)}


def table(name, category, of, subcategory=None, file="table"):
    """The files of a table: CSV, Markdown, LaTeX, and the checksums of these."""
    csv = paths.TABLE.replace("{table}", name)
    shown = {"of": of, "as": "table"}
    return {
        file: report(
            csv,
            caption="table.rst",
            category=category,
            subcategory=subcategory,
            labels=shown,
        ),
        f"{file}_md": csv.replace(".csv", ".md"),
        f"{file}_tex": csv.replace(".csv", ".tex"),
        f"{file}_sums": csv.replace(".csv", ".sha256"),
    }


def figure(name, category, of, subcategory=None):
    """The files of a figure: PNG, SVG and PDF, and its caption with the answer in words."""
    png = paths.FIGURE.replace("{figure}", name)
    shown = {"of": of, "as": "figure"}
    return {
        "figure": report(
            png,
            caption="figure.rst",
            category=category,
            subcategory=subcategory,
            labels=shown,
        ),
        "svg": png.replace(".png", ".svg"),
        "pdf": png.replace(".png", ".pdf"),
        "answer": png.replace(".png", ".rst"),
    }


def sized(model, mem_mb, runtime):
    """Resources of a job that runs the model that `model(wildcards)` names: those given, or bounds for a real model's.

    They are ours and generous; a profile's ``set-resources`` overrides them.
    """

    def needed(wildcards):
        name = model(wildcards)
        if name not in HUB:
            return {"mem_mb": mem_mb, "runtime": runtime, "gpu": 0}
        gpus = checkpoints.model_run(study_here(), name).gpus
        return {"mem_mb": 64_000 * max(1, gpus), "runtime": 24 * 60, "gpu": gpus}

    return {
        key: lambda w, key=key: needed(w)[key] for key in ("mem_mb", "runtime", "gpu")
    }


def training_gpus(wildcards):
    return STUDY.training_run(wildcards.method).gpus


def report_run(wildcards, threads):
    """What the second Snakemake process needs of this one."""
    records = paths.RECORDS.format(study=wildcards.study)
    return ReportRun(
        snakefile=workflow.main_snakefile, config=config, records=records
    ).model_dump_json()


def report_texts(wildcards):
    """The templates of the report's text and captions."""
    folder = Path(os.path.relpath(workflow.basedir)) / "rules"
    return sorted(map(str, folder.glob("*.rst")))
