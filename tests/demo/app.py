"""An ordinary app that knows nothing of certificates or tokens: files up and down, and a WebSocket.

It only reads ``request.user``, which Starlette apps do anyway; who that is was settled before it is called.
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

FILES = Path(os.environ.get("DEMO_FILES", "files"))


async def read(request: Request) -> Response:
    """A file, or the names of what is in a directory."""
    path = FILES / request.path_params["path"]
    if path.is_dir():
        return JSONResponse(sorted(entry.name for entry in path.iterdir()))
    return FileResponse(path) if path.is_file() else PlainTextResponse("no such file", status_code=404)


async def write(request: Request) -> Response:
    """Store the body as it streams in."""
    path = FILES / request.path_params["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size += file.write(chunk)
    return JSONResponse(
        {"stored": request.path_params["path"], "bytes": size, "by": request.user.display_name}, status_code=201
    )


async def live(websocket: WebSocket) -> None:
    """Say who is connected, then echo one message."""
    await websocket.accept()
    await websocket.send_json({"hello": websocket.user.display_name})
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


async def livez(_request: Request) -> Response:
    """Alive."""
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/livez", livez),
        Route("/files/{path:path}", read, methods=["GET"]),
        Route("/files/{path:path}", write, methods=["PUT"]),
        WebSocketRoute("/live/{run:path}", live),
    ]
)
