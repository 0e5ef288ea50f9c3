"""Pure judgement: scores and outcomes in, measurements, verdicts and plots out."""
