"""Studies of models: training, one batch in three arithmetics, contests of recipes, sweeps of datapaths, energy."""
