"""Sweeps: accuracy against energy, area or cycles over datapaths and formats, on Optuna."""
