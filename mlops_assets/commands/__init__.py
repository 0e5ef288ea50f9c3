"""What a person asks for, behind the command line: status, explanations, decisions, backtests."""
