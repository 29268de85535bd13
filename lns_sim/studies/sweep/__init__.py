"""Sweeps: accuracy against energy over datapaths and formats, on Optuna."""
