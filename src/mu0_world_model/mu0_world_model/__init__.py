"""μ₀: the trace world model, its checkpoints, training and evaluation."""
