"""Several runs under one rule of fairness: planned, trained, resumed, compared."""
