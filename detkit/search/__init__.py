"""Model selection: trials of one experiment that differ in some keys, drawn by optuna, which only this part knows.

It is handed a callable that runs a trial, and knows no models and no training.
"""
