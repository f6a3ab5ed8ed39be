"""Pictures of a Markdown file that lie beside it, by an address that MLflow's pages show.

MLflow shows a picture of a Markdown artifact only where its address is whole.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from ptal_ray.tracking.views import LOCAL_UI

_PICTURE = re.compile(r"(!\[[^\]]*\]\()([\w.-]+\.(?:png|svg))\)")


def with_addresses(text: str, server: str, run: str, folder: str) -> str:
    """Markdown whose pictures have whole addresses.

    Args:
        text: the file.
        server: tracking URI without credentials; the pages of a database are at `LOCAL_UI`.
        run: id of the run that holds the pictures.
        folder: of the artifacts in which they lie.
    """
    base = server.rstrip("/") if server.startswith("http") else LOCAL_UI

    def whole(found: re.Match[str]) -> str:
        """The link with the address of the artifact in place of the file name."""
        path = quote(f"{folder}/{found[2]}", safe="")
        return f"{found[1]}{base}/get-artifact?path={path}&run_uuid={run})"

    return _PICTURE.sub(whole, text)
