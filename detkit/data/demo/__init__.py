"""The demo data: faces among face-like clutter, made from images that scikit-image installs.

``write_demo`` writes a COCO data set; ``sources`` says where every image comes from and into which split it
goes, ``scenes`` composes a scene, and ``writing`` writes the files.
"""

from detkit.data.demo.writing import DemoSpec, write_demo

__all__ = ["DemoSpec", "write_demo"]
