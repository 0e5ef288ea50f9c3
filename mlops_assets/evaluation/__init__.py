"""Evaluation of a challenger: scores and outcomes in, comparisons, verdicts and plots out. Pure."""
