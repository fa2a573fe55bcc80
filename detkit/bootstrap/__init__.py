"""Bootstrapping: training and mining in turn, each round against what the detector still takes for objects.

``bootstrapping`` is what happens when a round ends, ``scans`` the detector's look at what may hold false positives.
``settings`` says when rounds end and what ends bootstrapping, ``rounds`` decides it from what the rounds gave, and
``compute`` charges a run for the images that it only looks at.
"""
