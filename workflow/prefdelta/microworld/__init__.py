"""The embedded world: problems, authors, oracle, models and judge server, small enough for two cores and exactly known."""
