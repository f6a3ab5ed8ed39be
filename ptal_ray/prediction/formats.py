"""The formats of detections on new videos."""

from __future__ import annotations

FORMATS = ("json", "csv", "srt", "vtt", "html")
