"""Reading, checking, transforming and loading COCO data."""
