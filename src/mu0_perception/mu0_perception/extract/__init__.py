"""TraceExtract: recordings in, training episodes out."""
