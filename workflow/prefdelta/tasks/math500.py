"""MATH-500: HuggingFaceH4/MATH-500 (columns problem, answer). 500 problems of Hendrycks et al., arXiv 2103.03874."""

from prefdelta.tasks.common import MathTask


class Task(MathTask):
    """Rows are used as they are."""
