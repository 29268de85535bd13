"""Training a classifier by several recipes and comparing the outcomes: data, trainer, experiment, report."""
