"""One plan for many frames, and a generator of one's own: the kite flies over the lake.

python examples/python/many_frames.py frames/
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import gpgan

SAMPLES = Path(gpgan.__file__).parent / "samples"


def failing_light(composite, mask, harmonized, source):
    """What Poisson cloning gives, the object a tenth darker; all arrays float32, S x S."""
    return harmonized * (1 - 0.1 * mask[..., None])


failing_light.image_size = 128  # S; 64 if not said

kite = (slice(140, 360), slice(210, 450))
source = np.asarray(Image.open(SAMPLES / "source.jpg"))[kite]
mask = np.asarray(Image.open(SAMPLES / "mask.png").convert("L"))[kite]
target = np.asarray(Image.open(SAMPLES / "target.jpg"))

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
blender = gpgan.Blender(target.shape, generator=failing_light)
frame = np.empty_like(target)
for i in range(12):
    # It enters on the left and leaves on the right: what lies outside is clipped.
    blender(source, target, mask, offset=(200 - 12 * i, 100 * i - 150), out=frame)
    Image.fromarray(frame).save(folder / f"{i:02d}.jpg")
