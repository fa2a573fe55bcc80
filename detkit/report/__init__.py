"""Pictures and plots, drawn from result files alone."""
