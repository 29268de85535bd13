"""Sweeps: accuracy against hardware cost over datapaths and formats, on Optuna."""
