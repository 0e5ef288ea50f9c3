"""``make loop``: the whole loop on a virtual clock, told as a story, from an empty folder.

Belongs here: playing the world outside of the platform (callers, time, late outcomes, a colleague with a bad
model) against the real stack, and telling what the platform does by itself. Does not belong here: anything
the platform does; here nobody trains, judges, approves or deploys.
"""
