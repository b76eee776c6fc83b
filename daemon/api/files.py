"""Files as answers."""

from __future__ import annotations

from aiohttp import web

from daemon.api import problems
from daemon.api.jsonio import dumps

REFUSED = (403, 404, 416)  # what aiohttp leaves without a length, so that a body can follow
KEPT = ("Content-Range", "Transfer-Encoding", "Connection", "Date", "Server")


class FileAnswer(web.FileResponse):
    """A file; one that is gone, or has no such range, as a problem document, where aiohttp sends nothing."""

    _refusal = b""

    def check(self, request: web.BaseRequest) -> None:
        """To be called once the status is known and before the headers are sent."""
        if self.status not in REFUSED:
            return
        for name in {name for name in self.headers if name not in KEPT}:
            del self.headers[name]
        self.content_type = problems.MEDIA_TYPE
        if request.method != "HEAD":
            self._refusal = dumps(problems.of_status(self.status, request, self.reason or ""))

    async def write_eof(self, data: bytes = b"") -> None:
        """End the answer."""
        await super().write_eof(data or self._refusal)
