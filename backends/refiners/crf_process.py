"""Helper process of the dense CRF: reads requests from stdin, answers on stdout, ends with its parent.

It runs as a file of its own, because the C++ extension can crash the process, holds the GIL and leaks its output.

A request is ``HEADER`` (magic, height, width, w1, alpha, beta, w2, gamma, iterations), then height x width x 3 bytes of RGB,
then height x width x 2 little-endian float32 probabilities (background, object).  An answer is ``ANSWER`` (magic, status,
length) and that many bytes: status 0 and int8 labels, or status 1 and a UTF-8 sentence.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

MAGIC = b"OCRF"
HEADER = struct.Struct("<4sII5dI")
ANSWER = struct.Struct("<4sIQ")


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """``count`` bytes, or fewer at the stream's end."""
    parts = []
    while count > 0:
        part = stream.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def main() -> int:
    """Serve until stdin ends.  Returns the process's exit status."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the extension may print; its text must not get between the answers
    problem = ""
    try:
        import denseCRF
        import numpy as np
    except ImportError as error:
        problem = f"SimpleCRF cannot be loaded: {error}"
    while True:
        header = read_exactly(requests, HEADER.size)
        if len(header) < HEADER.size:
            return 0
        magic, height, width, w1, alpha, beta, w2, gamma, iterations = HEADER.unpack(header)
        if magic != MAGIC:
            return 2
        body = read_exactly(requests, height * width * 11)
        if len(body) < height * width * 11:
            return 0
        if problem:
            status, answer = 1, problem.encode()
        else:
            image = np.frombuffer(body, np.uint8, height * width * 3).reshape(height, width, 3)
            prob = np.frombuffer(body, "<f4", height * width * 2, height * width * 3).reshape(height, width, 2)
            parameters = (w1, alpha, beta, w2, gamma, float(iterations))
            labels = denseCRF.densecrf(
                np.ascontiguousarray(image), np.ascontiguousarray(prob, dtype=np.float32), parameters
            )
            status, answer = 0, np.ascontiguousarray(labels, dtype=np.int8).tobytes()
        answers.write(ANSWER.pack(MAGIC, status, len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    sys.exit(main())
