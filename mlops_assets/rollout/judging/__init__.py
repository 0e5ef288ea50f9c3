"""Does what was measured of a canary prove that it may go on? Pure: counts in, verdict and reason out."""
