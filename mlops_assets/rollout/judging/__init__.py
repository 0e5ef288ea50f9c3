"""Does what was measured of a canary prove that it may go on? Pure: counts in, a verdict and its reason out."""
