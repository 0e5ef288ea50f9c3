"""What every member of a family must do, as test classes.

Belongs here: one file per family, with a class that a test module derives from and parametrises with the
members. Does not belong here: what one member does beyond the contract (its own tests).
"""
