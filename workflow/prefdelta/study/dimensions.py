"""The five dimensions of reasoning quality (arXiv 2604.08723, section 3), and the scale of a rating."""

# Apart from the words of the rubric, so that another wording concerns only those who ask or show it.
DIMENSIONS = ("factuality", "strategy_coherence", "step_coherence", "computational_precision", "signal_to_noise")
CRITERIA = (*DIMENSIONS, "overall")  # what a pair can be selected by: a dimension, or the mean of all
LEVELS = range(1, 6)
