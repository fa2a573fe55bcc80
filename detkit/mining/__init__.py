"""Mining hard negatives: what a detector takes for objects becomes pictures of background to train against.

Detections (of a checkpoint, or of any program) -> background errors -> ranked, without overlaps and look-alikes ->
crops -> the negative set -> training canvases. ``round`` does it all, ``scan`` is its first half and ``canvases`` what
training reads. Knows no training and no models: whoever can list detections can mine.
"""
