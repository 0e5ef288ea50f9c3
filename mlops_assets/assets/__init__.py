"""What one asset's step does, and what steps share."""
