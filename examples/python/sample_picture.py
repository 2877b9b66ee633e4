"""Make the picture of the README: source, copy-and-paste and gpgan.blend side by side.

python examples/python/sample_picture.py docs/images/sample.jpg
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import gpgan

SAMPLES = Path(gpgan.__file__).parent / "samples"
WIDTH, GAP, CAPTION = 540, 8, 34

source = Image.open(SAMPLES / "source.jpg")
target = Image.open(SAMPLES / "target.jpg")
mask = Image.open(SAMPLES / "mask.png").convert("L")
panels = {
    "source": source,
    "copy-and-paste": Image.composite(source, target, mask),
    "gpgan.blend": gpgan.blend(source, target, mask),
}

height = WIDTH * target.height // target.width
sheet = Image.new("RGB", (len(panels) * (WIDTH + GAP) - GAP, height + CAPTION), "white")
draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
for i, (caption, picture) in enumerate(panels.items()):
    left = i * (WIDTH + GAP)
    sheet.paste(picture.resize((WIDTH, height), Image.Resampling.LANCZOS), (left, 0))
    draw.text((left + WIDTH // 2, height + CAPTION // 2), caption, "black", font, anchor="mm")
sheet.save(sys.argv[1], quality=90)
