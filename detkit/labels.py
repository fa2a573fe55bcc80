"""The two labels that are not a class.

An anchor's label is a class index (0 ... K - 1), BACKGROUND or IGNORE; an anchor's match is the index of a
box in its image, BACKGROUND or IGNORE. The C++ side defines the same two numbers in csrc/labels.h, and a test
holds them equal.
"""

BACKGROUND = -1
IGNORE = -2
