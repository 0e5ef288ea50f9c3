"""What exists: one folder per use case, and the platform's own. Declarations only."""
