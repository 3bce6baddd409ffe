#!/usr/bin/env python3
"""Makes data/fashion-mnist from the full Fashion-MNIST.

    tools/fashion_subset.py SOURCE [TARGET]

SOURCE holds the four original IDX files (.gz), for example /usr/share/datasets/fashion-mnist of Debian's package
dataset-fashion-mnist. Taken are the first 800 training and the first 200 test images of every class, in the order of the
originals. The result is the same bytes on every machine with the same zlib: no time stamps, no random choice.
"""
import gzip
import pathlib
import struct
import sys

CLASSES = 10
PER_CLASS = {"train": 800, "t10k": 200}


def read_idx(path):
    """The dimensions and the bytes of one IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    if (zero, kind) != (0, 8):
        sys.exit(f"{path}: not an IDX file of unsigned bytes")
    dims = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return dims, raw[4 + 4 * rank :]


def write_idx(path, dims, body):
    """Writes one IDX file, compressed, with no time stamp and no name inside."""
    head = struct.pack(">HBB", 0, 8, len(dims)) + struct.pack(f">{len(dims)}I", *dims)
    path.write_bytes(gzip.compress(head + body, compresslevel=9, mtime=0))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(sys.argv[2] if len(sys.argv) == 3 else pathlib.Path(__file__).parent.parent / "data/fashion-mnist")
    target.mkdir(parents=True, exist_ok=True)
    for part, per_class in PER_CLASS.items():
        (count, rows, columns), images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        _, labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        taken, seen = [], [0] * CLASSES
        for index in range(count):
            if seen[labels[index]] < per_class:
                seen[labels[index]] += 1
                taken.append(index)
        size = rows * columns
        picked = b"".join(images[index * size : (index + 1) * size] for index in taken)
        write_idx(target / f"{part}-images-idx3-ubyte.gz", (len(taken), rows, columns), picked)
        write_idx(target / f"{part}-labels-idx1-ubyte.gz", (len(taken),), bytes(labels[index] for index in taken))
        print(f"{part}: {len(taken)} of {count} images")


if __name__ == "__main__":
    main()
