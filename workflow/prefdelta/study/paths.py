"""Where every file of a study lies: the patterns that rules declare and people request."""

_LATTICE = "{policy}/{method}/{judge}/{chosen}_vs_{rejected}/{selection}"

PROMPTS = "results/{study}/prompts/{split}.parquet"
TRAINING_PROMPTS = "results/{study}/prompts/train.parquet"
DROPPED = "results/{study}/prompts/dropped.parquet"
BASE = "results/{study}/models/{model}/base/manifest.json"
TRACES = "results/{study}/traces/{generator}.parquet"
RATINGS = "results/{study}/ratings/{judge}/{generator}.parquet"
# Of one length limit and arithmetic of training, so that another method concerns only what it needs itself.
REFERENCE = "results/{study}/reference/{policy}/{length}-{arithmetic}/{generator}.parquet"
PAIRS = "results/{study}/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.parquet"
BROWSE = "results/{study}/pairs/{judge}/{chosen}_vs_{rejected}/{selection}.html"
CHECKPOINT = f"results/{{study}}/models/{_LATTICE}/seed{{seed}}/manifest.json"
EVAL_BASE = "results/{study}/evals/{model}/base.parquet"
EVAL = f"results/{{study}}/evals/{_LATTICE}/seed{{seed}}.parquet"
EVAL_TEMPERATURES = "results/{study}/evals/{model}/temperatures.parquet"
SHIFT_BASE = "results/{study}/shift/{model}/base.parquet"
SHIFT = f"results/{{study}}/shift/{_LATTICE}/seed{{seed}}.parquet"
EXPORT = f"results/{{study}}/export/{_LATTICE}/seed{{seed}}"
TABLE = "results/{study}/tables/{table}.csv"
PREDICTOR = "results/{study}/tables/predictor.json"
FIGURE = "results/{study}/figures/{figure}.png"
ANSWERS = "results/{study}/answers.html"
REPORT = "results/{study}/report.html"
PROVENANCE = "results/{study}/provenance.rst"
RECORDS = "results/{study}/records"  # of jobs, beside their logs
ACCEPTED = "results/{study}/accepted.jsonl"  # what was kept after an edit without running
