"""Will this flight arrive more than 15 minutes late? Declared in ``defs.yaml``."""
