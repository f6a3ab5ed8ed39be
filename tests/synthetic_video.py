"""Small videos for tests: every frame has its own shade, and a red square at the left."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

TICKS = 1000  # a second


def shade(index):
    """Grey level of frame `index`; neighbours are far enough apart for a lossy codec."""
    return 20 + 20 * (index % 10)


def picture(index, height=48, width=64):
    """RGB (height, width, 3) of frame `index`."""
    image = np.full((height, width, 3), shade(index), np.uint8)
    image[:, : width // 4] = (200, 0, 0)
    return image


def write_video(path, frames=20, fps=10, *, times=None, turned=0, audio_s=0.0, **sides):
    """A video by PyAV, also of uneven time stamps (in 1/TICKS s), turned, or with sound."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps), options={"g": "5"})
        stream.height, stream.width = sides.get("height", 48), sides.get("width", 64)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, TICKS if times else fps)
        if turned:
            stream.set_display_rotation(turned)
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, **sides), format="rgb24")
            frame.pts = times[index] if times else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            write_sound(container, sound, audio_s)
    return path


def write_sound(container, stream, seconds):
    """Silence, into an open container."""
    import av

    for start in range(0, int(8000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_audio(path, seconds=1.0):
    """A file of sound alone."""
    import av

    with av.open(str(path), "w") as container:
        write_sound(container, container.add_stream("aac", rate=8000, layout="mono"), seconds)
    return path
