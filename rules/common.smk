def code_with(script, *files):
    """The digest of a script and of what it starts by name."""
    return code_digest(SCRIPTS / f"{script}.py", *files)


def backend_files(backend):
    """Modules of a backend."""
    modules = {"vllm": ["generate/backend_vllm", "generate/vllm_engine"]}
    return [
        PACKAGE / f"{module}.py"
        for module in modules.get(backend, [f"generate/backend_{backend}"])
    ]


def task_files(tasks):
    """Modules of tasks."""
    return [module_file(task) for task in tasks]


def endpoint_files(endpoint):
    """Modules of what serves an endpoint."""
    started = {"microworld": "microworld/server.py", "vllm": "generate/backend_vllm.py"}
    started["transformers"] = "endpoint/transformers_server.py"
    return [
        PACKAGE / file
        for kind, file in started.items()
        if endpoint and kind == endpoint.kind
    ]


def sized(model, mem_mb, runtime):
    """Resources of a job that runs the model that `model(wildcards)` names: those given, or a real model's."""
    small = {"mem_mb": mem_mb, "runtime": runtime}
    return {
        key: lambda w, key=key: grid.job_size(STUDY, model(w), small)[key]
        for key in ("mem_mb", "runtime", "gpu")
    }
