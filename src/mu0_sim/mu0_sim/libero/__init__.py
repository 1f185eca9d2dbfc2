"""The LIBERO and LIBERO-PRO benchmarks: tasks, simulator, scripted expert, series of episodes."""
