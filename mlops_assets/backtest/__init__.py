"""Pure backtests: a use case's own history and ways of retraining in; what each was worth out."""
