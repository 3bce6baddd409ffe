"""Draws a small data set of coloured scenes, one thing somewhere in each (needs Pillow): python tools/scenes.py DIR

DIR/train/CLASS/N.jpg and DIR/val/CLASS/N.jpg, as `format: folder` takes them. The same pictures every time.
"""
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIDE, FINE = 128, 4  # pixels of a picture, and what it is drawn at


def colour(rng, low=40, high=235):
    return tuple(rng.randint(low, high) for _ in range(3))


def background(rng, size):
    """Sky over land, with clouds and bushes that are nothing."""
    sky, land = (rng.randint(90, 190), rng.randint(140, 210), rng.randint(190, 255)), (rng.randint(50, 150), rng.randint(90, 170), rng.randint(30, 90))
    image = Image.new("RGB", (size, size), sky)
    draw = ImageDraw.Draw(image)
    horizon = int(size * rng.uniform(0.45, 0.75))
    draw.rectangle((0, horizon, size, size), fill=land)
    for _ in range(rng.randint(3, 6)):
        x, y, w = rng.randint(0, size), rng.randint(0, horizon), rng.randint(size // 12, size // 5)
        draw.ellipse((x - w, y - w // 3, x + w, y + w // 3), fill=tuple(min(255, c + 35) for c in sky))
    for _ in range(rng.randint(6, 12)):
        x, y, w = rng.randint(0, size), rng.randint(horizon, size), rng.randint(size // 40, size // 14)
        draw.ellipse((x - w, y - w, x + w, y + w), fill=tuple(max(0, min(255, c + rng.randint(-30, 30))) for c in land))
    return image.filter(ImageFilter.GaussianBlur(FINE))


def house(d, rng, x, y, s):
    d.rectangle((x - s, y - s // 3, x + s, y + s), fill=colour(rng))
    d.polygon(((x - 1.2 * s, y - s // 3), (x, y - 1.2 * s), (x + 1.2 * s, y - s // 3)), fill=colour(rng))
    d.rectangle((x - s // 5, y + s // 3, x + s // 5, y + s), fill=(60, 40, 20))
    d.rectangle((x + s // 2.4, y, x + s // 1.3, y + s // 2.6), fill=(250, 240, 170))


def tree(d, rng, x, y, s):
    d.rectangle((x - s // 7, y, x + s // 7, y + s), fill=(100, 65, 30))
    green = (rng.randint(10, 90), rng.randint(90, 160), rng.randint(20, 70))
    for dx, dy, r in ((0, -0.5, 0.65), (-0.45, -0.15, 0.5), (0.45, -0.15, 0.5)):
        d.ellipse((x + (dx - r) * s, y + (dy - r) * s, x + (dx + r) * s, y + (dy + r) * s), fill=green)


def boat(d, rng, x, y, s):
    d.polygon(((x - s, y + s // 3), (x + s, y + s // 3), (x + 0.6 * s, y + s), (x - 0.6 * s, y + s)), fill=colour(rng))
    d.rectangle((x - s // 20, y - s, x + s // 20, y + s // 3), fill=(70, 50, 30))
    d.polygon(((x + s // 8, y - s), (x + s // 8, y + s // 5), (x + 0.9 * s, y + s // 5)), fill=colour(rng, 150, 255))


def balloon(d, rng, x, y, s):
    for n in range(5):
        w = s * (1 - n / 5)
        d.ellipse((x - 0.8 * w, y - s, x + 0.8 * w, y + s // 2), fill=colour(rng))
    d.line((x - s // 2, y + s // 4, x - s // 6, y + 0.8 * s, x + s // 6, y + 0.8 * s, x + s // 2, y + s // 4), fill=(60, 40, 30), width=FINE)
    d.rectangle((x - s // 6, y + 0.75 * s, x + s // 6, y + s), fill=(120, 80, 40))


def car(d, rng, x, y, s):
    paint = colour(rng)
    d.rounded_rectangle((x - s, y, x + s, y + 0.6 * s), s // 6, fill=paint)
    d.polygon(((x - 0.6 * s, y), (x - 0.3 * s, y - 0.5 * s), (x + 0.4 * s, y - 0.5 * s), (x + 0.7 * s, y)), fill=paint)
    d.polygon(((x - 0.45 * s, y), (x - 0.25 * s, y - 0.38 * s), (x + 0.32 * s, y - 0.38 * s), (x + 0.52 * s, y)), fill=(200, 225, 240))
    for dx in (-0.55, 0.55):
        d.ellipse((x + (dx - 0.25) * s, y + 0.35 * s, x + (dx + 0.25) * s, y + 0.85 * s), fill=(25, 25, 25))


def bird(d, rng, x, y, s):
    body = colour(rng)
    d.ellipse((x - 0.8 * s, y - 0.35 * s, x + 0.6 * s, y + 0.45 * s), fill=body)
    d.ellipse((x + 0.35 * s, y - 0.6 * s, x + 0.9 * s, y - 0.05 * s), fill=body)
    d.polygon(((x + 0.85 * s, y - 0.42 * s), (x + 1.25 * s, y - 0.28 * s), (x + 0.85 * s, y - 0.18 * s)), fill=(240, 170, 30))
    d.polygon(((x - 0.3 * s, y), (x + 0.25 * s, y), (x - 0.35 * s, y - s)), fill=colour(rng))
    d.polygon(((x - 0.7 * s, y), (x - 1.25 * s, y - 0.3 * s), (x - 1.2 * s, y + 0.3 * s)), fill=body)
    d.ellipse((x + 0.62 * s, y - 0.45 * s, x + 0.74 * s, y - 0.33 * s), fill=(0, 0, 0))


THINGS = (balloon, bird, boat, car, house, tree)


def scene(thing, seed):
    rng = random.Random(seed)
    size = SIDE * FINE
    image = background(rng, size)
    s = int(size * rng.uniform(0.13, 0.22))
    x, y = (rng.randint(int(1.3 * s), size - int(1.3 * s)) for _ in range(2))
    thing(ImageDraw.Draw(image), rng, x, y, s)
    return image.resize((SIDE, SIDE), Image.LANCZOS)


def main(directory):
    for half, count in (("train", 200), ("val", 40)):
        for thing in THINGS:
            folder = Path(directory) / half / thing.__name__
            folder.mkdir(parents=True, exist_ok=True)
            for n in range(count):
                scene(thing, f"{half} {thing.__name__} {n}").save(folder / f"{n:03}.jpg", quality=92)


main(sys.argv[1])
