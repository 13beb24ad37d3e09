"""Where every file of a study lies: the patterns that rules declare and people request."""

from pathlib import Path

_LATTICE = "{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}"

PROMPTS = "results/{study}/prompts/{split}.parquet"
TRAINING_PROMPTS = "results/{study}/prompts/train.parquet"
DROPPED = "results/{study}/prompts/dropped.parquet"
BASE = "results/{study}/models/{model}/base/manifest.json"
TRACES = "results/{study}/traces/{generator}.parquet"
RATINGS = "results/{study}/ratings/{judge}/{generator}.parquet"
REFERENCE = "results/{study}/reference/{policy}/{generator}.parquet"
PAIRS = "results/{study}/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.parquet"
BROWSE = "results/{study}/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.html"
CHECKPOINT = f"results/{{study}}/models/{_LATTICE}/seed{{seed}}/manifest.json"
EVAL_BASE = "results/{study}/evals/{model}/base.parquet"
EVAL = f"results/{{study}}/evals/{_LATTICE}/seed{{seed}}.parquet"
EXPORT = f"results/{{study}}/export/{_LATTICE}/seed{{seed}}"
TABLE = "results/{study}/tables/{experiment}.csv"
PREDICTOR = "results/{study}/tables/predictor.json"
FIGURE = "results/{study}/figures/{experiment}.png"
ANSWER = "results/{study}/figures/{experiment}.rst"
ANSWERS = "results/{study}/answers.html"
REPORT = "results/{study}/report.html"

SHIPPED = "micro-world"  # in place of a path: the predictor that comes with the package


def predictor_file(predictor: Path | str) -> Path:
    """Where a predictor lies that is named by its path, or `SHIPPED`."""
    return Path(__file__).parents[1] / "forecast" / "predictor.json" if str(predictor) == SHIPPED else Path(predictor)
